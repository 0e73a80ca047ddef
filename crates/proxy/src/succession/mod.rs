//! One proxy takes the place of another one without a client's noticing: how its own binary is replaced.
//!
//! ```text
//! successor                                predecessor
//!     | ------------- connects ------------> |   serves all the while
//!     | <-- table, cookies, listeners ------ |   the same sockets, passed over (SCM_RIGHTS)
//!     |  reads certificates and pages        |
//!     | -------------- Ready --------------> |
//!     |                                      |   takes no more clients, answers agents on a socket of its own
//!     | <--------- Yours (routes) ---------- |
//!     |  takes clients, answers agents       |   finishes what is under way, obeys the agent's tables, ends
//! ```
//!
//! Clients who come in between wait in the kernel: the listeners are the same sockets and are never closed. The connection
//! stays: when the successor ends while the predecessor still has work, the predecessor takes clients again, for it has
//! kept the listeners. So a new binary that crashes costs what was under way in it and nothing else.
//!
//! The predecessor is under the agent's tables to its end: a session to a member that has lost its leadership is closed
//! there like anywhere else, and the agent counts a table as obeyed only when all proxies of the node obey it.

mod descriptors;
mod message;
mod predecessor;
mod successor;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::routes::RouteTable;

pub(crate) use predecessor::{Awaiting, Outcome, Successor, offer};
pub(crate) use successor::{Claim, claim};

/// How long one side waits for the other's next word.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a proxy leaves to its successor.
#[derive(Debug)]
pub(crate) struct Estate {
    /// The routes in force.
    pub(crate) table: RouteTable,
    /// The key of clients' cookies.
    pub(crate) cookies: Option<String>,
    /// Where it listens.
    pub(crate) listeners: Vec<(SocketAddr, OwnedFd)>,
}

/// Where a successor asks for the place of the proxy with this control socket.
pub(crate) fn claims_at(control: &Path) -> PathBuf {
    control.with_extension("heir")
}

/// Where agents find the proxies that finish their work, beside the one with this control socket: a socket each, named after
/// its process.
pub fn leaving_at(control: &Path) -> PathBuf {
    control.with_extension("leaving")
}
