//! One node's whole store as JSON and back: the way into a future file format, and a look inside for people.

use std::io::{self, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::FILE_NAME;
use super::disk::Contents;
use super::file;
use crate::embedded::raft_types::{LogEntry, LogId, RaftId, SnapshotMeta, Vote, index_of};

/// The format of the document.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Export {
    format: u32,
    id: RaftId,
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    snapshot_meta: Option<SnapshotMeta>,
    snapshot: Option<Value>,
    log: Vec<LogEntry>,
}

/// Writes the store of a **stopped** node as one JSON document: its id, vote, log and snapshot.
///
/// # Errors
/// The file is in use, missing or damaged, or `output` cannot be written.
pub fn export(directory: &Path, output: &mut dyn Write) -> io::Result<()> {
    let contents = file::read_file(&directory.join(FILE_NAME))?;
    let (snapshot_meta, snapshot) = match contents.snapshot {
        Some((meta, data)) => (Some(meta), Some(serde_json::from_slice(&data)?)),
        None => (None, None),
    };
    let export = Export {
        format: FORMAT,
        id: contents.id,
        vote: contents.vote,
        committed: contents.committed,
        purged: contents.purged,
        snapshot_meta,
        snapshot,
        log: contents.entries.into_values().collect(),
    };
    Ok(serde_json::to_writer_pretty(output, &export)?)
}

/// Makes the store of a node from what [`export`] wrote. The node keeps its identity, vote included, so the exported
/// file must never be used again, and nothing may have run from it since the export: two stores with one vote can
/// elect two leaders.
///
/// # Errors
/// The directory already holds a store, the document is not an export of a known format, or the disk refuses.
pub fn import(input: &mut dyn Read, directory: &Path) -> io::Result<()> {
    let path = directory.join(FILE_NAME);
    if path.try_exists()? {
        let problem = format!("{} exists: an import never overwrites a store", path.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, problem));
    }
    let export: Export = serde_json::from_reader(input)?;
    if export.format != FORMAT {
        return Err(io::Error::other(format!(
            "export of format {}, this program reads {FORMAT}",
            export.format
        )));
    }
    let Export { id, vote, committed, purged, snapshot_meta, snapshot, log, .. } = export;
    let data = snapshot.map(|state| serde_json::to_vec(&state)).transpose()?;
    let entries = log.into_iter().map(|entry| (index_of(&entry), entry)).collect();
    std::fs::create_dir_all(directory)?;
    let contents = Contents { id, vote, committed, purged, entries, snapshot: snapshot_meta.zip(data) };
    file::create_file(directory, contents)
}
