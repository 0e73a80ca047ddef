//! A lab node: a first process ("init") that keeps the agent running, in namespaces of its own or beside the others.
//!
//! Its init is its power button: in a PID namespace the kernel ends everything with it.

pub(crate) mod init;
pub(crate) mod spawn;

use std::collections::BTreeMap;
use std::path::PathBuf;

use model::NodeName;
use serde::{Deserialize, Serialize};

use crate::clocks::Files;

/// The variable that marks every process of a node; its value is the node's root directory.
pub(crate) const MARK: &str = "MAINSTAY_LAB_NODE";

/// What an init has to know, from a file, so that a node started later is the same as one started by `up`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeSpec {
    /// Also the host name.
    pub(crate) node: NodeName,
    /// Whether it has namespaces of its own, so that it is process 1 and may mount.
    pub(crate) isolated: bool,
    /// The node's `--root`.
    pub(crate) root: PathBuf,
    /// Where it and the agent print to.
    pub(crate) log: PathBuf,
    /// What it keeps running: program and arguments.
    pub(crate) command: Vec<String>,
    /// The working directory of that.
    pub(crate) directory: PathBuf,
    /// The whole environment of that.
    pub(crate) environment: BTreeMap<String, String>,
    /// An image with a file system, and the directory it is mounted on.
    pub(crate) volume: Option<(PathBuf, PathBuf)>,
    /// Clocks of its own.
    #[serde(default)]
    pub(crate) clocks: Option<Files>,
}
