//! Raft's log: read from memory, written by the disk's thread.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};

use super::disk::{Disk, DiskChange, Done};
use crate::embedded::raft_types::{LogEntry, LogId, TypeConfig, Vote, index_of};

/// The log with its vote. Clones share it.
///
/// All entries since the last purge are also kept in memory: Raft demands that an entry can be read as soon as it was
/// handed over, before it is on disk, and the log is kept short by snapshots.
#[derive(Clone)]
pub(crate) struct Log {
    disk: Disk,
    memory: Arc<Mutex<Memory>>,
}

struct Memory {
    entries: BTreeMap<u64, LogEntry>,
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
}

impl Log {
    pub(crate) fn new(
        disk: Disk,
        entries: BTreeMap<u64, LogEntry>,
        vote: Option<Vote>,
        committed: Option<LogId>,
        purged: Option<LogId>,
    ) -> Self {
        Self { disk, memory: Arc::new(Mutex::new(Memory { entries, vote, committed, purged })) }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // No code under this lock panics half-way through a change.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RaftLogReader<TypeConfig> for Log {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: R,
    ) -> io::Result<Vec<LogEntry>> {
        Ok(self.memory().entries.range(range).map(|(_, entry)| entry.clone()).collect())
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.memory().vote)
    }
}

impl RaftLogStorage<TypeConfig> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let memory = self.memory();
        let last = memory.entries.values().next_back().map(RaftEntry::log_id);
        Ok(LogState { last_purged_log_id: memory.purged, last_log_id: last.or(memory.purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.disk.write(DiskChange::Vote(*vote)).await?;
        self.memory().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.memory().committed = committed;
        self.disk.submit(DiskChange::Committed(committed), Done::Nobody)
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.memory().committed)
    }

    async fn append<I>(&mut self, entries: I, flushed: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = LogEntry> + Send,
        I::IntoIter: Send,
    {
        let entries: Vec<LogEntry> = entries.into_iter().collect();
        self.memory().entries.extend(entries.iter().map(|entry| (index_of(entry), entry.clone())));
        self.disk.submit(DiskChange::Append(entries), Done::Raft(flushed))
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let from = last.map_or(0, |last| last.index + 1);
        self.memory().entries.split_off(&from);
        self.disk.write(DiskChange::Truncate(from)).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        {
            let mut memory = self.memory();
            memory.entries = memory.entries.split_off(&(upto.index + 1));
            memory.purged = memory.purged.max(Some(upto));
        }
        // A purge that does not reach the disk before a crash is only done again.
        self.disk.submit(DiskChange::Purge(upto), Done::Nobody)
    }
}
