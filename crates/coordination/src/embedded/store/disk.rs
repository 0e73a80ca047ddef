//! The redb file and the one thread that writes it.

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use openraft::storage::IOFlushed;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use super::super::raft_types::{LogEntry, LogId, RaftId, SnapshotMeta, TypeConfig, Vote, index_of};

/// Log entries as JSON, by index.
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
/// Everything of which there is one, as JSON.
const SINGLES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("singles");

const ID: &str = "id";
const VOTE: &str = "vote";
const COMMITTED: &str = "committed";
const PURGED: &str = "purged";
const SNAPSHOT_META: &str = "snapshot_meta";
const SNAPSHOT: &str = "snapshot";

/// How much may be written with one fsync: bounds the delay that a late job adds for the first one.
const MAX_JOBS: usize = 256;

/// A handle on the thread. When the last one is dropped, the thread finishes its queue and closes the file.
#[derive(Clone)]
pub(crate) struct Disk {
    jobs: mpsc::Sender<Job>,
}

/// All that the file holds.
pub(crate) struct Contents {
    pub(crate) id: RaftId,
    pub(crate) vote: Option<Vote>,
    pub(crate) committed: Option<LogId>,
    pub(crate) purged: Option<LogId>,
    pub(crate) entries: BTreeMap<u64, LogEntry>,
    pub(crate) snapshot: Option<(SnapshotMeta, Vec<u8>)>,
}

struct Job {
    change: DiskChange,
    done: Done,
}

/// A change of the file.
pub(crate) enum DiskChange {
    Append(Vec<LogEntry>),
    /// Removes the entries from this index on.
    Truncate(u64),
    /// Removes the entries up to this one.
    Purge(LogId),
    Vote(Vote),
    /// Not worth an fsync of its own: it rides along with the next change.
    Committed(Option<LogId>),
    Snapshot(SnapshotMeta, Vec<u8>),
}

/// Whom to tell when the change is durable.
pub(crate) enum Done {
    Nobody,
    Raft(IOFlushed<TypeConfig>),
    Waiter(oneshot::Sender<io::Result<()>>),
}

// --- Disk -----------------------------------------------------------------------------------------------------------

impl Disk {
    /// Reads all of an opened file and starts the thread that writes it.
    pub(crate) fn of(database: Database) -> Result<(Self, Contents, JoinHandle<()>), redb::Error> {
        ensure_id(&database)?;
        let contents = read_all(&database)?;
        let (jobs, queue) = mpsc::channel();
        let thread = thread::Builder::new().name("coordination-disk".to_owned());
        let writer = thread.spawn(move || run(&database, &queue))?;
        Ok((Self { jobs }, contents, writer))
    }

    /// Queues a change.
    pub(crate) fn submit(&self, change: DiskChange, done: Done) -> io::Result<()> {
        self.jobs.send(Job { change, done }).map_err(|_| stopped())
    }

    /// Queues a change and waits until it is durable.
    pub(crate) async fn write(&self, change: DiskChange) -> io::Result<()> {
        let (done, waiter) = oneshot::channel();
        self.submit(change, Done::Waiter(done))?;
        waiter.await.map_err(|_| stopped())?
    }
}

fn stopped() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the thread that writes the coordination log has stopped")
}

// --- The thread -----------------------------------------------------------------------------------------------------

fn run(database: &Database, queue: &mpsc::Receiver<Job>) {
    let mut failed: Option<String> = None;
    while let Ok(first) = queue.recv() {
        let mut jobs = vec![first];
        while jobs.len() < MAX_JOBS {
            let Ok(job) = queue.try_recv() else { break };
            jobs.push(job);
        }
        while jobs.iter().all(|job| matches!(job.change, DiskChange::Committed(_))) {
            // Wait for company; a committed index that is never written only costs a replay.
            let Ok(job) = queue.recv() else { return };
            if matches!(job.change, DiskChange::Committed(_)) {
                jobs.clear();
            }
            jobs.push(job);
        }
        let mut dones = Vec::with_capacity(jobs.len());
        let mut changes = Vec::with_capacity(jobs.len());
        for job in jobs {
            changes.push(job.change);
            dones.push(job.done);
        }
        // After one failure nothing may be acknowledged any more: a later write could succeed while an earlier one is
        // missing, and Raft's promises rest on the order.
        if failed.is_none() {
            failed = write(database, &changes).err().map(|error| error.to_string());
        }
        for done in dones {
            done.tell(failed.as_deref().map_or(Ok(()), |text| Err(io::Error::other(text.to_owned()))));
        }
    }
}

fn write(database: &Database, changes: &[DiskChange]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    for change in changes {
        change.write(&transaction)?;
    }
    // redb's default durability: returns after fsync.
    Ok(transaction.commit()?)
}

