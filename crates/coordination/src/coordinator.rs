//! The trait and the plain values that cross it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use model::NodeName;
use serde::{Deserialize, Serialize};

use crate::{Error, Watch};

/// A future as the trait returns it, so that the trait can be used as `Arc<dyn Coordinator>`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The longest key in bytes.
pub const MAX_KEY: usize = 512;
/// The longest value in bytes. Coordination holds decisions, not data.
pub const MAX_VALUE: usize = 256 * 1024;
/// The most bytes of keys and values in one transaction (etcd refuses requests above 1.5 MiB).
pub const MAX_TXN: usize = 512 * 1024;
/// The most compares, puts and deletes together in one transaction (etcd's `--max-txn-ops` default).
pub const MAX_OPERATIONS: usize = 128;

/// The most bytes in an answer to a listing, so that it fits into one message everywhere.
pub(crate) const MAX_LISTING: usize = 3 * 1024 * 1024;

/// A point in the history of the store: each transaction that changes something makes exactly one.
///
/// `Revision(0)` is "before everything": as a comparison it means that the key is absent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

/// Names a lease within its store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LeaseId(pub u64);

/// One key with its value as of a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The value: bytes that hold readable JSON (UTF-8 is enforced).
    pub value: Bytes,
    /// The revision that made the key exist.
    pub created: Revision,
    /// The revision of its latest change: what a [`Compare`] wants.
    pub modified: Revision,
    /// The lease whose end removes the key.
    pub lease: Option<LeaseId>,
}

/// All keys under a prefix at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// In the order of their keys.
    pub entries: Vec<Entry>,
    /// The store's revision at that moment: a watch from the next one misses nothing.
    pub revision: Revision,
}

/// A condition of a transaction: the key was last changed by this revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compare {
    /// The key.
    pub key: String,
    /// The expected [`Entry::modified`]; `Revision(0)` demands that the key is absent.
    pub modified: Revision,
}

/// A key to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// The key.
    pub key: String,
    /// The new value.
    pub value: Bytes,
    /// The lease that the key is attached to from now on; `None` detaches it.
    pub lease: Option<LeaseId>,
}

/// All or nothing: if every compare holds, every put and delete happens in one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// What must hold.
    pub compares: Vec<Compare>,
    /// What is written. A key may be written or deleted only once in a transaction.
    pub puts: Vec<Put>,
    /// What is deleted; an absent key is not an error and makes no revision.
    pub deletes: Vec<String>,
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TxnOutcome {
    /// Every compare held and the changes are durable on a quorum, under this revision. (With nothing to change, the
    /// store's current revision.)
    Committed(Revision),
    /// A compare did not hold; nothing changed. Read again, decide again.
    Conflict {
        /// The store's revision at which the compare failed.
        revision: Revision,
    },
}

/// Who seems to lead. A hint for efficiency and for choosing who acts first, **never proof**: an isolated former leader
/// still names itself for a while. What it then wants to do must pass a transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaderHint {
    /// The leader's node, if one is known.
    pub leader: Option<NodeName>,
    /// Grows with every change of leader: the Raft term, or the revision of etcd's leader key.
    pub epoch: u64,
}

/// A linearizable store shared by all nodes of a system.
///
/// Every operation ends within the `within` it is given (plus scheduling): with its result, or with an [`Error`] that
/// says whether the outcome is known. Inside that time the back end retries by itself whatever certainly did not
/// happen; the caller need not.
///
/// To be called within a tokio runtime with time enabled.
pub trait Coordinator: Send + Sync + 'static {
    /// Reads one key, linearizably.
    fn get<'a>(&'a self, key: &'a str, within: Duration) -> BoxFuture<'a, Result<Option<Entry>, Error>>;

    /// Reads all keys that start with `prefix`, linearizably and at one revision. [`Error::TooLarge`] when the answer
    /// would exceed what one message may carry (3 MiB): use a narrower prefix.
    fn list<'a>(&'a self, prefix: &'a str, within: Duration) -> BoxFuture<'a, Result<Listing, Error>>;

    /// Runs a transaction. A failed compare is not an error but [`TxnOutcome::Conflict`].
    ///
    /// [`Error::OutcomeUnknown`] means that it may or may not have happened, or may still happen: read the keys
    /// before deciding anew.
    fn txn(&self, txn: Txn, within: Duration) -> BoxFuture<'_, Result<TxnOutcome, Error>>;

    /// Watches all keys that start with `prefix`: every change from revision `from` on, in order, none left out.
    /// See [`Watch`] for how it ends.
    fn watch(&self, prefix: &str, from: Revision) -> Watch;

    /// Makes a lease that ends `ttl` after its last renewal. Whole seconds on etcd (rounded up, at least what the
    /// server allows, usually 2 s); the lease then really lasts that long.
    fn grant_lease(&self, ttl: Duration, within: Duration) -> BoxFuture<'_, Result<LeaseId, Error>>;

    /// Renews a lease and says for how long. The holder counts from the moment **before** it asked.
    /// [`Error::LeaseEnded`] when it is over; its keys are then gone.
    fn keep_alive(&self, lease: LeaseId, within: Duration) -> BoxFuture<'_, Result<Duration, Error>>;

    /// Ends a lease now; its keys vanish in one revision. An unknown lease is not an error.
    fn revoke_lease(&self, lease: LeaseId, within: Duration) -> BoxFuture<'_, Result<(), Error>>;

    /// Who seems to lead, as a value that can be waited on. Only a hint: see [`LeaderHint`].
    fn leader(&self) -> tokio::sync::watch::Receiver<LeaderHint>;
}

