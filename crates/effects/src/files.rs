//! Durable files: replaced as a whole or not at all, and locked by one holder.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FlockOperation, flock};

/// Suffix of files that a crash left half-written; [`remove_leftovers`] deletes them.
const TEMPORARY: &str = ".mainstay-tmp";

/// Replaces `path` by `bytes` with permissions `mode`, durably: after `Ok` the new content survives a power loss, and
/// at every moment the file holds either the old content or the new one (rename(2) is atomic; the data is fsynced
/// before it and the directory after it).
///
/// Blocks for as long as the disk needs; call it for the agent's own state, and for a database's volume only on a
/// thread that may be abandoned.
///
/// # Errors
/// With the path in the text: directory missing, disk full, no permission.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let temporary = temporary_beside(path);
    let written = write_synced(&temporary, bytes, mode)
        .and_then(|()| fs::rename(&temporary, path))
        .and_then(|()| sync_parent(path));
    if written.is_err() {
        // Best effort: what is left is found by its suffix.
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(|error| in_words("write", path, &error))
}

/// Removes `path` durably. A file that does not exist is fine.
///
/// # Errors
/// With the path in the text.
pub fn remove_durably(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => sync_parent(path).map_err(|error| in_words("remove", path, &error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(in_words("remove", path, &error)),
    }
}

/// Deletes the half-written files that a crash in [`write_atomic`] left in `directory`.
///
/// # Errors
/// When the directory cannot be read.
pub fn remove_leftovers(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(TEMPORARY) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Flushes a directory, so that names made, renamed or removed in it survive a power loss (fsync(2)).
///
/// # Errors
/// When it cannot be opened or flushed.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Whole-file lock (flock(2)) held until dropped, also by a crash of the holder. Not inherited by programs we start.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock on `path` (created when missing), or `None` when somebody else holds it.
    ///
    /// # Errors
    /// With the path in the text, when the file cannot be opened.
    pub fn try_take(path: &Path) -> io::Result<Option<Self>> {
        let open =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let file = open.map_err(|error| in_words("lock", path, &error))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { file, path: path.to_owned() })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(in_words("lock", path, &error.into())),
        }
    }

    /// The locked file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough: a program that is being started elsewhere in this process holds a copy of the descriptor
        // until its exec. An error can only mean that there is no lock any more.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

fn temporary_beside(path: &Path) -> PathBuf {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let unique = COUNTER.fetch_add(1, Ordering::Relaxed);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.{unique}{TEMPORARY}", std::process::id()))
}

fn write_synced(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
    // open's mode is cut by the umask; the caller's mode is exact.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_directory(parent),
        Some(_) | None => sync_directory(Path::new(".")),
    }
}

fn in_words(doing: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {doing} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_with_exact_permissions() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("record.json");
        write_atomic(&path, b"one", 0o600).unwrap();
        write_atomic(&path, b"two", 0o640).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_failed_write_keeps_the_old_file_and_names_the_path() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("absent").join("record.json");
        let error = write_atomic(&path, b"one", 0o600).unwrap_err();
        assert!(error.to_string().contains("absent/record.json"), "{error}");
    }

    #[test]
    fn leftovers_of_a_crash_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("record.json");
        write_atomic(&path, b"one", 0o600).unwrap();
        fs::write(temporary_beside(&path), b"half").unwrap();
        remove_leftovers(directory.path()).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        assert_eq!(fs::read(&path).unwrap(), b"one");
    }

    #[test]
    fn a_dropped_lock_is_free_although_the_descriptor_was_copied() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let held = Lock::try_take(&path).unwrap().expect("free");
        let copy = held.file.try_clone().unwrap();
        drop(held);
        assert!(Lock::try_take(&path).unwrap().is_some());
        drop(copy);
    }

    #[test]
    fn a_lock_has_one_holder() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let held = Lock::try_take(&path).unwrap().expect("free");
        assert!(Lock::try_take(&path).unwrap().is_none());
        drop(held);
        assert!(Lock::try_take(&path).unwrap().is_some());
    }
}
