//! `mainstay why`: the reason for the state of one thing.

use super::error::CliError;
use super::exit::Exit;
use super::output::Output;
use super::target::Target;

/// Explain why something is as it is
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mainstay why orders
  mainstay why node/e1")]
pub(crate) struct Args {
    /// A node, database, member, service, instance or route
    #[arg(value_name = "SUBJECT")]
    subject: String,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(_args: Args, _output: Output) -> Result<Exit, CliError> {
    Err(CliError::failed("`mainstay why` is not part of this build yet")
        .hint("`mainstay check FILE` works already"))
}
