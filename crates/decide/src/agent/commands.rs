//! What goes into the agent's mind and what comes out.

use std::collections::{BTreeMap, BTreeSet};

use model::event::Event;
use model::jobs::JobRecord;
use model::leadership::{Leadership, Term};
use model::postgres::WalPosition;
use model::release::{Digest, Releases};
use model::routes::{InstanceEndpoint, ProxyReport, RouteTable};
use model::status::{PeerMessage, ProgramNote, Server, ServicesState, SettingsState, Tenure};
use model::system::System;
use model::time::Moment;
use model::upkeep::Upkeep;
use model::{DatabaseName, JobName, LineName, NodeName, RouteName};
use serde::{Deserialize, Serialize};

use super::Stored;
use crate::member::Action;
use crate::placement::Placement;

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time passed.
    Tick,
    /// A connection to a peer over a line was established.
    LineUp {
        /// The peer.
        peer: NodeName,
        /// The line.
        line: LineName,
    },
    /// It ended.
    LineDown {
        /// The peer.
        peer: NodeName,
        /// The line.
        line: LineName,
        /// Whether the other side's kernel closed it; false when it merely fell silent.
        closed: bool,
    },
    /// A peer said something.
    Message {
        /// Who, as its certificate proves.
        from: NodeName,
        /// What.
        message: PeerMessage,
    },
    /// The coordination seems to have another leader.
    Leader(Option<NodeName>),
    /// All keys of the coordination have been read once.
    StoreLoaded,
    /// A leadership record was read.
    Record {
        /// The database.
        database: DatabaseName,
        /// The record.
        stored: Stored<Leadership>,
    },
    /// The placement of instances was read.
    Placement(Stored<Placement>),
    /// What operators ask for beyond the file was read.
    Upkeep(Upkeep),
    /// The releases of all services were read.
    Releases(Stored<Releases>),
    /// What is agreed on about jobs has changed; this is all of it.
    Runs(BTreeMap<JobName, JobRecord>),
    /// These artefacts lie unpacked on this node.
    Artefacts(BTreeSet<Digest>),
    /// This node's proxy told its counts.
    Counted(ProxyReport),
    /// The automation is paused, or not.
    Paused(Option<String>),
    /// A generation of the system file was committed.
    System {
        /// What it says.
        system: System,
        /// Its number.
        generation: u64,
    },
    /// A commit of ours ended; `None` when it failed, conflicted or its outcome is unknown (a read will tell).
    Committed {
        /// Where.
        store: Store,
        /// The new value and its revision.
        revision: Option<(u64, Value)>,
    },
    /// What this node wrote down about its member before it was restarted.
    Recovered {
        /// The database.
        database: DatabaseName,
        /// What was written.
        durable: Durable,
    },
    /// The member was looked at.
    Observed {
        /// The database.
        database: DatabaseName,
        /// When the look began: what was seen was so after this moment.
        asked: Moment,
        /// What its PostgreSQL is doing.
        server: Server,
        /// Of its data, if there is any.
        system_identifier: Option<u64>,
        /// What keeps it from doing its part (no disk space, ...).
        trouble: Option<String>,
    },
    /// The member's server was asked for its settings.
    Settings {
        /// The database.
        database: DatabaseName,
        /// The server, by when it was started.
        server: i64,
        /// The user's parameters that it was given before it was asked.
        parameters: BTreeMap<String, String>,
        /// What it said.
        state: SettingsState,
    },
    /// The dirty pages of the member's server were flushed, as far as they could be.
    Flushed {
        /// The database.
        database: DatabaseName,
        /// The server, by when it was started.
        server: i64,
    },
    /// An action of the member ended.
    Done {
        /// The database.
        database: DatabaseName,
        /// How.
        outcome: Outcome,
        /// What its PostgreSQL does after it; `None` when the outcome says it all.
        server: Option<Server>,
    },
    /// A linearizable read of a leadership record was answered.
    Read {
        /// The database.
        database: DatabaseName,
        /// The term it holds.
        term: Term,
        /// When the read was asked for.
        as_of: Moment,
    },
    /// The instances on this node changed.
    Instances(Vec<InstanceEndpoint>),
    /// How far the instances on this node are with the system file.
    Services(ServicesState),
    /// This node's proxy obeys this generation of routes.
    RoutesApplied(u64),
    /// This node's proxy has no session left on the member that a route leaves.
    Drained {
        /// The route.
        route: RouteName,
        /// The generation of routes that said so.
        generation: u64,
    },
    /// The program that this node runs, and how far its proxy is with it. No decision depends on it.
    Program(ProgramNote),
    /// A protection that this node lacks, or has again.
    Missing {
        /// Which one.
        part: String,
        /// What is missing, in words; `None` when nothing is.
        because: Option<String>,
    },
}

/// Where a commit goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Store {
    /// A database's leadership record.
    Leadership(DatabaseName),
    /// The placement of instances.
    Placement,
    /// The releases of services.
    Releases,
}

/// What a commit writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A leadership record.
    Leadership(DatabaseName, Box<Leadership>),
    /// A placement.
    Placement(Placement),
    /// Releases.
    Releases(Box<Releases>),
}

impl Value {
    pub(super) fn into_input(self, revision: u64) -> Input {
        match self {
            Self::Leadership(database, value) => {
                Input::Record { database, stored: Stored { revision, value: *value } }
            }
            Self::Placement(value) => Input::Placement(Stored { revision, value }),
            Self::Releases(value) => Input::Releases(Stored { revision, value: *value }),
        }
    }

    /// Where it is stored.
    pub fn store(&self) -> Store {
        match self {
            Self::Leadership(database, _) => Store::Leadership(database.clone()),
            Self::Placement(_) => Store::Placement,
            Self::Releases(_) => Store::Releases,
        }
    }
}

