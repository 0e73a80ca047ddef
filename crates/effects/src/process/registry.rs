//! The durable record of what runs, so that a restarted agent adopts instead of starting again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{MARK, Process, ProcessId, adopt, processes_of};
use crate::{clock, files};

/// One process that was started and not yet seen to end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The process.
    pub process: ProcessId,
    /// The boot in which that identity means something.
    pub boot: String,
    /// Wall clock of the start, microseconds since the Unix epoch.
    pub started_us: i64,
    /// What its keeper wants to know after a restart (port, command, ...).
    pub facts: serde_json::Value,
}

/// A record found at start-up.
#[derive(Debug)]
pub struct Found {
    /// Its key.
    pub key: String,
    /// The record.
    pub record: Record,
    /// The adopted process; `None` when it no longer runs.
    pub process: Option<Process>,
}

/// One JSON file for each running process in a directory of the agent's own state.
///
/// The calls write to the agent's volume and fsync: milliseconds, never a database's disk.
#[derive(Clone, Debug)]
pub struct Registry {
    directory: PathBuf,
}

impl Registry {
    /// Opens (makes) the registry in `directory`.
    ///
    /// # Errors
    /// When the directory cannot be made or read.
    pub fn open(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        files::remove_leftovers(directory)?;
        Ok(Self { directory: directory.to_owned() })
    }

    /// The text to start a process with (see [`super::Spawn::mark`]) so that [`Registry::find`] knows it again.
    pub fn mark(&self, key: &str) -> String {
        format!("{}/{key}", self.directory.display())
    }

    /// Records durably that `process` runs under `key`.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub fn record(&self, key: &str, process: ProcessId, facts: serde_json::Value) -> io::Result<()> {
        let record = Record { process, boot: clock::boot_id()?, started_us: clock::wall_us(), facts };
        let text = serde_json::to_vec_pretty(&record)?;
        files::write_atomic(&self.path(key), &text, 0o600)
    }

    /// Forgets `key`, durably; an unknown key is fine.
    ///
    /// # Errors
    /// When the record cannot be removed.
    pub fn forget(&self, key: &str) -> io::Result<()> {
        files::remove_durably(&self.path(key))
    }

    /// The record of `key` with its process adopted when it still runs. A process that was started but not yet recorded
    /// when the agent died is found by its mark and recorded now (with `facts` null). Blocks on `/proc`.
    ///
    /// # Errors
    /// When a record exists but cannot be read.
    pub fn find(&self, key: &str) -> io::Result<Option<Found>> {
        let found = self.read(key)?;
        match found {
            Some(Found { process: Some(_), .. }) => Ok(found),
            Some(_) | None => Ok(self.find_by_mark(key)?.or(found)),
        }
    }

    /// All records with their processes adopted where they still run.
    ///
    /// # Errors
    /// When the directory or a record cannot be read.
    pub fn load(&self) -> io::Result<Vec<Found>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            let Some(key) = name.to_str().and_then(|name| name.strip_suffix(".json")) else { continue };
            found.extend(self.read(key)?);
        }
        found.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }

    fn read(&self, key: &str) -> io::Result<Option<Found>> {
        let path = self.path(key);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
        };
        let record: Record = serde_json::from_slice(&text).map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display()))
        })?;
        // After a reboot the same pid and start time may belong to anything.
        let same_boot = record.boot == clock::boot_id()?;
        let process = if same_boot { adopt(record.process) } else { None };
        Ok(Some(Found { key: key.to_owned(), record, process }))
    }

    fn find_by_mark(&self, key: &str) -> io::Result<Option<Found>> {
        let mark = self.mark(key);
        let marked = |facts: &super::ProcessFacts| {
            // The mark is inherited by what the process starts: only the leader of the session is the process itself.
            facts.session == facts.id.pid
                && !facts.is_dead()
                && facts.environment_variable(MARK).is_some_and(|value| value == mark.as_str())
        };
        let Some(process) = processes_of(marked).into_iter().find_map(|facts| adopt(facts.id)) else {
            return Ok(None);
        };
        self.record(key, process.id(), serde_json::Value::Null)?;
        self.read(key)
    }

    fn path(&self, key: &str) -> PathBuf {
        self.directory.join(format!("{key}.json"))
    }
}
