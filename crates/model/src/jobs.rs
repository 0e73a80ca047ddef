//! What the system has agreed on about a job: its runs, the one under way among them. Coordination key `jobs/NAME`.
//!
//! A run is written there before it begins, by compare-and-set: two leaders cannot begin one twice.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::NodeName;
use crate::system::JobSchedule;

/// How many runs of a job are remembered.
pub const KEPT: usize = 50;

/// Everything agreed on about one job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    /// The schedule by which it is seen to; `None` until a leader has seen one.
    #[serde(default)]
    pub schedule: Option<JobSchedule>,
    /// The latest due time that was seen to, in seconds since the Unix epoch. Times before a schedule was first seen count
    /// as seen to, so that a new one is not run for the past.
    pub seen_to: i64,
    /// The newest runs, oldest first; at most [`KEPT`].
    pub runs: Vec<Run>,
}

/// One run of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Counts up from 1.
    pub number: u64,
    /// Why there is it.
    pub cause: Cause,
    /// How far it is.
    pub state: RunState,
}

/// Why there is a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Cause {
    /// It was due.
    Due {
        /// When, in seconds since the Unix epoch.
        at: i64,
    },
    /// Somebody asked for it.
    Asked {
        /// Who and what for, e.g. `an operator` or `release 7 of web`. Whoever asks twice with the same words while the run
        /// is remembered gets the same run, unless it was an operator.
        by: String,
    },
    /// The outcome of another run is unknown, and the job may be repeated then.
    Repeat {
        /// The number of that run.
        of: u64,
    },
}

/// How far a run is. Times are in microseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum RunState {
    /// No node has been found for it yet.
    Waiting,
    /// This node is to begin it, and has not.
    Given {
        /// The node.
        node: NodeName,
    },
    /// It has begun, or is about to.
    Running {
        /// Where.
        node: NodeName,
        /// Which run of that node's agent began it.
        incarnation: u64,
        /// When.
        since_us: i64,
    },
    /// It ended with exit code 0.
    Succeeded(Ended),
    /// It ended otherwise, or could not be started.
    Failed {
        /// Where and when.
        #[serde(flatten)]
        ended: Ended,
        /// How, in one sentence.
        because: String,
        /// What it printed last.
        last_lines: Vec<String>,
    },
    /// It began, and nobody can tell how it ended.
    Unknown {
        /// Where and when that was found.
        #[serde(flatten)]
        ended: Ended,
        /// Why nobody can, in one sentence.
        because: String,
    },
    /// It never began, and will not any more.
    Withdrawn {
        /// When that was decided.
        at_us: i64,
        /// Why, in one sentence.
        because: String,
    },
}

/// Where a run was, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The node.
    pub node: NodeName,
    /// When it began.
    pub since_us: i64,
    /// When it ended.
    pub until_us: i64,
}

impl JobRecord {
    /// The newest run.
    pub fn last(&self) -> Option<&Run> {
        self.runs.last()
    }

    /// The run that is under way or about to be.
    pub fn open(&self) -> Option<&Run> {
        self.last().filter(|run| run.state.is_open())
    }

    /// The run of this number.
    pub fn run(&self, number: u64) -> Option<&Run> {
        self.runs.iter().find(|run| run.number == number)
    }

    /// The same with one more run, of which the number is told.
    #[must_use]
    pub fn with(&self, cause: Cause, state: RunState) -> (Self, u64) {
        let number = self.last().map_or(1, |run| run.number + 1);
        let mut next = self.clone();
        next.runs.push(Run { number, cause, state });
        let surplus = next.runs.len().saturating_sub(KEPT);
        next.runs.drain(..surplus);
        (next, number)
    }

    /// The same with another state of a run.
    #[must_use]
    pub fn turned(&self, number: u64, state: RunState) -> Self {
        let mut next = self.clone();
        for run in next.runs.iter_mut().filter(|run| run.number == number) {
            run.state = state.clone();
        }
        next
    }
}

impl RunState {
    /// Whether it is not over yet.
    pub fn is_open(&self) -> bool {
        match self {
            Self::Waiting | Self::Given { .. } | Self::Running { .. } => true,
            Self::Succeeded(_) | Self::Failed { .. } | Self::Unknown { .. } | Self::Withdrawn { .. } => false,
        }
    }

    /// Where it is or was.
    pub fn node(&self) -> Option<&NodeName> {
        match self {
            Self::Waiting | Self::Withdrawn { .. } => None,
            Self::Given { node } | Self::Running { node, .. } => Some(node),
            Self::Succeeded(ended) | Self::Failed { ended, .. } | Self::Unknown { ended, .. } => {
                Some(&ended.node)
            }
        }
    }

    /// When it began and when it ended.
    pub fn times(&self) -> (Option<i64>, Option<i64>) {
        match self {
            Self::Waiting | Self::Given { .. } | Self::Withdrawn { .. } => (None, None),
            Self::Running { since_us, .. } => (Some(*since_us), None),
            Self::Succeeded(ended) | Self::Failed { ended, .. } | Self::Unknown { ended, .. } => {
                (Some(ended.since_us), Some(ended.until_us))
            }
        }
    }
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting => f.write_str("waits for a node that may run it"),
            Self::Given { node } => write!(f, "is about to begin on {node}"),
            Self::Running { node, .. } => write!(f, "runs on {node}"),
            Self::Succeeded(_) => f.write_str("succeeded"),
            Self::Failed { because, .. } => write!(f, "failed: {because}"),
            Self::Unknown { because, .. } => write!(f, "unknown outcome: {because}"),
            Self::Withdrawn { because, .. } => write!(f, "never began: {because}"),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Due { .. } => f.write_str("it was due"),
            Self::Asked { by } => write!(f, "{by} asked for it"),
            Self::Repeat { of } => write!(f, "the outcome of run {of} is unknown"),
        }
    }
}
