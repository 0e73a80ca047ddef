//! What agents tell each other: a full status on every change, and a heartbeat in between.
//!
//! A status is what its node saw itself; nobody relays another's. The reports of a revocation are such statuses.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::leadership::Term;
use crate::leadership::TimelineOrigin;
use crate::postgres::{Lsn, Timeline, WalPosition};
use crate::release::Digest;
use crate::routes::{InstanceEndpoint, Tally};
use crate::{DatabaseName, NodeName, ServiceName};

/// Everything one agent tells the others about its node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Whose status it is.
    pub node: NodeName,
    /// Which run of the agent: microseconds since the Unix epoch at its start. A higher one replaces a lower one.
    pub incarnation: u64,
    /// Counts up with every change within one incarnation.
    pub version: u64,
    /// The members on this node.
    pub members: BTreeMap<DatabaseName, MemberStatus>,
    /// The service instances on this node; `None` while an agent that has just started does not know yet what runs.
    pub instances: Option<Vec<InstanceEndpoint>>,
    /// How this node sees every other one, as far as it is not simply heard.
    pub silent: BTreeMap<NodeName, Silence>,
    /// Which protections are missing on this node, in words (no gate, ...).
    pub missing: Vec<String>,
    /// The generation of the route table that its proxy has acknowledged.
    pub routes_applied: u64,
    /// For each database the term of the switchover that its proxy has drained for: no session is left on the member that
    /// hands over, and new ones wait.
    #[serde(default)]
    pub drained: BTreeMap<DatabaseName, Term>,
    /// The generation of the system file that it runs.
    pub generation: u64,
    /// How far its service instances are with it.
    #[serde(default)]
    pub services: ServicesState,
    /// Up to which revision of the placement its proxy is known to obey: whatever that takes out of service gets no new
    /// request from this node.
    #[serde(default)]
    pub routed: u64,
    /// Instances taken out of service at which requests of its proxy are still under way.
    #[serde(default)]
    pub carrying: BTreeSet<String>,
    /// The artefacts of releases that lie unpacked on this node.
    #[serde(default)]
    pub artefacts: BTreeSet<Digest>,
    /// What its proxy counted at the instances of services that are being released.
    #[serde(default)]
    pub traffic: BTreeMap<String, Tally>,
    /// What its proxy has under way at services whose number of instances follows the load, in thousandths of a request: the
    /// average of the last seconds.
    #[serde(default)]
    pub load: BTreeMap<ServiceName, u64>,
    /// The program that its agent runs.
    #[serde(default)]
    pub program: ProgramNote,
}

/// The program that a node runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramNote {
    /// Its version; empty while it has not been looked at.
    pub version: String,
    /// Its SHA-256 in hexadecimal digits.
    pub digest: String,
    /// It has not worked for long enough yet: when it does not, the former one takes over again.
    pub on_trial: bool,
    /// Whether the node's proxy runs it too; `None` while that is not known, and where there is none.
    pub proxy: Option<bool>,
    /// Former proxies that finish their work.
    pub leaving: usize,
    /// Why the proxy could not be replaced.
    pub proxy_trouble: Option<String>,
    /// The one that it can go back to.
    pub former: Option<Program>,
    /// The one that was tried last and taken back, with the reason.
    pub refused: Option<(Program, String)>,
}

/// A program that a node has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Its version.
    pub version: String,
    /// Its SHA-256.
    pub digest: Digest,
}

impl std::fmt::Display for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.version, self.digest.short())
    }
}

impl NodeStatus {
    /// What an agent that has just started knows: nothing.
    pub fn new(node: NodeName, incarnation: u64, generation: u64) -> Self {
        Self {
            node,
            incarnation,
            version: 0,
            members: BTreeMap::new(),
            instances: None,
            silent: BTreeMap::new(),
            missing: vec![],
            routes_applied: 0,
            drained: BTreeMap::new(),
            generation,
            services: ServicesState::default(),
            routed: 0,
            carrying: BTreeSet::new(),
            load: BTreeMap::new(),
            artefacts: BTreeSet::new(),
            traffic: BTreeMap::new(),
            program: ProgramNote::default(),
        }
    }
}

