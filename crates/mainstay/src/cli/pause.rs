//! `mainstay pause`: no automatic repair for a while.

use super::error::CliError;
use super::exit::Exit;
use super::output::Output;
use super::target::Target;

/// Let Mainstay watch but not act, for maintenance
///
/// Nothing fails over, restarts or moves by itself until `mainstay resume`. Facts and events are still collected.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mainstay pause --reason \"new switch in rack 4\"")]
pub(crate) struct Args {
    /// Why; it is shown to everyone who asks for the status
    #[arg(long, value_name = "WORDS")]
    reason: Option<String>,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(_args: Args, _output: Output) -> Result<Exit, CliError> {
    Err(CliError::failed("`mainstay pause` is not part of this build yet")
        .hint("`mainstay check FILE` works already"))
}
