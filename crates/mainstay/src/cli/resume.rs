//! `mainstay resume`: automatic repair again.

use super::error::CliError;
use super::exit::Exit;
use super::output::Output;
use super::target::Target;

/// Let Mainstay act again after a pause
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mainstay resume")]
pub(crate) struct Args {
    /// A word about it, kept in the events
    #[arg(long, value_name = "WORDS")]
    reason: Option<String>,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(_args: Args, _output: Output) -> Result<Exit, CliError> {
    Err(CliError::failed("`mainstay resume` is not part of this build yet")
        .hint("`mainstay check FILE` works already"))
}
