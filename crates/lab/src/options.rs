//! How a lab is to be brought up.

use std::fmt;
use std::path::{Path, PathBuf};

use model::NodeName;
use model::system::System;

use crate::error::Problem;
use crate::home;
use crate::manifest::Node;

/// A check that `up` makes before it creates anything, for what the lab itself knows nothing of (PostgreSQL's programs,
/// for example). It returns what is in the way.
pub type Check = Box<dyn Fn(&System) -> Vec<Problem> + Send>;

/// What `up` does for each node before it is switched on, beyond what the lab itself knows (certificates, for example). It is
/// done again by every `up`, so it must leave what is there already.
pub type Prepare = Box<dyn Fn(&Ground<'_>) -> std::result::Result<(), String> + Send>;

/// What there is of a node before it is switched on.
#[derive(Clone, Copy, Debug)]
pub struct Ground<'g> {
    /// The directory of the whole lab: what is put there goes with it.
    pub directory: &'g Path,
    /// The node.
    pub name: &'g NodeName,
    /// Its record, with the addresses it gets here.
    pub node: &'g Node,
    /// Its `--root`; it exists.
    pub root: &'g Path,
}

/// How `up` is to do its work. [`Options::default`] is what a user gets who says nothing.
pub struct Options {
    /// Where labs lie.
    pub base: PathBuf,
    /// Loopback addresses also where namespaces could be had.
    pub loopback: bool,
    /// Listen on 127.0.0.1 at the ports of the routes.
    pub forward: bool,
    /// Size in bytes of a file system of its own for each node's databases, for faults of disks.
    pub data_volume: Option<u64>,
    /// Clocks of its own for each node, for faults of clocks. Every look at the time takes a little longer there.
    pub own_clocks: bool,
    /// The binary that has the `lab-node` command.
    pub program: PathBuf,
    /// What the init of each node keeps running, with the placeholders `{node}`, `{root}` and `{file}`.
    pub command: Vec<String>,
    /// Further checks.
    pub checks: Vec<Check>,
    /// What is done for each node before it is switched on.
    pub prepare: Vec<Prepare>,
}

impl Default for Options {
    fn default() -> Self {
        let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("mainstay"));
        let command = ["agent", "--node", "{node}", "--root", "{root}", "--file", "{file}"];
        let command = std::iter::once(program.display().to_string())
            .chain(command.iter().map(|word| (*word).to_owned()))
            .collect();
        Self {
            base: home::standard_base(),
            loopback: false,
            forward: true,
            data_volume: None,
            own_clocks: false,
            program,
            command,
            checks: Vec::new(),
            prepare: Vec::new(),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("base", &self.base)
            .field("loopback", &self.loopback)
            .field("forward", &self.forward)
            .field("data_volume", &self.data_volume)
            .field("own_clocks", &self.own_clocks)
            .field("program", &self.program)
            .field("command", &self.command)
            .field("checks", &self.checks.len())
            .finish()
    }
}
