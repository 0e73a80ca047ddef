//! Service instances under supervision: started, watched, checked, restarted, stopped, their output kept.
//!
//! What to do next is decided by [`machine`], a pure function of state, event and time; `keeper.rs` carries it out. A
//! restarted agent adopts the instances that run.

pub mod container;
pub mod health;
mod keeper;
pub mod logs;
pub mod machine;
mod supervisor;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use model::ServiceName;
use model::routes::InstanceRouteState;
use model::system::Health;
use model::time::Moment;
use serde::{Deserialize, Serialize};

use crate::process::{OsUser, ProcessId};
use container::Container;

pub use supervisor::{States, Supervisor};

/// One instance as it shall run, with every placeholder filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceSpec {
    /// Unique and stable, safe as a file name, e.g. `web-2@e1`.
    pub id: String,
    /// The service it is a copy of.
    pub service: ServiceName,
    /// Program and arguments. A program without a slash is searched in our own `PATH`. With a container what its image is
    /// given, which may be nothing; else never empty.
    pub command: Vec<String>,
    /// The image it runs from, if it is no program of the node.
    pub container: Option<Container>,
    /// Its environment.
    pub env: BTreeMap<String, String>,
    /// Its working directory, made when missing.
    pub cwd: PathBuf,
    /// Whom it runs as; `None` for our own user.
    pub user: Option<OsUser>,
    /// Where it is asked for its health.
    pub address: SocketAddr,
    /// How a working instance is told from a broken one.
    pub health: Health,
    /// How one that may take requests is told from one that may not; `None`: `health` says both.
    pub ready: Option<Health>,
    /// The most memory that it may use with all it starts, in bytes.
    pub memory: Option<u64>,
    /// What its first start waits for, in a few words.
    pub hold: Option<String>,
    /// How long it may take to end after SIGTERM before SIGKILL.
    pub stop_grace: Duration,
    /// File that takes both its output streams, see [`logs::path`].
    pub log: PathBuf,
    /// Parts of command and environment that may differ from what a running process was started with, because it works
    /// as well without them.
    pub dispensable: Vec<String>,
    /// Whether a process that serves is replaced now when it was started with something else; otherwise it serves on,
    /// and is said to be outdated.
    pub replace: bool,
}

impl InstanceSpec {
    /// A number for what the process was started with. When it differs from the wanted one the process must be replaced;
    /// health check and grace can change under a running one. Stable over versions (FNV-1a, 64 bits).
    pub fn launch_digest(&self) -> u64 {
        let user = self.user.as_ref().map(|user| user.uid);
        let mut text = format!("{:?}", (&self.command, &self.env, &self.cwd, user, self.address));
        // Without a limit the number is that of versions that knew none.
        if let Some(bytes) = self.memory {
            text += &format!("memory {bytes}");
        }
        if let Some(container) = &self.container {
            let user = container.user.as_ref().map(|user| user.uid);
            text += &format!("image {} as {user:?}", container.image);
        }
        for part in self.dispensable.iter().filter(|part| !part.is_empty()) {
            text = text.replace(part, "");
        }
        text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    }
}

/// What an instance is doing, as people and proxies are told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum InstanceState {
    /// Waits for something before its first start.
    Waiting {
        /// For what.
        because: String,
    },
    /// Being started, or started and not yet healthy for the first time.
    Starting {
        /// How often in a row it ended soon after its start.
        crashes: u32,
        /// What its last health check said, if there was one.
        because: Option<String>,
    },
    /// Runs and is healthy.
    Ready,
    /// Runs, was healthy, and is not now.
    NotReady {
        /// What the health check said.
        because: String,
    },
    /// Ended by itself (or could not be started) and waits for its next start.
    Backoff {
        /// When that is.
        until: Moment,
        /// How it ended, e.g. `ended with exit code 1`.
        last_exit: String,
        /// How often in a row it ended soon after its start.
        crashes: u32,
    },
    /// Was told to end and has not ended yet.
    Stopping,
    /// Does not run and shall not.
    Stopped {
        /// How it ended, if it ran.
        last_exit: Option<String>,
    },
}

/// So many quick ends in a row are a crash loop: with the back-off this takes about 3 s.
pub const CRASH_LOOP: u32 = 5;

impl InstanceState {
    /// What proxies are told.
    pub fn route_state(&self) -> InstanceRouteState {
        match self {
            Self::Ready => InstanceRouteState::Ready,
            Self::Starting { .. } | Self::NotReady { .. } => InstanceRouteState::NotReady,
            Self::Stopping => InstanceRouteState::Draining,
            Self::Waiting { .. } | Self::Backoff { .. } | Self::Stopped { .. } => InstanceRouteState::Gone,
        }
    }

    /// Whether it ends again and again soon after its start.
    pub fn is_crash_loop(&self) -> bool {
        match self {
            Self::Starting { crashes, .. } | Self::Backoff { crashes, .. } => *crashes >= CRASH_LOOP,
            Self::Waiting { .. }
            | Self::Ready
            | Self::NotReady { .. }
            | Self::Stopping
            | Self::Stopped { .. } => false,
        }
    }
}

impl fmt::Display for InstanceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting { because } => write!(f, "waits for {because}"),
            Self::Starting { crashes: 0, because: None } => f.write_str("starting"),
            Self::Starting { crashes: 0, because: Some(because) } => write!(f, "starting: {because}"),
            Self::Starting { crashes, because: _ } => {
                write!(f, "starting again after {}", in_a_row(*crashes))
            }
            Self::Ready => f.write_str("ready"),
            Self::NotReady { because } => write!(f, "not ready: {because}"),
            Self::Backoff { last_exit, crashes, .. } => {
                write!(f, "{last_exit}, waits for its next start ({})", in_a_row(*crashes))
            }
            Self::Stopping => f.write_str("stopping"),
            Self::Stopped { last_exit: None } => f.write_str("stopped"),
            Self::Stopped { last_exit: Some(exit) } => write!(f, "stopped ({exit})"),
        }
    }
}

fn in_a_row(crashes: u32) -> String {
    if crashes == 1 { "1 crash".to_owned() } else { format!("{crashes} crashes in a row") }
}

/// An instance with its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// The service it is a copy of.
    pub service: ServiceName,
    /// Where it listens.
    pub address: SocketAddr,
    /// What it is doing.
    pub state: InstanceState,
    /// Since when, on this node's boot clock.
    pub since: Moment,
    /// Its process, while it has one.
    pub process: Option<ProcessId>,
    /// Whether it runs with something else than is wanted, and waits for its turn to be replaced.
    pub outdated: bool,
    /// How often it was started since the agent knows it, the first time included; 0 for an adopted one.
    pub starts: u32,
    /// What it printed last before it ended by itself the last time.
    pub last_lines: Vec<String>,
    /// Why its memory is not limited although it should be.
    pub unlimited: Option<String>,
}