/// How far the service instances of a node are with the system file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicesState {
    /// The generation of the file that they were compared with last.
    pub generation: u64,
    /// Those that run with what an older one said, and wait for their turn to be replaced.
    pub outdated: BTreeSet<String>,
    /// What is to be said of those that are not simply ready.
    #[serde(default)]
    pub notes: BTreeMap<String, InstanceNote>,
}

/// What the supervisor of an instance says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceNote {
    /// What it does, e.g. `ended with exit code 1, waits for its next start (1 crash)`.
    pub state: String,
    /// Whether it ends again and again soon after its start.
    pub crash_loop: bool,
    /// What it printed last before it ended by itself, where it has not come up since.
    pub last_lines: Vec<String>,
    /// Why its memory is not limited although the file wants it.
    pub unlimited: Option<String>,
}

/// What an observer knows about a node that it does not hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Silence {
    /// Nothing on any line for longer than the detector allows, and nothing said why.
    Silent,
    /// All connections were closed by the other side's kernel: its agent ended, the node may live.
    Closed,
}

/// A member of a database as its own agent sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// The member's durable word: it does not follow, and as a primary does not serve, any lower term.
    pub promised: Term,
    /// What its PostgreSQL is doing.
    pub server: Server,
    /// The term whose primary this member is or was last; survives restarts, so that a former primary knows it is one.
    pub led: Option<Term>,
    /// Its part in a revocation.
    pub report: Option<Report>,
    /// Proof of work as a primary.
    pub tenure: Option<Tenure>,
    /// What keeps the member from doing its part, in one sentence.
    pub trouble: Option<String>,
    /// What is wrong with the volume its data lies on (little space left, no answer), in one sentence: it may not be able to
    /// write soon, although it can now.
    #[serde(default)]
    pub disk: Option<String>,
    /// Whether its server runs with the settings of the system file.
    #[serde(default)]
    pub settings: SettingsState,
    /// The server ([`StandbyFacts::started_us`]) whose dirty pages were flushed for its restart.
    #[serde(default)]
    pub flushed_for: Option<i64>,
}

/// How far a server is with the settings of the system file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum SettingsState {
    /// It has been started, or the file has changed, and nobody has asked it since.
    #[default]
    Unread,
    /// It has read them, and was asked which wait for a restart.
    Read {
        /// Those; empty when all are in force.
        pending: Vec<PendingSetting>,
    },
}

impl SettingsState {
    /// The settings that wait for a restart, as far as is known.
    pub fn pending(&self) -> &[PendingSetting] {
        match self {
            Self::Unread => &[],
            Self::Read { pending } => pending,
        }
    }
}

/// A setting that takes effect only when the server starts, and has another value now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingSetting {
    /// Its name.
    pub name: String,
    /// The value that the server runs with.
    pub runs: String,
    /// The value that the system file wants; `None` when it wants PostgreSQL's own.
    pub wanted: Option<String>,
    /// Whether a standby must keep the old value until its primary runs with the new one: a hot standby refuses to start
    /// with less than its primary has.
    #[serde(default)]
    pub held: bool,
    /// Whether it is one of those settings, and the new value is lower.
    #[serde(default)]
    pub lowers: bool,
}

impl MemberStatus {
    /// A member that has said nothing, promised nothing and holds nothing.
    pub fn unknown() -> Self {
        Self {
            promised: Term(0),
            server: Server::Unknown,
            led: None,
            report: None,
            tenure: None,
            trouble: None,
            disk: None,
            settings: SettingsState::Unread,
            flushed_for: None,
        }
    }
}

/// What a member's PostgreSQL is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum Server {
    /// The agent has not looked yet, or cannot (hung disk).
    Unknown,
    /// There is no data directory.
    Empty,
    /// There is data, and no process uses it.
    Stopped {
        /// Why it is not running.
        because: String,
    },
    /// Something slow is under way: starting, recovering, being cloned or rewound.
    Busy {
        /// What, in a few words.
        doing: String,
    },
    /// Answers as a standby.
    Standby(StandbyFacts),
    /// Answers, and is not in recovery.
    Primary(PrimaryFacts),
    /// Runs but does not do its work: it does not answer, or cannot flush a write.
    Sick {
        /// Whether it was a primary when it last answered.
        primary: bool,
        /// What was tried and how it failed.
        because: String,
    },
}

