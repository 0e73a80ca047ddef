//! `mainstay lab-node`: what the binary does inside the lab. Started by the lab itself.

use std::ffi::OsString;
use std::process::ExitCode;

/// The inside of a lab node (started by the lab itself)
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to do, in the lab's own words
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Must be called while the process has one thread only.
pub(crate) fn run(args: &Args) -> ExitCode {
    lab::lab_node(&args.arguments)
}
