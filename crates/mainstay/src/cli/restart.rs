//! `mainstay restart`: an orderly restart.

use super::error::CliError;
use super::exit::Exit;
use super::output::Output;
use super::target::Target;

/// Restart a node's work, a database or a service, one after another
///
/// Members restart one after another, the primary last after a switchover; of a service a new instance is healthy before
/// an old one stops.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mainstay restart web
  mainstay restart orders
  mainstay restart node/e1")]
pub(crate) struct Args {
    /// A node, a database or a service; `node/e1`, `database/orders` or `service/web` where the name is not unique
    #[arg(value_name = "NODE|DATABASE|SERVICE")]
    subject: String,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(_args: Args, _output: Output) -> Result<Exit, CliError> {
    Err(CliError::failed("`mainstay restart` is not part of this build yet")
        .hint("`mainstay check FILE` works already"))
}
