//! `mainstay switchover`: a planned change of the primary.

use super::error::CliError;
use super::exit::Exit;
use super::output::Output;
use super::target::Target;

/// Make another member the primary, without losing a write
///
/// Writes wait for a moment and go on under the new primary; clients of a route notice a pause, not an error.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mainstay switchover orders
  mainstay switchover orders --to w1")]
pub(crate) struct Args {
    /// The database
    #[arg(value_name = "DATABASE")]
    database: String,
    /// The member to take over; without it the best one is chosen
    #[arg(long, value_name = "NODE")]
    to: Option<String>,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(_args: Args, _output: Output) -> Result<Exit, CliError> {
    Err(CliError::failed("`mainstay switchover` is not part of this build yet")
        .hint("`mainstay check FILE` works already"))
}