// --- Revision, LeaseId ----------------------------------------------------------------------------------------------

impl Revision {
    /// The revision after this one: where a watch goes on after a [`Listing`].
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl fmt::Debug for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lease {self}")
    }
}

// --- Txn ------------------------------------------------------------------------------------------------------------

impl Txn {
    /// A transaction that changes nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Demands that `key` was last changed by `modified` (`Revision(0)`: is absent).
    #[must_use]
    pub fn compare(mut self, key: impl Into<String>, modified: Revision) -> Self {
        self.compares.push(Compare { key: key.into(), modified });
        self
    }

    /// Writes `key`.
    #[must_use]
    pub fn put(self, key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.put_with(key, value, None)
    }

    /// Writes `key` and attaches it to `lease`.
    #[must_use]
    pub fn put_leased(self, key: impl Into<String>, value: impl Into<Bytes>, lease: LeaseId) -> Self {
        self.put_with(key, value, Some(lease))
    }

    /// Deletes `key`.
    #[must_use]
    pub fn delete(mut self, key: impl Into<String>) -> Self {
        self.deletes.push(key.into());
        self
    }

    fn put_with(mut self, key: impl Into<String>, value: impl Into<Bytes>, lease: Option<LeaseId>) -> Self {
        self.puts.push(Put { key: key.into(), value: value.into(), lease });
        self
    }

    /// Refuses what one of the back ends could not store, so that both refuse the same.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let mut size = 0;
        let mut written = std::collections::BTreeSet::new();
        let written_keys = self.puts.iter().map(|put| &put.key).chain(&self.deletes);
        for key in written_keys {
            if !written.insert(key) {
                return Err(Error::Invalid(format!("key {key:?} is written twice in one transaction")));
            }
        }
        for key in self.compares.iter().map(|compare| &compare.key).chain(written) {
            validate_key(key)?;
            size += key.len();
        }
        for put in &self.puts {
            validate_value(put)?;
            size += put.value.len();
        }
        let operations = self.compares.len() + self.puts.len() + self.deletes.len();
        if operations > MAX_OPERATIONS {
            return Err(Error::TooLarge {
                what: "operations of the transaction",
                size: operations,
                limit: MAX_OPERATIONS,
            });
        }
        if size > MAX_TXN {
            return Err(Error::TooLarge { what: "transaction", size, limit: MAX_TXN });
        }
        Ok(())
    }
}

/// Refuses an empty key and one that is too long.
pub(crate) fn validate_key(key: &str) -> Result<(), Error> {
    if key.is_empty() {
        return Err(Error::Invalid("a key may not be empty".to_owned()));
    }
    if key.len() > MAX_KEY {
        return Err(Error::TooLarge { what: "key", size: key.len(), limit: MAX_KEY });
    }
    Ok(())
}

fn validate_value(put: &Put) -> Result<(), Error> {
    if put.value.len() > MAX_VALUE {
        return Err(Error::TooLarge { what: "value", size: put.value.len(), limit: MAX_VALUE });
    }
    if std::str::from_utf8(&put.value).is_err() {
        return Err(Error::Invalid(format!("the value of {:?} is not readable text (UTF-8)", put.key)));
    }
    Ok(())
}
