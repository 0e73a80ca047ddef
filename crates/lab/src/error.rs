//! What can go wrong in the lab: each error names the place, the reason and what helps.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::{NodeName, SystemName};
use thiserror::Error;

/// Shorthand for results of the lab.
pub type Result<T> = std::result::Result<T, LabError>;

/// A failure of the lab itself, not of the system that runs in it.
#[derive(Debug, Error)]
pub enum LabError {
    /// Something is missing or taken; nothing was created.
    #[error("{}", list(.0))]
    NotReady(Vec<Problem>),
    /// A second `up`.
    #[error("system {system} is already running here ({nodes} nodes)")]
    AlreadyRunning {
        /// The system.
        system: SystemName,
        /// How many of its nodes are on.
        nodes: usize,
    },
    /// No lab of that name.
    #[error("no system {system} runs on this machine; {}", which_run(.known))]
    Unknown {
        /// What was asked for.
        system: SystemName,
        /// What there is.
        known: Vec<SystemName>,
    },
    /// The system has no such node.
    #[error("system {system} has no node {node}")]
    UnknownNode {
        /// The system.
        system: SystemName,
        /// What was asked for.
        node: NodeName,
    },
    /// The node is off (killed, or never started).
    #[error("node {node} is off")]
    NodeOff {
        /// The node.
        node: NodeName,
    },
    /// The node is on although it should be off.
    #[error("node {node} is already on")]
    NodeOn {
        /// The node.
        node: NodeName,
    },
    /// Another command changes the same lab at this moment.
    #[error("another command is changing system {system} and did not finish within {waited:?}")]
    Busy {
        /// The system.
        system: SystemName,
        /// How long was waited.
        waited: Duration,
    },
    /// This lab cannot do that.
    #[error("{what} is not possible here: {why}")]
    NotPossible {
        /// The wish.
        what: String,
        /// The reason.
        why: String,
    },
    /// A program of the operating system failed.
    #[error("{program} failed ({status}) while {doing}: {stderr}")]
    Program {
        /// What the lab was about to do.
        doing: String,
        /// The program.
        program: String,
        /// How it ended.
        status: String,
        /// What it said.
        stderr: String,
    },
    /// A system call failed.
    #[error("{doing}: {source}")]
    Io {
        /// What the lab was about to do, with the file or process.
        doing: String,
        /// The operating system's reason.
        source: io::Error,
    },
    /// Something did not happen in time.
    #[error("{what} did not happen within {within:?}: {seen}")]
    Late {
        /// What was waited for.
        what: String,
        /// For how long.
        within: Duration,
        /// What was seen instead.
        seen: String,
    },
    /// A file of the lab's own cannot be understood.
    #[error("{path} is damaged: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A node did not come up.
    #[error("node {node} did not start: {reason}")]
    NodeStart {
        /// The node.
        node: NodeName,
        /// What its init said.
        reason: String,
    },
}

/// One thing that stands in the way of `up`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong, in one sentence.
    pub what: String,
    /// What helps.
    pub hint: String,
}

impl LabError {
    /// What the reader can do about it, where there is something.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotReady(problems) => Some(hints(problems)),
            Self::AlreadyRunning { system, .. } => {
                Some(format!("`mainstay status` shows it, `mainstay down {system}` ends it"))
            }
            Self::Unknown { .. } => Some("`mainstay up FILE` starts a system".to_owned()),
            Self::Busy { .. } => Some("wait until it has finished and try again".to_owned()),
            Self::Damaged { .. } => Some("`mainstay down SYSTEM` removes what is left of it".to_owned()),
            Self::NodeStart { .. } => Some("`mainstay down SYSTEM` removes what was begun".to_owned()),
            Self::UnknownNode { .. }
            | Self::NodeOff { .. }
            | Self::NodeOn { .. }
            | Self::NotPossible { .. }
            | Self::Program { .. }
            | Self::Io { .. }
            | Self::Late { .. } => None,
        }
    }

    /// For `map_err` on system calls: `LabError::io(|| format!("reading {path}"))`.
    pub(crate) fn io<E: Into<io::Error>>(doing: impl FnOnce() -> String) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { doing: doing(), source: source.into() }
    }

    /// For `map_err` on file operations: `LabError::file("reading", &path)`.
    pub(crate) fn file<E: Into<io::Error>>(doing: &str, path: &Path) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { doing: format!("{doing} {}", path.display()), source: source.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(|p| p.what.as_str()).collect::<Vec<_>>().join("; ")
}

fn hints(problems: &[Problem]) -> String {
    let mut hints: Vec<&str> = problems.iter().map(|p| p.hint.as_str()).collect();
    hints.dedup();
    hints.join("; ")
}

fn which_run(systems: &[SystemName]) -> String {
    if systems.is_empty() {
        return "none does".to_owned();
    }
    let names: Vec<_> = systems.iter().map(SystemName::as_str).collect();
    format!("these do: {}", names.join(", "))
}
