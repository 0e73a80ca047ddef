//! `mainstay apply`: a changed file for a running system.

use std::path::PathBuf;

use super::error::CliError;
use super::exit::Exit;
use super::output::Output;
use super::target::Target;

/// Change the running system to what a file describes
///
/// Shows every change with its consequence and asks before anything is touched. What cannot be changed while the system
/// runs is refused as a whole (exit code 3).
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mainstay apply mainstay.toml --dry-run
  mainstay apply mainstay.toml --yes")]
pub(crate) struct Args {
    /// The changed system file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Do not ask before the change
    #[arg(long)]
    yes: bool,
    /// Only show what would change and what follows from it
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(_args: Args, _output: Output) -> Result<Exit, CliError> {
    Err(CliError::failed("`mainstay apply` is not part of this build yet")
        .hint("`mainstay check FILE` works already"))
}
