//! Raft's view of the state machine: applies entries, makes and installs snapshots.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{Stream, StreamExt};
use openraft::EntryPayload;
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};

use super::disk::{Disk, DiskChange};
use super::shared::Shared;
use super::state::State;
use crate::embedded::raft_types::{
    Applied, LogEntry, LogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig,
};

/// The applied state with its position in the log. The state lives in memory; what is durable is the last snapshot,
/// and the log from there on is applied again at start.
pub(crate) struct Machine {
    disk: Disk,
    shared: Shared,
    applied: Option<LogId>,
    membership: StoredMembership,
    snapshot: Arc<Current>,
}

/// The last snapshot, as on disk.
type Current = Mutex<Option<(SnapshotMeta, Vec<u8>)>>;

/// A snapshot in the making: the state as it was when asked for.
pub(crate) struct Builder {
    disk: Disk,
    state: State,
    meta: SnapshotMeta,
    snapshot: Arc<Current>,
}

impl Machine {
    pub(crate) fn new(disk: Disk, snapshot: Option<(SnapshotMeta, Vec<u8>)>) -> Self {
        Self {
            disk,
            shared: Shared::new(),
            applied: None,
            membership: StoredMembership::default(),
            snapshot: Arc::new(Mutex::new(snapshot)),
        }
    }

    /// What readers and watches look at.
    pub(crate) fn shared(&self) -> Shared {
        self.shared.clone()
    }

    fn apply_entry(&mut self, entry: LogEntry) -> Applied {
        self.applied = Some(entry.log_id());
        match entry.payload {
            EntryPayload::Blank => Applied::Nothing,
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(self.applied, membership);
                Applied::Nothing
            }
            EntryPayload::Normal(command) => self.shared.apply(|state| state.apply(&command)),
        }
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = Vec<u8>;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + Send,
    {
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let result = self.apply_entry(entry);
            if let Some(responder) = responder {
                responder.send(result);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            disk: self.disk.clone(),
            state: self.shared.read(Clone::clone),
            meta: SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() },
            snapshot: self.snapshot.clone(),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: Vec<u8>) -> io::Result<()> {
        let (state, data) = blocking(move || Ok((State::from_json(&data)?, data))).await?;
        store(&self.disk, &self.snapshot, meta, data).await?;
        self.shared.replace(state);
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let current = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(current.map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = Vec<u8>;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let state = self.state.clone();
        let data = blocking(move || Ok(state.to_json()?)).await?;
        store(&self.disk, &self.snapshot, &self.meta, data.clone()).await?;
        Ok(Snapshot { meta: self.meta.clone(), snapshot: data })
    }
}

/// Runs what may take long beside Raft's thread, so that heartbeats go on; on it where the system gives no thread, because an
/// error here ends the store.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let work = Arc::new(Mutex::new(Some(work)));
    let take = |work: &Mutex<Option<_>>| work.lock().unwrap_or_else(PoisonError::into_inner).take();
    let theirs = Arc::clone(&work);
    let run = move || {
        // An error means that nobody waits any more.
        let _ = sender.send(take(&theirs).map(|work| work()));
    };
    let here = || take(&work).map_or_else(|| Err(io::Error::other("the work was lost")), |work| work());
    match std::thread::Builder::new().name("snapshot".to_owned()).spawn(run) {
        Ok(_) => receiver.await.ok().flatten().unwrap_or_else(here),
        Err(_) => here(),
    }
}

/// Makes a snapshot the current one: on disk first.
async fn store(disk: &Disk, current: &Current, meta: &SnapshotMeta, data: Vec<u8>) -> io::Result<()> {
    disk.write(DiskChange::Snapshot(meta.clone(), data.clone())).await?;
    *current.lock().unwrap_or_else(PoisonError::into_inner) = Some((meta.clone(), data));
    Ok(())
}