impl Server {
    /// When it was started, if it answers.
    pub fn started_us(&self) -> Option<i64> {
        match self {
            Self::Standby(facts) => Some(facts.started_us),
            Self::Primary(facts) => Some(facts.started_us),
            Self::Unknown | Self::Empty | Self::Stopped { .. } | Self::Busy { .. } | Self::Sick { .. } => {
                None
            }
        }
    }
}

/// Facts about a standby.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandbyFacts {
    /// What it has received and flushed.
    pub position: WalPosition,
    /// What it has replayed, visible to its readers.
    pub replayed: Lsn,
    /// Whether it receives log right now.
    pub streaming: bool,
    /// The term of the primary it was last told to follow; zero when it follows nobody.
    pub follows: Term,
    /// When the server was started, in microseconds since the Unix epoch: tells one server from the next.
    #[serde(default)]
    pub started_us: i64,
}

/// Facts about a primary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrimaryFacts {
    /// What it has written and flushed.
    pub position: WalPosition,
    /// What it knows of the standbys that stream from it.
    pub standbys: BTreeMap<NodeName, StandbyLink>,
    /// How many commits wait for a standby's confirmation right now.
    pub waiting_commits: u32,
    /// As [`StandbyFacts::started_us`].
    #[serde(default)]
    pub started_us: i64,
}

/// A primary's view of one standby that streams from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandbyLink {
    /// Whether it is in PostgreSQL's state `streaming` (not catching up).
    pub streaming: bool,
    /// What it has flushed.
    pub flushed: Lsn,
    /// For how long it has not flushed although there was something to flush, in milliseconds.
    pub stalled_ms: u32,
}

/// A member's part in a revocation. Given only when the promise is durable, the WAL receiver is verifiably gone (or the
/// server is down) and the position was read after that: while the promise stands, it cannot become stale.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The term promised.
    pub term: Term,
    /// What this member holds.
    pub holds: Holdings,
}

/// What a reporting member holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Holdings {
    /// A standby's log up to this position.
    Upto(WalPosition),
    /// The former primary of `led`, stopped: it holds everything it ever acknowledged, and more.
    Everything {
        /// The term it led.
        led: Term,
        /// Where its log ends, when it shut down cleanly.
        clean_end: Option<WalPosition>,
    },
}

/// What a primary has proved in its term.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenure {
    /// The term.
    pub term: Term,
    /// The timeline it writes, and where that began.
    pub timeline: Timeline,
    /// Where the timeline left its parent.
    pub begins: Lsn,
    /// The term that made the timeline, where that is not this one: a primary that restarts in place makes none.
    #[serde(default)]
    pub made_in: Option<Term>,
    /// PostgreSQL's identifier of the database cluster.
    #[serde(default)]
    pub system_identifier: Option<u64>,
    /// The version of the sync set that is provably the only one in force: every WAL sender has loaded it, and a write that
    /// waited for it was acknowledged. `None` until the first such proof.
    pub sync_applied: Option<u64>,
}

impl Tenure {
    /// Which timeline that is, as the lineage of a database has it.
    pub fn origin(&self) -> TimelineOrigin {
        let term = self.made_in.unwrap_or(self.term);
        TimelineOrigin { timeline: self.timeline, term, begins: self.begins }
    }
}

/// Agent to agent, every 50 ms on every line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Which run of the sender's agent.
    pub incarnation: u64,
    /// Counts up within the incarnation, over all lines.
    pub sequence: u64,
    /// The highest sequence number heard from the receiver of this heartbeat, and the incarnation it belongs to: proves
    /// that what this heartbeat says was true after that one was sent.
    pub echo: Option<(u64, u64)>,
    /// The terms the sender's members have promised.
    pub promises: BTreeMap<DatabaseName, Term>,
    /// The version of the status that the receiver should have by now.
    pub status_version: u64,
}

/// What one agent sends to another over a peer connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeerMessage {
    /// I live.
    Heartbeat(Heartbeat),
    /// My state has changed.
    Status(Box<NodeStatus>),
}
