//! One PostgreSQL: a log of writes on a timeline, a role, and whom it follows. Neither flushing nor replication is instant.

use std::collections::BTreeSet;

use model::leadership::{SyncSet, Term};
use model::postgres::{Lsn, Timeline, WalPosition};
use model::status::{Server, StandbyFacts};
use model::time::Moment;

use crate::random::mix;

/// One entry of the write-ahead log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The timeline it was written on.
    pub(crate) timeline: Timeline,
    /// Which history wrote it: two timelines may have the same number.
    pub(crate) history: u64,
    /// The client's write, or a record of PostgreSQL's own.
    pub(crate) write: Option<u64>,
    /// How many connections the primary that began here may have.
    pub(crate) connections: Option<u32>,
    /// A digest of the log up to and with this entry: two logs that agree here agree before.
    digest: u64,
}

impl Entry {
    /// The entry `self`, written behind the log whose digest is `before`.
    fn behind(self, before: u64) -> Self {
        let parts = [
            u64::from(self.timeline.0),
            self.history,
            self.write.map_or(0, |write| write + 1),
            self.connections.map_or(0, |connections| u64::from(connections) + 1),
        ];
        let digest = parts.into_iter().fold(before, |digest, part| mix(digest ^ part));
        Self { digest, ..self }
    }
}

/// What the server process does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Process {
    /// No data directory.
    Empty,
    /// Data, no process.
    Stopped,
    /// In recovery.
    Standby {
        /// The node it receives from.
        follows: Option<usize>,
        /// Whether it receives right now.
        streaming: bool,
    },
    /// Accepts writes.
    Primary,
}

/// One member's copy and server.
#[derive(Clone, Debug)]
pub(crate) struct Postgres {
    pub(crate) process: Process,
    pub(crate) log: Vec<Entry>,
    /// How many entries of the log a power loss leaves.
    pub(crate) flushed: usize,
    pub(crate) timeline: Timeline,
    pub(crate) history: u64,
    pub(crate) identifier: Option<u64>,
    /// The sets by which some WAL sender may acknowledge: more than one while a change is not proved.
    pub(crate) in_force: Vec<SyncSet>,
    /// The term of the primary that it follows, as told.
    pub(crate) follows_term: Term,
    /// When its receiver was fed last.
    pub(crate) fed_at: Option<Moment>,
    /// Whether its primary has not kept the log that this copy needs next.
    pub(crate) log_gone: bool,
    /// Whether it was shut down cleanly.
    pub(crate) clean: bool,
    /// When the server was started.
    pub(crate) started_us: i64,
    /// How many connections it may have.
    pub(crate) connections: u32,
    /// How many its primary may have: it does not start as a standby with less.
    pub(crate) floor: u32,
}

impl Postgres {
    pub(crate) fn empty() -> Self {
        Self {
            process: Process::Empty,
            log: vec![],
            flushed: 0,
            timeline: Timeline(0),
            history: 0,
            identifier: None,
            in_force: vec![],
            follows_term: Term(0),
            fed_at: None,
            log_gone: false,
            clean: false,
            started_us: 0,
            connections: 0,
            floor: 0,
        }
    }

    /// A server starts as a standby: with what is wanted, but not with less than its primary has.
    pub(crate) fn start_standby(&mut self, follows: Option<usize>, wanted: u32, now_us: i64) {
        self.process = Process::Standby { follows, streaming: false };
        self.connections = wanted.max(self.floor);
        self.started_us = now_us;
    }

    /// A server starts as a primary, and says in the log what it has.
    pub(crate) fn start_primary(&mut self, wanted: u32, now_us: i64) {
        self.process = Process::Primary;
        self.connections = wanted;
        self.started_us = now_us;
        self.announce();
    }

    /// The first entry of a primary.
    pub(crate) fn announce(&mut self) {
        self.floor = self.connections;
        self.push(None, Some(self.connections));
        self.flush();
    }

    pub(crate) fn position(&self) -> WalPosition {
        WalPosition { timeline: self.timeline, lsn: self.lsn() }
    }

    pub(crate) fn lsn(&self) -> Lsn {
        Lsn(u64::try_from(self.flushed).unwrap_or(u64::MAX))
    }

    pub(crate) fn flush(&mut self) {
        self.flushed = self.log.len();
    }

    /// What a power loss does to the log.
    pub(crate) fn lose_unflushed(&mut self) {
        if self.flushed == self.log.len() {
            return;
        }
        self.log.truncate(self.flushed);
        if let Some(last) = self.log.last() {
            (self.timeline, self.history) = (last.timeline, last.history);
        }
    }

    /// The digest of the first `length` entries, if there are so many.
    pub(crate) fn digest_at(&self, length: usize) -> Option<u64> {
        self.log.get(length.checked_sub(1)?).map(|entry| entry.digest)
    }

    pub(crate) fn append(&mut self, write: Option<u64>) {
        self.push(write, None);
    }

    fn push(&mut self, write: Option<u64>, connections: Option<u32>) {
        let entry = Entry { timeline: self.timeline, history: self.history, write, connections, digest: 0 };
        let before = self.log.last().map_or(0, |last| last.digest);
        self.log.push(entry.behind(before));
    }

    /// Whether this copy's log begins with all of `other`'s.
    pub(crate) fn extends(&self, other: &[Entry]) -> bool {
        let Some(last) = other.last() else { return true };
        self.log.get(other.len() - 1).is_some_and(|entry| entry.digest == last.digest)
    }

    /// All writes in the log.
    pub(crate) fn writes(&self) -> BTreeSet<u64> {
        self.log.iter().filter_map(|entry| entry.write).collect()
    }

    /// As the agent on its node sees it, when it is not a primary.
    pub(crate) fn as_server(&self) -> Option<Server> {
        Some(match &self.process {
            Process::Empty => Server::Empty,
            Process::Stopped => Server::Stopped { because: "it is not running".to_owned() },
            Process::Standby { streaming, .. } => Server::Standby(StandbyFacts {
                position: self.position(),
                replayed: self.lsn(),
                streaming: *streaming,
                follows: self.follows_term,
                started_us: self.started_us,
            }),
            Process::Primary => return None,
        })
    }

    /// The process ends.
    pub(crate) fn kill(&mut self) {
        if self.process != Process::Empty {
            self.process = Process::Stopped;
            self.clean = false;
        }
    }
}
