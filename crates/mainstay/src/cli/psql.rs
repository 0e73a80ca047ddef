//! `mainstay psql`: a session with a database.

use super::error::CliError;
use super::exit::Exit;
use super::output::Output;
use super::target::Target;

/// Open psql on a database, as its owner
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mainstay psql orders
  mainstay psql orders --route orders-ro -- -c 'select 1'")]
pub(crate) struct Args {
    /// The database
    #[arg(value_name = "DATABASE")]
    database: String,
    /// The route to go through; without it one that leads to the primary
    #[arg(long, value_name = "ROUTE")]
    route: Option<String>,
    /// Further arguments for psql
    #[arg(last = true, value_name = "ARGUMENTS")]
    arguments: Vec<String>,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(_args: Args, _output: Output) -> Result<Exit, CliError> {
    Err(CliError::failed("`mainstay psql` is not part of this build yet")
        .hint("`mainstay check FILE` works already"))
}
