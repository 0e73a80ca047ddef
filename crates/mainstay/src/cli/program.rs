//! `mainstay program`: what this program says of itself before it is run in the place of another one.

use std::path::PathBuf;

use mainstay::program::{Facts, reads_state};

use super::error::CliError;
use super::exit::Exit;
use super::output::Output;

/// What this program is, as JSON (asked by an agent before it becomes this program)
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also read what the agent with these files would read at its start
    #[arg(long, value_name = "DIRECTORY")]
    root: Option<PathBuf>,
}

pub(crate) fn run(args: &Args, output: Output) -> Result<Exit, CliError> {
    if let Some(root) = &args.root {
        reads_state(root).map_err(|because| {
            CliError::failed(format!("this program cannot read what the node has kept: {because}"))
        })?;
    }
    output.print_json(&Facts::own())?;
    Ok(Exit::Done)
}
