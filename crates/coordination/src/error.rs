//! What can go wrong, in terms of what the caller may do next.

use crate::LeaseId;

/// Why an operation of [`crate::Coordinator`] has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It certainly did not happen. Asking again is safe, here or on another node.
    #[error("coordination unavailable: {0}; nothing was changed, asking again is safe")]
    Unavailable(Reason),
    /// It may have happened, or may still happen. Read before deciding anew.
    #[error(
        "coordination lost sight of a change: {0}; it may or may not have happened, read the keys before going on"
    )]
    OutcomeUnknown(Reason),
    /// The lease is over or never was; keys attached to it are gone.
    #[error("{0:?} has ended")]
    LeaseEnded(LeaseId),
    /// More than coordination is made for.
    #[error("{what} is too large: {size}, at most {limit}")]
    TooLarge {
        /// What was too large.
        what: &'static str,
        /// Its size in bytes or pieces.
        size: usize,
        /// The limit in the same unit.
        limit: usize,
    },
    /// The request makes no sense; the text says why.
    #[error("invalid request: {0}")]
    Invalid(String),
    /// A stored value is not what the caller's type expects.
    #[error("the value of {key:?} cannot be read: {problem}")]
    Malformed {
        /// The key.
        key: String,
        /// What the parser said.
        problem: String,
    },
}

/// Why the store could not be reached or not be sure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// No leader is known to this node.
    #[error("no leader is known")]
    NoLeader,
    /// There is a leader but a majority of voters does not answer it.
    #[error("no quorum of voters answers")]
    NoQuorum,
    /// No answer in the time allowed.
    #[error("no answer in time")]
    Timeout,
    /// The leader could not be reached, or the connection broke; the text is the transport's.
    #[error("connection: {0}")]
    Connection(String),
    /// The leader changed while it was under way.
    #[error("the leader changed meanwhile")]
    LeaderChanged,
    /// This node belongs to no group yet: it was neither initialised nor added.
    #[error("this node belongs to no coordination group yet")]
    NotInitialised,
    /// This node's own store stopped, for instance because its disk is full; the text says why.
    #[error("the store of this node has stopped: {0}")]
    Stopped(String),
    /// The store refused for a reason of its own; the text is the store's.
    #[error("refused: {0}")]
    Refused(String),
}

impl Error {
    /// Whether the operation certainly did not happen and may be repeated as it is.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable(_) => true,
            Self::OutcomeUnknown(_)
            | Self::LeaseEnded(_)
            | Self::TooLarge { .. }
            | Self::Invalid(_)
            | Self::Malformed { .. } => false,
        }
    }
}
