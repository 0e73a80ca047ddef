//! The store itself: a pure state machine. Every node applies the same commands and comes to the same state.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::super::raft_types::{Applied, Command, LoggedPut};
use crate::{Change, Changes, Compare, Entry, LeaseId, Revision, TxnOutcome};

/// All keys and leases at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    revision: Revision,
    keys: BTreeMap<String, Stored>,
    leases: BTreeMap<LeaseId, Lease>,
    next_lease: LeaseId,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Stored {
    value: Bytes,
    created: Revision,
    modified: Revision,
    lease: Option<LeaseId>,
}

/// A lease: how long it lives, and what goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) ttl_ms: u64,
    keys: BTreeSet<String>,
}

/// The state as JSON: what snapshots, exports and people read.
#[derive(Serialize, Deserialize)]
struct Document {
    revision: Revision,
    next_lease: LeaseId,
    leases: BTreeMap<u64, u64>,
    keys: Vec<DocumentKey>,
}

#[derive(Serialize, Deserialize)]
struct DocumentKey {
    key: String,
    value: String,
    created: Revision,
    modified: Revision,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lease: Option<LeaseId>,
}

impl Default for State {
    fn default() -> Self {
        // As in etcd an empty store stands at revision 1, so that no key's revision can be mistaken for "absent".
        let revision = Revision(1);
        Self { revision, keys: BTreeMap::new(), leases: BTreeMap::new(), next_lease: LeaseId(1) }
    }
}

impl State {
    /// The revision of the latest change.
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// The leases that have not ended.
    pub(crate) fn leases(&self) -> &BTreeMap<LeaseId, Lease> {
        &self.leases
    }

    /// One key.
    pub(crate) fn get(&self, key: &str) -> Option<Entry> {
        self.keys.get(key).map(|stored| stored.entry(key))
    }

    /// All keys with a prefix.
    pub(crate) fn list<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = Entry> + 'a {
        self.keys
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(key, stored)| stored.entry(key))
    }

    /// Applies one command: what its caller is told, and what watchers are told.
    pub(crate) fn apply(&mut self, command: &Command) -> (Applied, Option<Changes>) {
        match command {
            Command::Txn { compares, puts, deletes } => self.apply_txn(compares, puts, deletes),
            Command::Grant { ttl_ms } => (Applied::Granted(self.grant(*ttl_ms)), None),
            Command::EndLease(lease) => (Applied::Ended, self.end_lease(*lease)),
        }
    }

    fn apply_txn(
        &mut self,
        compares: &[Compare],
        puts: &[LoggedPut],
        deletes: &[String],
    ) -> (Applied, Option<Changes>) {
        if !compares.iter().all(|compare| self.holds(compare)) {
            return (Applied::Txn(TxnOutcome::Conflict { revision: self.revision }), None);
        }
        let ended = puts.iter().filter_map(|put| put.lease).find(|lease| !self.leases.contains_key(lease));
        if let Some(lease) = ended {
            return (Applied::LeaseEnded(lease), None);
        }
        let revision = self.revision.next();
        let written = puts.iter().map(|put| Change::Put(self.put(put, revision))).collect::<Vec<_>>();
        let deleted = deletes.iter().filter_map(|key| self.delete(key)).collect::<Vec<_>>();
        let changes = self.commit(revision, [written, deleted].concat());
        (Applied::Txn(TxnOutcome::Committed(self.revision)), changes)
    }

    fn holds(&self, compare: &Compare) -> bool {
        let modified = self.keys.get(&compare.key).map_or(Revision(0), |stored| stored.modified);
        modified == compare.modified
    }

    fn put(&mut self, put: &LoggedPut, revision: Revision) -> Entry {
        let before = self.delete_stored(&put.key);
        if let Some(lease) = put.lease.and_then(|lease| self.leases.get_mut(&lease)) {
            lease.keys.insert(put.key.clone());
        }
        let stored = Stored {
            value: Bytes::copy_from_slice(put.value.as_bytes()),
            created: before.map_or(revision, |before| before.created),
            modified: revision,
            lease: put.lease,
        };
        let entry = stored.entry(&put.key);
        self.keys.insert(put.key.clone(), stored);
        entry
    }

    fn delete(&mut self, key: &str) -> Option<Change> {
        self.delete_stored(key).map(|_| Change::Deleted { key: key.to_owned() })
    }

    fn delete_stored(&mut self, key: &str) -> Option<Stored> {
        let stored = self.keys.remove(key)?;
        if let Some(lease) = stored.lease.and_then(|lease| self.leases.get_mut(&lease)) {
            lease.keys.remove(key);
        }
        Some(stored)
    }

    fn grant(&mut self, ttl_ms: u64) -> LeaseId {
        let id = self.next_lease;
        self.next_lease = LeaseId(id.0 + 1);
        self.leases.insert(id, Lease { ttl_ms, keys: BTreeSet::new() });
        id
    }

    fn end_lease(&mut self, id: LeaseId) -> Option<Changes> {
        let lease = self.leases.remove(&id)?;
        let revision = self.revision.next();
        let deleted = lease.keys.iter().filter_map(|key| self.delete(key)).collect();
        self.commit(revision, deleted)
    }

    /// A command that changed no key makes no revision.
    fn commit(&mut self, revision: Revision, changes: Vec<Change>) -> Option<Changes> {
        if changes.is_empty() {
            return None;
        }
        self.revision = revision;
        Some(Changes { revision, changes })
    }

    /// The whole state as readable JSON.
    pub(crate) fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        let keys = self.keys.iter().map(|(key, stored)| DocumentKey {
            key: key.clone(),
            // Only text gets into the store (see `Txn::validate`), so nothing is lost here.
            value: String::from_utf8_lossy(&stored.value).into_owned(),
            created: stored.created,
            modified: stored.modified,
            lease: stored.lease,
        });
        let leases = self.leases.iter().map(|(id, lease)| (id.0, lease.ttl_ms)).collect();
        let document =
            Document { revision: self.revision, next_lease: self.next_lease, leases, keys: keys.collect() };
        serde_json::to_vec(&document)
    }

    /// The state that [`State::to_json`] wrote.
    pub(crate) fn from_json(json: &[u8]) -> serde_json::Result<Self> {
        let document: Document = serde_json::from_slice(json)?;
        let lease = |ttl_ms| Lease { ttl_ms, keys: BTreeSet::new() };
        let mut leases: BTreeMap<_, _> =
            document.leases.into_iter().map(|(id, ttl_ms)| (LeaseId(id), lease(ttl_ms))).collect();
        let mut keys = BTreeMap::new();
        for DocumentKey { key, value, created, modified, lease } in document.keys {
            if let Some(lease) = lease.and_then(|lease| leases.get_mut(&lease)) {
                lease.keys.insert(key.clone());
            }
            keys.insert(key, Stored { value: Bytes::from(value), created, modified, lease });
        }
        Ok(Self { revision: document.revision, keys, leases, next_lease: document.next_lease })
    }
}

