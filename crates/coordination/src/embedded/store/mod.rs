//! One node's durable part: the log, the vote and the last snapshot in one redb file, the applied state in memory.
//!
//! ```text
//! Raft's thread                         thread `coordination-disk`
//!   Log::append --- entries ----------> collects what has queued up, writes it in one transaction,
//!   Log::save_vote, truncate, purge --> fsyncs once, answers all of it
//!   Log reads <-- memory
//!   Machine::apply --> Shared (state, recent changes) --> readers and watches on any thread
//! ```
//!
//! Everything goes through one queue, so the vote and the log reach the disk in the order Raft gave them.

mod disk;
mod export;
mod file;
mod log;
mod machine;
#[cfg(test)]
mod power_test;
mod shared;
mod state;

use std::io;
use std::thread::JoinHandle;

pub(crate) use disk::Disk;
pub use export::{export, import};
pub(crate) use file::Place;
pub(crate) use log::Log;
pub(crate) use machine::Machine;
pub(crate) use shared::Shared;

use super::raft_types::RaftId;
#[cfg(test)]
use state::State;

/// The file in the directory given.
pub const FILE_NAME: &str = "coordination.redb";

/// What a node starts from.
pub(crate) struct Opened {
    pub(crate) id: RaftId,
    pub(crate) log: Log,
    pub(crate) machine: Machine,
    /// The disk's thread: ends, and frees the file, when `log` and `machine` are gone.
    pub(crate) writer: JoinHandle<()>,
}

/// Opens or makes the store. A new one gets a new [`RaftId`].
///
/// Blocks on the disk: not for a runtime's thread.
pub(crate) fn open(place: Place) -> io::Result<Opened> {
    let name = match &place {
        Place::Directory(directory) => directory.join(FILE_NAME).display().to_string(),
        Place::Medium(_) => "the medium".to_owned(),
    };
    let opened = Disk::of(place.open()?);
    let (disk, found, writer) = opened.map_err(|error| io::Error::other(format!("{name}: {error}")))?;
    let machine = Machine::new(disk.clone(), found.snapshot);
    let log = Log::new(disk, found.entries, found.vote, found.committed, found.purged);
    Ok(Opened { id: found.id, log, machine, writer })
}
