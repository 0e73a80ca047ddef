//! What a decision about a database is given: its rules, and what is known of every member.

use std::collections::BTreeMap;
use std::time::Duration;

use model::leadership::SyncSet;
use model::status::{MemberStatus, PrimaryFacts, Server, StandbyFacts, Tenure};
use model::system::{Database, Durability};
use model::time::Moment;
use model::{NodeName, leadership::Term};

/// How long a member may serve as a primary after the last proof that it still is one. Bounds stale reads; the safety of
/// writes does not depend on it.
pub const LEASE: Duration = Duration::from_secs(2);

/// What the system file says about a database, as far as decisions need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Its members, the preferred ones first.
    pub members: Vec<NodeName>,
    /// How many standbys must flush a commit before it is acknowledged; 0 for `async` durability.
    pub k: u32,
    /// See [`LEASE`].
    pub lease: Duration,
}

impl Rules {
    /// The rules of `database`.
    pub fn of(database: &Database) -> Self {
        let k = match database.durability {
            Durability::ZeroLoss => database.sync,
            Durability::Async { .. } => 0,
        };
        Self { members: database.members.clone(), k, lease: LEASE }
    }

    /// A sync set of these members under these rules.
    pub fn sync_set(&self, members: impl IntoIterator<Item = NodeName>) -> SyncSet {
        SyncSet {
            k: self.k,
            members: if self.k == 0 { Default::default() } else { members.into_iter().collect() },
        }
    }
}

/// Whether the leader can reach a node, by its own ears and those of the other observers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Heard within the detector's limit.
    Alive,
    /// Not heard by this leader, but others hear it or have not yet said.
    Doubtful {
        /// When the leader's silence began.
        since: Moment,
    },
    /// Every connection was closed by the node's kernel: its agent has ended; its PostgreSQL may live.
    AgentGone {
        /// When the last connection closed.
        since: Moment,
    },
    /// Silent for the leader and for a majority of the observers.
    Dead {
        /// When the leader's silence began.
        since: Moment,
    },
    /// Never heard since this leader's agent started, a moment ago, or others hear it.
    NeverHeard,
}

/// One member as the leader knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberView {
    /// Whether its node can be reached.
    pub reach: Reach,
    /// What its agent said last.
    pub status: MemberStatus,
}

/// All members of a database as the leader knows them.
pub type Members = BTreeMap<NodeName, MemberView>;

impl MemberView {
    /// A member of which nothing is known.
    pub fn never_heard() -> Self {
        Self { reach: Reach::NeverHeard, status: MemberStatus::unknown() }
    }

    /// Whether it can be given work: its agent is heard (or silent for too short to say otherwise).
    pub fn is_present(&self) -> bool {
        match self.reach {
            Reach::Alive | Reach::Doubtful { .. } => true,
            Reach::AgentGone { .. } | Reach::Dead { .. } | Reach::NeverHeard => false,
        }
    }

    /// Its facts as a standby, when it is one.
    pub fn standby(&self) -> Option<&StandbyFacts> {
        if let Server::Standby(facts) = &self.status.server { Some(facts) } else { None }
    }

    /// Its facts as a primary, when it is one.
    pub fn primary(&self) -> Option<&PrimaryFacts> {
        if let Server::Primary(facts) = &self.status.server { Some(facts) } else { None }
    }

    /// What it has proved as the primary of `term`.
    pub fn tenure(&self, term: Term) -> Option<&Tenure> {
        self.status.tenure.as_ref().filter(|tenure| tenure.term == term)
    }
}

/// A decision: what to do now, why, and when to look again even if nothing happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision<A> {
    /// What to do; `None` is a decision too.
    pub action: Option<A>,
    /// One sentence a person understands, with the evidence.
    pub because: String,
    /// When time alone may change the decision.
    pub wake_at: Option<Moment>,
    /// Whether nothing is wrong and nothing has to be done: such a sentence explains, but is no event.
    pub is_routine: bool,
}

impl<A> Decision<A> {
    /// Do `action`.
    pub fn act(action: A, because: impl Into<String>) -> Self {
        Self { action: Some(action), because: because.into(), wake_at: None, is_routine: false }
    }

    /// Do nothing.
    pub fn wait(because: impl Into<String>) -> Self {
        Self { action: None, because: because.into(), wake_at: None, is_routine: false }
    }

    /// Do nothing, and look again at `moment`.
    pub fn wait_until(moment: Moment, because: impl Into<String>) -> Self {
        Self { action: None, because: because.into(), wake_at: Some(moment), is_routine: false }
    }

    /// The same, as a part of normal work.
    #[must_use]
    pub fn routine(self) -> Self {
        Self { is_routine: true, ..self }
    }
}