impl Stored {
    fn entry(&self, key: &str) -> Entry {
        Entry {
            key: key.to_owned(),
            value: self.value.clone(),
            created: self.created,
            modified: self.modified,
            lease: self.lease,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, value: &str, lease: Option<LeaseId>) -> Command {
        let put = LoggedPut { key: key.to_owned(), value: value.to_owned(), lease };
        Command::Txn { compares: vec![], puts: vec![put], deletes: vec![] }
    }

    #[test]
    fn a_lease_takes_only_the_keys_that_still_hang_on_it() {
        let mut state = State::default();
        let (Applied::Granted(lease), None) = state.apply(&Command::Grant { ttl_ms: 5 }) else {
            panic!("no lease")
        };
        for key in ["a", "b", "c"] {
            state.apply(&put(key, "1", Some(lease)));
        }
        state.apply(&put("b", "2", None));
        let (_, changes) = state.apply(&Command::EndLease(lease));
        let gone: Vec<_> = changes.unwrap().changes.iter().map(|change| change.key().to_owned()).collect();
        assert_eq!(gone, ["a", "c"]);
        assert_eq!(state.list("").map(|entry| entry.key).collect::<Vec<_>>(), ["b"]);
        assert_eq!(state.apply(&put("d", "1", Some(lease))).0, Applied::LeaseEnded(lease));
        assert_eq!(state.get("d"), None);
    }

    #[test]
    fn a_snapshot_holds_everything() {
        let mut state = State::default();
        state.apply(&Command::Grant { ttl_ms: 5 });
        state.apply(&put("a", r#"{"text":"ä\n\"quoted\""}"#, Some(LeaseId(1))));
        state.apply(&put("b", "[]", None));
        let copy = State::from_json(&state.to_json().unwrap()).unwrap();
        assert_eq!(copy, state);
    }

    #[test]
    fn deleting_what_is_absent_makes_no_revision() {
        let mut state = State::default();
        let command = Command::Txn { compares: vec![], puts: vec![], deletes: vec!["a".to_owned()] };
        assert_eq!(state.apply(&command), (Applied::Txn(TxnOutcome::Committed(Revision(1))), None));
    }
}
