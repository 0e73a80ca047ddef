//! What Raft writes and everybody else reads: the applied state and the recent changes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::state::State;
use crate::watch::WatchSender;
use crate::{Change, Changes, Revision, WatchError};

/// Changes kept for watchers: enough for a reader that is a moment behind, bounded against one that stopped.
const MAX_REVISIONS: usize = 10_000;
/// The revision of the first change any store can see (an empty one stands at 1).
const FIRST_CHANGE: Revision = Revision(2);
/// Bytes of keys and values in the kept changes.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// The applied state, shared between Raft's thread and readers.
#[derive(Clone)]
pub(crate) struct Shared {
    inner: Arc<Mutex<Inner>>,
    revision: watch::Sender<Revision>,
}

struct Inner {
    state: State,
    recent: VecDeque<Arc<Changes>>,
    recent_bytes: usize,
    /// Every change from this revision on is in `recent`.
    oldest: Revision,
}

impl Shared {
    pub(crate) fn new() -> Self {
        let state = State::default();
        let revision = state.revision();
        let inner = Inner { state, recent: VecDeque::new(), recent_bytes: 0, oldest: revision.next() };
        Self { inner: Arc::new(Mutex::new(inner)), revision: watch::Sender::new(revision) }
    }

    /// Looks at the applied state. Keep it short: Raft applies under the same lock.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock().state)
    }

    /// The revision of the applied state.
    pub(crate) fn revision(&self) -> Revision {
        *self.revision.borrow()
    }

    /// Changes the applied state by one command.
    pub(crate) fn apply<T>(&self, change: impl FnOnce(&mut State) -> (T, Option<Changes>)) -> T {
        let mut inner = self.lock();
        let (result, changes) = change(&mut inner.state);
        let Some(changes) = changes else { return result };
        let revision = changes.revision;
        inner.remember(changes);
        drop(inner);
        self.revision.send_replace(revision);
        result
    }

    /// Replaces the applied state by that of a snapshot; what led to it is not known here.
    pub(crate) fn replace(&self, state: State) {
        let revision = state.revision();
        let mut inner = self.lock();
        // The same state again (Raft re-reads its own snapshot at start) loses no history.
        if inner.state.revision() != revision {
            inner.recent.clear();
            inner.recent_bytes = 0;
            inner.oldest = revision.next();
        }
        inner.state = state;
        drop(inner);
        self.revision.send_replace(revision);
    }

    /// Feeds a watch until its reader is gone or has fallen too far behind.
    pub(crate) async fn feed(self, prefix: String, from: Revision, sender: WatchSender) {
        let mut revision = self.revision.subscribe();
        let mut next = from;
        loop {
            revision.borrow_and_update();
            while let Some(found) = self.next_changes(&prefix, &mut next) {
                let ended = found.is_err();
                if sender.send(found).await.is_err() || ended {
                    return;
                }
            }
            tokio::select! {
                () = sender.closed() => return,
                changed = revision.changed() => if changed.is_err() { return },
            }
        }
    }

    /// The first changes under `prefix` at or after `next`, which is moved past them.
    fn next_changes(&self, prefix: &str, next: &mut Revision) -> Option<Result<Changes, WatchError>> {
        let inner = self.lock();
        if (*next).max(FIRST_CHANGE) < inner.oldest {
            return Some(Err(WatchError::Compacted { oldest: inner.oldest }));
        }
        let start = inner.recent.partition_point(|changes| changes.revision < *next);
        for changes in inner.recent.range(start..) {
            *next = changes.revision.next();
            let matching: Vec<Change> =
                changes.changes.iter().filter(|change| change.key().starts_with(prefix)).cloned().collect();
            if !matching.is_empty() {
                return Some(Ok(Changes { revision: changes.revision, changes: matching }));
            }
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // The state is changed by `State::apply` alone, which does not panic half-way; a poisoned lock can only come
        // from a reader.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn remember(&mut self, changes: Changes) {
        self.recent_bytes += size(&changes);
        self.recent.push_back(Arc::new(changes));
        while self.recent.len() > MAX_REVISIONS || self.recent_bytes > MAX_BYTES {
            let Some(dropped) = self.recent.pop_front() else { return };
            self.recent_bytes -= size(&dropped);
            self.oldest = dropped.revision.next();
        }
    }
}

fn size(changes: &Changes) -> usize {
    let of = |change: &Change| match change {
        Change::Put(entry) => entry.key.len() + entry.value.len(),
        Change::Deleted { key } => key.len(),
    };
    changes.changes.iter().map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::raft_types::{Command, LoggedPut};

    fn put(shared: &Shared, key: &str, value: String) {
        let put = LoggedPut { key: key.to_owned(), value, lease: None };
        shared
            .apply(|state| state.apply(&Command::Txn { compares: vec![], puts: vec![put], deletes: vec![] }));
    }

    #[test]
    fn a_reader_that_is_too_slow_is_told_to_start_over() {
        let shared = Shared::new();
        let big = "x".repeat(1024 * 1024);
        for _ in 0..20 {
            put(&shared, "a", big.clone());
        }
        let mut next = Revision(2);
        let Some(Err(WatchError::Compacted { oldest })) = shared.next_changes("", &mut next) else {
            panic!("must be told")
        };
        assert!(oldest > Revision(2), "{oldest}");
        let mut next = oldest;
        assert_eq!(shared.next_changes("", &mut next).unwrap().unwrap().revision, oldest);
    }

    #[test]
    fn a_snapshot_ends_watches_that_it_leaves_a_gap_in() {
        let shared = Shared::new();
        let ahead = Shared::new();
        for _ in 0..3 {
            put(&ahead, "a", "1".to_owned());
        }
        shared.replace(ahead.read(Clone::clone));
        assert!(shared.next_changes("", &mut Revision(2)).unwrap().is_err());
        assert!(shared.next_changes("", &mut Revision(5)).is_none());
    }
}
