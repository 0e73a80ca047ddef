//! Opening and making the file, so that a power loss at any moment leaves a whole one or none.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError, StorageBackend};

use super::FILE_NAME;
use super::disk::{self, Contents};

/// Bytes of the file that redb may keep in memory.
const CACHE: usize = 4 * 1024 * 1024;
/// What a file is called while it is made.
pub(super) const UNFINISHED: &str = "coordination.redb.new";

/// Where a node's store lies.
pub(crate) enum Place {
    /// In a file of this directory.
    Directory(PathBuf),
    /// On something else that reads, writes and flushes.
    Medium(OnMedium),
}

/// Opens a database on a medium of its own.
pub(crate) type OnMedium = Box<dyn FnOnce(&redb::Builder) -> Result<Database, DatabaseError> + Send>;

impl Place {
    pub(crate) fn medium(medium: impl StorageBackend) -> Self {
        Self::Medium(Box::new(|builder| builder.create_with_backend(medium)))
    }

    /// Opens what is there, or makes it.
    pub(super) fn open(self) -> io::Result<Database> {
        match self {
            Self::Directory(directory) => open_in(&directory),
            Self::Medium(open) => open(&builder()).map_err(|error| io::Error::other(error.to_string())),
        }
    }
}

/// redb would cache up to 1 GiB; this file is written often and read once.
fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE);
    builder
}

fn open_in(directory: &Path) -> io::Result<Database> {
    std::fs::create_dir_all(directory)?;
    let path = directory.join(FILE_NAME);
    if !path.try_exists()? {
        make(directory, disk::ensure_id)?;
    }
    open(&path)
}

fn open(path: &Path) -> io::Result<Database> {
    builder().open(path).map_err(|error| describe(path, &error))
}

/// Makes the file under another name and gives it its own once it is whole and on disk: a power loss in between would
/// leave a file that can never be opened, and one after it, without the directory's flush, no file.
fn make(directory: &Path, fill: impl FnOnce(&Database) -> Result<(), redb::Error>) -> io::Result<()> {
    let unfinished = directory.join(UNFINISHED);
    match std::fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let database = builder().create(&unfinished).map_err(|error| describe(&unfinished, &error))?;
    fill(&database).map_err(|error| describe(&unfinished, &error))?;
    drop(database);
    File::open(&unfinished)?.sync_all()?;
    std::fs::rename(&unfinished, directory.join(FILE_NAME))?;
    File::open(directory)?.sync_all()
}

pub(super) fn describe(path: &Path, error: &dyn std::error::Error) -> io::Error {
    io::Error::other(format!("{}: {error}", path.display()))
}

/// Reads a file without starting a thread.
pub(super) fn read_file(path: &Path) -> io::Result<Contents> {
    disk::read_all(&open(path)?).map_err(|error| describe(path, &error))
}

/// Makes a new file with the contents given.
pub(super) fn create_file(directory: &Path, contents: Contents) -> io::Result<()> {
    make(directory, |database| disk::fill(database, contents))
}
