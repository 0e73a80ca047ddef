//! `mainstay events`: what happened, and why.

use super::error::CliError;
use super::exit::Exit;
use super::output::Output;
use super::target::Target;

/// Show what happened, and why
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mainstay events --since 10m
  mainstay events --follow")]
pub(crate) struct Args {
    /// Only events of this last time, such as `10m` or `2h`
    #[arg(long, value_name = "DURATION")]
    since: Option<String>,
    /// Go on with new events until interrupted
    #[arg(long)]
    follow: bool,
    /// One JSON document a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(_args: Args, _output: Output) -> Result<Exit, CliError> {
    Err(CliError::failed("`mainstay events` is not part of this build yet")
        .hint("`mainstay check FILE` works already"))
}
