//! The last table, kept for a restart of the proxy.
//!
//! Written by a thread of its own: routing never waits for a disk, and a hung one costs nothing but this file's
//! freshness. A table that is too old does no harm: gates and terms protect the members it names.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::routes::RouteTable;
use tokio::sync::watch;

/// A disk that does not answer within this time is left alone; the proxy starts without a table.
const READ_LONGEST: Duration = Duration::from_secs(2);

/// Takes tables to keep.
#[derive(Debug)]
pub(crate) struct StateFile {
    latest: watch::Sender<Option<RouteTable>>,
}

impl StateFile {
    /// Opens the file and reads the table in it, if there is a readable one.
    pub(crate) async fn open(path: PathBuf) -> (Self, Option<RouteTable>) {
        let (latest, seen) = watch::channel(None);
        let (found, read) = tokio::sync::oneshot::channel();
        let spawned = std::thread::Builder::new().name("state-file".to_owned()).spawn(move || {
            // The receiver is gone when the disk took too long; the table is then not wanted any more.
            drop(found.send(read_table(&path)));
            keep(&path, seen);
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread for the state file: a restarted proxy will wait for its agent");
        }
        let last = tokio::time::timeout(READ_LONGEST, read).await.ok().and_then(Result::ok).flatten();
        (Self { latest }, last)
    }

    /// Keeps `table`; returns at once.
    pub(crate) fn keep(&self, table: RouteTable) {
        self.latest.send_replace(Some(table));
    }
}

fn read_table(path: &Path) -> Option<RouteTable> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "cannot read the last table");
            return None;
        }
    };
    serde_json::from_slice(&text)
        .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "the last table is not readable"))
        .ok()
}

/// Writes the newest table whenever there is a new one, until the proxy ends.
fn keep(path: &Path, mut seen: watch::Receiver<Option<RouteTable>>) {
    let Ok(waiting) = tokio::runtime::Builder::new_current_thread().build() else { return };
    while waiting.block_on(seen.changed()).is_ok() {
        let table = seen.borrow_and_update().clone();
        if let Some(table) = table
            && let Err(error) = write_atomically(path, &table)
        {
            tracing::warn!(path = %path.display(), %error, "cannot keep the table for a restart");
        }
    }
}

fn write_atomically(path: &Path, table: &RouteTable) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = File::create(&fresh)?;
    file.write_all(&serde_json::to_vec(table)?)?;
    file.sync_data()?;
    std::fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_table_survives_and_a_broken_file_does_not_matter() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("routes.json");
        let (file, last) = StateFile::open(path.clone()).await;
        assert_eq!(last, None);
        let table = RouteTable { generation: 7, ..RouteTable::default() };
        file.keep(table.clone());
        while !path.exists() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(file);
        assert_eq!(StateFile::open(path.clone()).await.1, Some(table));
        std::fs::write(&path, "{\"generation\":").unwrap();
        assert_eq!(StateFile::open(path).await.1, None);
    }
}
