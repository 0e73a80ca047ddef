//! What clients of the store ask for, in a form that a follower can forward to the leader.

use bytes::Bytes;
use model::NodeName;
use serde::{Deserialize, Serialize};

use super::raft_types::{Command, LoggedPut};
use crate::{Entry, Error, LeaseId, Listing, Reason, Revision, Txn, TxnOutcome};

/// Something only the leader can do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Operation {
    Get(String),
    List(String),
    /// A transaction, a grant, the end of a lease.
    Write(Command),
    KeepAlive(LeaseId),
    AddLearner(NodeName),
    Promote(NodeName),
    Remove(NodeName),
    Transfer(NodeName),
}

/// What the leader, or a node that is not the leader, answers.
pub(crate) type Answer = Result<Done, Failure>;

/// What was done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Done {
    Entry(Option<WireEntry>),
    Listing {
        entries: Vec<WireEntry>,
        revision: Revision,
    },
    Txn(TxnOutcome),
    Granted(LeaseId),
    /// Milliseconds.
    Renewed(u64),
    /// Nothing more to say.
    Plain,
}

/// Why it was not done, or perhaps not.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Failure {
    LeaseEnded(LeaseId),
    TooLarge {
        size: usize,
        limit: usize,
    },
    Invalid(String),
    /// Certainly not done: ask again, or ask somebody else.
    NotDone(Hindrance),
    /// Done or not, nobody knows.
    Unknown(Hindrance),
}

/// [`Reason`] as it travels.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Hindrance {
    NotLeader,
    NoQuorum,
    Timeout,
    LeaderChanged,
    NotInitialised,
    Connection(String),
    /// An earlier change of the same kind must end first.
    Busy(String),
    Stopped(String),
    Refused(String),
}

/// [`Entry`] as it travels.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct WireEntry {
    key: String,
    value: String,
    created: Revision,
    modified: Revision,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lease: Option<LeaseId>,
}

impl Operation {
    /// Whether doing it twice is the same as doing it once, so that an unknown outcome may be cured by asking again.
    /// (A lease granted twice is one lease too many, which ends by itself.)
    pub(crate) fn is_repeatable(&self) -> bool {
        match self {
            Self::Get(_) | Self::List(_) | Self::KeepAlive(_) | Self::Transfer(_) => true,
            Self::AddLearner(_) | Self::Promote(_) | Self::Remove(_) => true,
            Self::Write(Command::Grant { .. } | Command::EndLease(_)) => true,
            Self::Write(Command::Txn { .. }) => false,
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::LeaseEnded(lease) => Self::LeaseEnded(lease),
            Failure::TooLarge { size, limit } => Self::TooLarge { what: "answer", size, limit },
            Failure::Invalid(problem) => Self::Invalid(problem),
            Failure::NotDone(hindrance) => Self::Unavailable(hindrance.into()),
            Failure::Unknown(hindrance) => Self::OutcomeUnknown(hindrance.into()),
        }
    }
}

impl From<Hindrance> for Reason {
    fn from(hindrance: Hindrance) -> Self {
        match hindrance {
            Hindrance::NotLeader => Self::NoLeader,
            Hindrance::NoQuorum => Self::NoQuorum,
            Hindrance::Timeout => Self::Timeout,
            Hindrance::LeaderChanged => Self::LeaderChanged,
            Hindrance::NotInitialised => Self::NotInitialised,
            Hindrance::Connection(problem) => Self::Connection(problem),
            Hindrance::Stopped(problem) => Self::Stopped(problem),
            Hindrance::Busy(problem) | Hindrance::Refused(problem) => Self::Refused(problem),
        }
    }
}

// --- To and from what travels ---------------------------------------------------------------------------------------

impl From<Txn> for Command {
    fn from(txn: Txn) -> Self {
        let put = |put: crate::Put| LoggedPut {
            key: put.key,
            // `Txn::validate` has let only text through.
            value: String::from_utf8_lossy(&put.value).into_owned(),
            lease: put.lease,
        };
        Self::Txn {
            compares: txn.compares,
            puts: txn.puts.into_iter().map(put).collect(),
            deletes: txn.deletes,
        }
    }
}

impl From<Entry> for WireEntry {
    fn from(entry: Entry) -> Self {
        Self {
            key: entry.key,
            value: String::from_utf8_lossy(&entry.value).into_owned(),
            created: entry.created,
            modified: entry.modified,
            lease: entry.lease,
        }
    }
}

impl From<WireEntry> for Entry {
    fn from(entry: WireEntry) -> Self {
        Self {
            key: entry.key,
            value: Bytes::from(entry.value),
            created: entry.created,
            modified: entry.modified,
            lease: entry.lease,
        }
    }
}

/// The answer to a listing, unless it is more than a message may carry.
pub(crate) fn listing_answer(listing: Listing, limit: usize) -> Answer {
    let per_entry = |entry: &Entry| entry.key.len() + escaped_length(&entry.value) + 100;
    let size = listing.entries.iter().map(per_entry).sum();
    if size > limit {
        return Err(Failure::TooLarge { size, limit });
    }
    let entries = listing.entries.into_iter().map(WireEntry::from).collect();
    Ok(Done::Listing { entries, revision: listing.revision })
}

/// The length of a text inside a JSON string: quotes and backslashes double, control characters take up to six.
fn escaped_length(text: &[u8]) -> usize {
    let of = |byte: &u8| match byte {
        b'"' | b'\\' => 2,
        0..0x20 => 6,
        _ => 1,
    };
    text.iter().map(of).sum()
}
