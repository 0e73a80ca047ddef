//! What the outside client and the prober saw, as plain values on one clock.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use model::NodeName;
use model::postgres::Timeline;
use model::time::Moment;

/// The number of a write within one run. No number is ever sent twice: a repeated write has a new one.
pub type WriteId = u64;

/// One attempt to write one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Its number, which is also the row's content.
    pub id: WriteId,
    /// Who wrote it.
    pub by: Writer,
    /// Just before the statement left.
    pub sent: Moment,
    /// When its outcome was known.
    pub ended: Moment,
    /// How it ended.
    pub outcome: Outcome,
}

/// Who attempted a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// The outside client, through a route.
    Client,
    /// The prober, directly at a member.
    Prober,
}

/// How a write ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server said that it is committed, without a warning: it must survive everything.
    Acknowledged(Server),
    /// It was certainly not done: it was never sent, or the server refused it.
    Failed(String),
    /// It may have been done or not: the connection was lost while it was under way, no answer came in time, or the
    /// acknowledgement came with a warning (a cancelled wait for the synchronous standby answers so).
    Unknown(String),
}

/// Who acknowledged, as the server said of itself in the same statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Server {
    /// The timeline it wrote to.
    pub timeline: Timeline,
    /// The address on which it was reached (`inet_server_addr()`), which names the member.
    pub address: IpAddr,
    /// The port on which it was reached.
    pub port: u16,
}

/// One member's answer to the question whether it is the primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The member that was asked, directly.
    pub member: NodeName,
    /// When the question left.
    pub sent: Moment,
    /// When the answer arrived.
    pub received: Moment,
    /// What it said of itself.
    pub role: Role,
}

/// A member's own opinion (`pg_is_in_recovery()`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// In recovery.
    Standby,
    /// Not in recovery, writing to this timeline.
    Primary(Timeline),
}

/// All that was seen during one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Every attempt to write, of the client and of the prober.
    pub writes: Vec<Write>,
    /// Every answer of a member to the prober.
    pub answers: Vec<Answer>,
}

/// The rows of one run as one reader found them afterwards: how often each number is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copy {
    /// Where they were read: the route or a member.
    pub reader: String,
    /// Number of the write, and how many rows carry it.
    pub rows: BTreeMap<WriteId, u64>,
}

/// A member as drills see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The node it runs on.
    pub node: NodeName,
    /// Its PostgreSQL's own addresses, not a route's: one for each line, the one that the prober uses first.
    pub addresses: Vec<SocketAddr>,
}

impl Write {
    /// The server that acknowledged it, if one did.
    pub fn server(&self) -> Option<Server> {
        match &self.outcome {
            Outcome::Acknowledged(server) => Some(*server),
            Outcome::Failed(_) | Outcome::Unknown(_) => None,
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (timeline {})", SocketAddr::new(self.address, self.port), self.timeline)
    }
}