impl DiskChange {
    fn write(&self, transaction: &WriteTransaction) -> Result<(), redb::Error> {
        match self {
            Self::Append(entries) => {
                let mut log = transaction.open_table(LOG)?;
                for entry in entries {
                    log.insert(index_of(entry), to_json(entry)?.as_slice())?;
                }
            }
            Self::Truncate(from) => {
                transaction.open_table(LOG)?.retain_in::<u64, _>(from.., |_, _| false)?;
            }
            Self::Purge(upto) => {
                transaction.open_table(LOG)?.retain_in::<u64, _>(..=upto.index, |_, _| false)?;
                put_single(transaction, PURGED, upto)?;
            }
            Self::Vote(vote) => put_single(transaction, VOTE, vote)?,
            Self::Committed(committed) => put_single(transaction, COMMITTED, committed)?,
            Self::Snapshot(meta, data) => {
                put_single(transaction, SNAPSHOT_META, meta)?;
                transaction.open_table(SINGLES)?.insert(SNAPSHOT, data.as_slice())?;
            }
        }
        Ok(())
    }
}

impl Done {
    fn tell(self, result: io::Result<()>) {
        match self {
            Self::Nobody => {}
            Self::Raft(flushed) => flushed.io_completed(result),
            Self::Waiter(waiter) => {
                // Whoever waited may have been cancelled; the change stands all the same.
                let _ = waiter.send(result);
            }
        }
    }
}

// --- Reading and writing records --------------------------------------------------------------------------------------

fn put_single<T: Serialize>(
    transaction: &WriteTransaction,
    name: &str,
    value: &T,
) -> Result<(), redb::Error> {
    transaction.open_table(SINGLES)?.insert(name, to_json(value)?.as_slice())?;
    Ok(())
}

fn to_json<T: Serialize>(value: &T) -> Result<Vec<u8>, redb::Error> {
    serde_json::to_vec(value).map_err(|error| redb::Error::Io(io::Error::other(error)))
}

fn from_json<T: DeserializeOwned>(name: &str, json: &[u8]) -> Result<T, redb::Error> {
    serde_json::from_slice(json)
        .map_err(|error| redb::Error::Corrupted(format!("record {name} of the coordination file: {error}")))
}

/// Gives a new file its id, durably, before anybody can hear of it.
pub(crate) fn ensure_id(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(LOG)?;
    let known = transaction.open_table(SINGLES)?.get(ID)?.is_some();
    if !known {
        put_single(&transaction, ID, &new_id()?)?;
    }
    Ok(transaction.commit()?)
}

/// A random id of 53 bits: more would not survive every JSON tool.
fn new_id() -> Result<RaftId, redb::Error> {
    let mut bytes = [0; 8];
    io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok((u64::from_le_bytes(bytes) >> 11).max(1))
}

pub(crate) fn read_all(database: &Database) -> Result<Contents, redb::Error> {
    let transaction = database.begin_read()?;
    let singles = transaction.open_table(SINGLES)?;
    let single = |name: &str| -> Result<Option<Vec<u8>>, redb::Error> {
        Ok(singles.get(name)?.map(|guard| guard.value().to_vec()))
    };
    let id =
        single(ID)?.ok_or_else(|| redb::Error::Corrupted("the coordination file has no id".to_owned()))?;
    let mut entries = BTreeMap::new();
    for item in transaction.open_table(LOG)?.iter()? {
        let (index, json) = item?;
        entries.insert(index.value(), from_json("log", json.value())?);
    }
    let snapshot = match (single(SNAPSHOT_META)?, single(SNAPSHOT)?) {
        (Some(meta), Some(data)) => Some((from_json(SNAPSHOT_META, &meta)?, data)),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            return Err(redb::Error::Corrupted("half a snapshot in the coordination file".to_owned()));
        }
    };
    Ok(Contents {
        id: from_json(ID, &id)?,
        vote: parse_option(VOTE, single(VOTE)?)?,
        committed: parse_option::<Option<LogId>>(COMMITTED, single(COMMITTED)?)?.flatten(),
        purged: parse_option(PURGED, single(PURGED)?)?,
        entries,
        snapshot,
    })
}

fn parse_option<T: DeserializeOwned>(name: &str, json: Option<Vec<u8>>) -> Result<Option<T>, redb::Error> {
    json.map(|json| from_json(name, &json)).transpose()
}

/// Fills a new file with the contents given.
pub(crate) fn fill(database: &Database, contents: Contents) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    put_single(&transaction, ID, &contents.id)?;
    if let Some(purged) = contents.purged {
        DiskChange::Purge(purged).write(&transaction)?;
    }
    DiskChange::Append(contents.entries.into_values().collect()).write(&transaction)?;
    DiskChange::Committed(contents.committed).write(&transaction)?;
    if let Some(vote) = contents.vote {
        DiskChange::Vote(vote).write(&transaction)?;
    }
    if let Some((meta, data)) = contents.snapshot {
        DiskChange::Snapshot(meta, data).write(&transaction)?;
    }
    Ok(transaction.commit()?)
}
