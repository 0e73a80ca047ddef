//! The types that openraft is instantiated with.

use std::collections::BTreeMap;
use std::fmt;

use model::NodeName;
use openraft::Raft;
use openraft::entry::RaftEntry;
use openraft::type_config::alias;
use serde::{Deserialize, Serialize};

use super::pace::PacedRuntime;
use super::store::Machine;
use crate::{Compare, LeaseId, TxnOutcome};

openraft::declare_raft_types!(
    /// Our choice of openraft's types.
    ///
    /// The leader id stays openraft's default, which orders two candidates of one term instead of blocking both: with
    /// two survivors of three a tie would otherwise cost a second election.
    pub(crate) TypeConfig:
        D = Command,
        R = Applied,
        NodeId = RaftId,
        Node = Peer,
        AsyncRuntime = PacedRuntime,
);

/// Names one incarnation of a node's store: drawn at random when the file is made, so that a node whose disk was
/// lost can never pass for the voter it was.
pub(crate) type RaftId = u64;

pub(crate) type RaftHandle = Raft<TypeConfig, Machine>;
pub(crate) type LogEntry = alias::EntryOf<TypeConfig>;
pub(crate) type LogId = alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = alias::VoteOf<TypeConfig>;
pub(crate) type StoredMembership = alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;
pub(crate) type Snapshot = alias::SnapshotOf<TypeConfig, Vec<u8>>;

/// What the group remembers of a node: its name, by which the transport finds it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Peer {
    /// The node's name. (Text, because openraft's storage tests want a default.)
    pub(crate) name: String,
}

/// What the log carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Command {
    /// A transaction.
    Txn {
        /// Conditions.
        compares: Vec<Compare>,
        /// Writes.
        puts: Vec<LoggedPut>,
        /// Deletions.
        deletes: Vec<String>,
    },
    /// A new lease.
    Grant {
        /// Its time to live in milliseconds.
        ttl_ms: u64,
    },
    /// The end of a lease, asked for or run out.
    EndLease(LeaseId),
}

/// A write as the log carries it: text, so that log and snapshot can be read by people and tools.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LoggedPut {
    /// The key.
    pub(crate) key: String,
    /// The value.
    pub(crate) value: String,
    /// The lease it hangs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lease: Option<LeaseId>,
}

/// What applying an entry came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Applied {
    /// Raft's own entries.
    Nothing,
    /// A transaction.
    Txn(TxnOutcome),
    /// A transaction wanted to attach a key to a lease that is over; nothing changed.
    LeaseEnded(LeaseId),
    /// A new lease.
    Granted(LeaseId),
    /// A lease is over, now or already before.
    Ended,
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Txn { compares, puts, deletes } => {
                write!(f, "txn({} compares, {} puts, {} deletes)", compares.len(), puts.len(), deletes.len())
            }
            Self::Grant { ttl_ms } => write!(f, "grant lease of {ttl_ms} ms"),
            Self::EndLease(lease) => write!(f, "end {lease:?}"),
        }
    }
}

impl Peer {
    pub(crate) fn new(name: &NodeName) -> Self {
        Self { name: name.as_str().to_owned() }
    }

    pub(crate) fn node_name(&self) -> NodeName {
        NodeName::new(self.name.as_str())
    }
}

/// The members of the effective membership: voters and learners apart.
#[derive(Clone, Debug, Default)]
pub(crate) struct Members {
    pub(crate) voters: BTreeMap<RaftId, NodeName>,
    pub(crate) learners: BTreeMap<RaftId, NodeName>,
}

impl Members {
    pub(crate) fn of(membership: &StoredMembership) -> Self {
        let voter_ids: std::collections::BTreeSet<RaftId> = membership.voter_ids().collect();
        let all = membership.nodes().map(|(id, peer)| (*id, peer.node_name()));
        let (voters, learners) = all.partition(|(id, _)| voter_ids.contains(id));
        Self { voters, learners }
    }

    pub(crate) fn name_of(&self, id: RaftId) -> Option<&NodeName> {
        self.voters.get(&id).or_else(|| self.learners.get(&id))
    }
}

/// The index of an entry.
pub(crate) fn index_of(entry: &LogEntry) -> u64 {
    entry.log_id().index
}
