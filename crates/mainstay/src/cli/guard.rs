//! `mainstay guard`: looks after an agent whose program is on trial.

use std::path::PathBuf;

use effects::process::ProcessId;

use super::agent::log_to_stderr;
use super::error::CliError;
use super::exit::Exit;

/// Ends an agent whose new program hangs (started by the program before it)
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where everything of this node lies
    #[arg(long, value_name = "DIRECTORY")]
    root: PathBuf,
    /// The agent's process
    #[arg(long, value_name = "PID")]
    pid: i32,
    /// When that was started, in clock ticks since the machine was
    #[arg(long, value_name = "TICKS")]
    started: u64,
}

pub(crate) fn run(args: &Args) -> Result<Exit, CliError> {
    log_to_stderr();
    mainstay::program::guard(&args.root, ProcessId { pid: args.pid, start_ticks: args.started });
    Ok(Exit::Done)
}
