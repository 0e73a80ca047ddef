//! Small secret files: readable by their owner only, whole or absent after a power loss.
//!
//! The calls block. They belong to a start, a join or a renewal, on the agent's state directory, never on a
//! database's volume.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A file that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {}: {source}", path.display())]
pub struct FileError {
    /// What was tried ("read", "write").
    pub doing: &'static str,
    /// The file.
    pub path: PathBuf,
    /// The kernel's reason.
    pub source: io::Error,
}

/// What to do when the file is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Existing {
    Replace,
    Keep,
}

/// Makes `dir` (mode 0700) with its parents; a directory that exists stays as it is.
pub(crate) fn create_dir(dir: &Path) -> Result<(), FileError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|source| FileError { doing: "create", path: dir.into(), source })
}

/// Writes `content` to `path` with mode 0600: temporary file, fsync, rename, fsync of the directory. With
/// [`Existing::Keep`] a file that is there stays and the error is [`io::ErrorKind::AlreadyExists`].
pub(crate) fn write_secret(path: &Path, content: &[u8], existing: Existing) -> Result<(), FileError> {
    let temporary = path.with_extension(format!("tmp-{}", std::process::id()));
    let written = write_and_move(&temporary, path, content, existing);
    if written.is_err() || existing == Existing::Keep {
        // After a hard link the temporary name is spare; after a failure it is rubbish. It may never have existed.
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(|source| FileError { doing: "write", path: path.into(), source })
}

/// Reads a text file.
pub(crate) fn read(path: &Path) -> Result<String, FileError> {
    fs::read_to_string(path).map_err(|source| FileError { doing: "read", path: path.into(), source })
}

/// The permission bits of `path` that let others than its owner in (0 = none).
pub(crate) fn foreign_permissions(path: &Path) -> Result<u32, FileError> {
    let metadata =
        fs::metadata(path).map_err(|source| FileError { doing: "read", path: path.into(), source })?;
    Ok(metadata.permissions().mode() & 0o077)
}

fn write_and_move(temporary: &Path, path: &Path, content: &[u8], existing: Existing) -> io::Result<()> {
    // A leftover of a crashed process with the same id must not block us, nor lend us its permissions.
    match fs::remove_file(temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    match existing {
        Existing::Replace => fs::rename(temporary, path)?,
        Existing::Keep => fs::hard_link(temporary, path)?,
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_file_is_private_and_leaves_no_rubbish() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.key");
        write_secret(&path, b"one", Existing::Keep).unwrap();
        assert_eq!(foreign_permissions(&path).unwrap(), 0);

        let kept = write_secret(&path, b"two", Existing::Keep).unwrap_err();
        assert_eq!(kept.source.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(read(&path).unwrap(), "one");

        write_secret(&path, b"three", Existing::Replace).unwrap();
        assert_eq!(read(&path).unwrap(), "three");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
