//! Agreement between the nodes of a system: a small store with etcd's semantics and two back ends.
//!
//! [`Coordinator`] is what the agent uses: revisions, compare-and-set transactions, watches from a revision, leases.
//! [`embedded`] keeps the store in the agents themselves (Raft over the agents' own mutual TLS, state in one file);
//! [`etcd`] keeps it in an etcd the user already runs. One conformance suite (`tests/it`) holds both to the same
//! behaviour.
//!
//! What nobody may do with this crate: take [`Coordinator::leader`] or [`embedded::Status`] for proof of anything.
//! An isolated former leader goes on believing in itself; only a committed transaction or an answered read proves that
//! a quorum stood behind it.

pub mod embedded;
pub mod etcd;

mod coordinator;
mod error;
mod held_lease;
mod json;
mod watch;

pub use coordinator::{
    BoxFuture, Compare, Coordinator, Entry, LeaderHint, LeaseId, Listing, MAX_KEY, MAX_OPERATIONS, MAX_TXN,
    MAX_VALUE, Put, Revision, Txn, TxnOutcome,
};
pub use error::{Error, Reason};
pub use held_lease::HeldLease;
pub use json::JsonCoordinator;
pub use watch::{Change, Changes, Watch, WatchError};
