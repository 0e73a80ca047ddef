//! `mainstay failover`: a promotion that may lose writes, on an operator's word.

use super::error::CliError;
use super::exit::Exit;
use super::output::Output;
use super::target::Target;

/// Promote a member although acknowledged writes may be lost
///
/// Only needed when too few members are left to prove that nothing is lost: Mainstay repairs everything else by itself.
/// Without need it is refused (exit code 3).
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mainstay failover orders --to w1 --accept-loss \"the building with e1 and e2 burned down\"")]
pub(crate) struct Args {
    /// The database
    #[arg(value_name = "DATABASE")]
    database: String,
    /// The member to promote
    #[arg(long, value_name = "NODE")]
    to: String,
    /// Your words for accepting the loss; they are kept in the events
    #[arg(long, value_name = "WORDS")]
    accept_loss: String,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(_args: Args, _output: Output) -> Result<Exit, CliError> {
    Err(CliError::failed("`mainstay failover` is not part of this build yet")
        .hint("`mainstay check FILE` works already"))
}
