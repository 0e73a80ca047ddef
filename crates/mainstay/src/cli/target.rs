//! Which running system a command is for.

use std::path::PathBuf;

/// The system to ask.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Target {
    /// The system, when several run on this machine
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) system: Option<String>,
    /// Ask the agent of this node's directory instead of a system that `up` started
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "system")]
    pub(crate) root: Option<PathBuf>,
}
