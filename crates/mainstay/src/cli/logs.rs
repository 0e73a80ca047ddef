//! `mainstay logs`: what a process wrote.

use super::error::CliError;
use super::exit::Exit;
use super::output::Output;
use super::target::Target;

/// Show what a database, a service, an agent or a proxy wrote
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mainstay logs web --follow
  mainstay logs orders -n 20")]
pub(crate) struct Args {
    /// A database, service or instance; `agent` or `proxy`; `NODE/...` for one node only
    #[arg(value_name = "SUBJECT")]
    subject: String,
    /// Go on with new lines until interrupted
    #[arg(long)]
    follow: bool,
    /// How many lines of the past
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 100)]
    lines: usize,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(_args: Args, _output: Output) -> Result<Exit, CliError> {
    Err(CliError::failed("`mainstay logs` is not part of this build yet")
        .hint("`mainstay check FILE` works already"))
}
