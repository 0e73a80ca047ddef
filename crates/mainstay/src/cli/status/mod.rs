//! `mainstay status`: what is up, where the primary is, what is protected and what is wrong.

use super::error::CliError;
use super::exit::Exit;
use super::output::Output;
use super::target::Target;

/// Show what is up, where each primary is, what is protected and what is wrong
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mainstay status
  mainstay status --watch
  mainstay status --json | jq '.databases'
  mainstay status --check || page-someone")]
pub(crate) struct Args {
    /// Print everything as JSON
    #[arg(long)]
    json: bool,
    /// Show it again whenever it changes, until interrupted
    #[arg(long, conflicts_with = "json")]
    watch: bool,
    /// End with exit code 4 when the system is degraded
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(_args: Args, _output: Output) -> Result<Exit, CliError> {
    Err(CliError::failed("`mainstay status` is not part of this build yet")
        .hint("`mainstay check FILE` works already"))
}