/// What a member writes down before it acts on it; read again after a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Durable {
    /// The highest term promised.
    pub promised: Term,
    /// The last term it was elected the primary of; written before it is promoted.
    pub led: Option<Term>,
    /// What it proved as that primary; the part that does not go stale (see [`Tenure::sync_applied`]).
    pub tenure: Option<Tenure>,
    /// The term it was promoted in, until it has rejoined another primary: its copy may differ from the history.
    pub tainted_by: Option<Term>,
    /// The term of the primary it was last told to follow; zero when it was detached.
    pub follows: Term,
    /// The highest term whose primary this copy took log from, or was: it has no timeline that a later term made. `None`
    /// where an earlier version did not write it down.
    #[serde(default)]
    pub taken_from: Option<Term>,
}

impl Durable {
    /// From here on this copy may hold log of its own, whatever becomes of the promotion: one that is fenced half-way, or
    /// whose end nobody hears of, must not follow anybody as it is. Timelines with the same number may differ.
    pub fn is_elected(&mut self, term: Term) {
        self.led = Some(term);
        self.tainted_by = Some(term);
        self.taken_from = Some(term);
    }

    /// From here on this copy may have log of this term's primary.
    pub fn follows(&mut self, term: Term) {
        self.follows = term;
        self.taken_from = Some(term);
    }

    /// This copy is, from its beginning, a copy of another primary's history again.
    pub fn forget_leading(&mut self) {
        self.tainted_by = None;
        self.tenure = None;
    }
}

/// How an action ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The promise is durable.
    Promised(Term),
    /// The server is down and cannot come back by itself.
    Fenced,
    /// The server runs as a standby that follows nobody.
    StartedDetached,
    /// Receives nothing any more; holds this.
    Detached(Term, WalPosition),
    /// The former primary of `led` is verifiably down and has promised `term`; `clean_end` after a clean shutdown.
    Stopped {
        /// The term promised.
        term: Term,
        /// The term led.
        led: Term,
        /// Where its log ends, after a clean shutdown.
        clean_end: Option<WalPosition>,
    },
    /// Created, or promoted: serves as a primary.
    Leads {
        /// What it proved.
        tenure: Tenure,
    },
    /// The sync set of this version is in force; proved, unless too few standbys stream to prove anything.
    SyncApplied {
        /// The term.
        term: Term,
        /// The version.
        version: u64,
        /// Whether a write that waited for it was acknowledged.
        proved: bool,
    },
    /// Was told to follow the primary of this term.
    Follows(Term),
    /// The copy is a prefix of the primary's history again and follows it.
    Rejoined(Term),
    /// It could not be done; it is decided anew after a pause.
    Failed {
        /// What was tried.
        action: Action,
        /// Why it failed, with a hint.
        because: String,
    },
}

impl Outcome {
    /// Whether this is how `action` ended.
    pub(super) fn answers(&self, action: &Action) -> bool {
        match (self, action) {
            (Self::Failed { action: failed, .. }, _) => failed == action,
            (Self::Promised(_), Action::Promise(_))
            | (Self::Fenced, Action::Fence { .. })
            | (Self::StartedDetached, Action::StartDetached)
            | (Self::Detached(..), Action::Detach { .. })
            | (Self::Stopped { .. }, Action::ReportStopped { .. } | Action::HandOver { .. })
            | (
                Self::Leads { .. },
                Action::Found { .. } | Action::Promote { .. } | Action::StartPrimary { .. },
            )
            | (Self::SyncApplied { .. }, Action::ApplySync { .. })
            | (Self::Follows(_), Action::Follow { .. } | Action::Restart { .. })
            | (Self::Rejoined(_), Action::Rejoin { .. } | Action::Clone { .. }) => true,
            (
                Self::Promised(_)
                | Self::Fenced
                | Self::StartedDetached
                | Self::Detached(..)
                | Self::Stopped { .. }
                | Self::Leads { .. }
                | Self::SyncApplied { .. }
                | Self::Follows(_)
                | Self::Rejoined(_),
                _,
            ) => false,
        }
    }
}

/// Something to be done.
#[derive(Clone, Debug)]
pub enum Command {
    /// Tell a peer, on every line.
    Send {
        /// Whom.
        to: NodeName,
        /// What.
        message: PeerMessage,
    },
    /// Let another voter lead the coordination. Nothing depends on it but speed.
    HandLead {
        /// Whom.
        to: NodeName,
    },
    /// Commit by compare-and-set.
    Commit {
        /// The revision that must still be the newest; 0 for "absent".
        expected: u64,
        /// What to write.
        value: Value,
    },
    /// Let the member act. An order while another is under way takes its place: a fence, or the first step of a new term.
    Member {
        /// The database.
        database: DatabaseName,
        /// What to do.
        action: Action,
    },
    /// Flush the dirty pages of the member's server, which serves on; answered by [`Input::Flushed`].
    Flush {
        /// The database.
        database: DatabaseName,
        /// The server, by when it was started.
        server: i64,
    },
    /// Keep the gate to a member open until this moment, or close it at once.
    Gate {
        /// The database.
        database: DatabaseName,
        /// Until when.
        until: Option<Moment>,
    },
    /// Let the proxy serve this table.
    Routes(RouteTable),
    /// Run the instances that this placement puts on this node.
    Services(Placement),
    /// Keep the artefacts of these releases, and no others.
    Releases(Releases),
    /// A new system file is in force.
    System {
        /// It.
        system: Box<System>,
        /// Its number.
        generation: u64,
    },
    /// Write this down; the wall clock is filled in by the effects.
    Event(Event),
}
