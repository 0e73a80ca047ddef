//! Files that PostgreSQL reads or owns: written with the right owner, and never on a thread that must not hang.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown, fchown};
use std::path::Path;
use std::time::Duration;

use crate::disposable::{self, Abandoned};
use crate::process::OsUser;

/// How long a handful of small file operations may take before their volume counts as hung.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Why files could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The volume did not answer.
    #[error(transparent)]
    Hung(#[from] Abandoned),
    /// The system refused; the text names the path.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Our own user writes, the server's group reads (0640).
    ServerReads,
    /// The server's user owns it alone (0600), as libpq demands of password files.
    ServerOwns,
    /// Our own user alone (0600).
    Ours,
}

/// Runs file operations on a thread that is abandoned after `deadline`.
pub(super) async fn run<T, F>(what: &str, deadline: Duration, work: F) -> Result<T, FileError>
where
    T: Send + 'static,
    F: FnOnce() -> io::Result<T> + Send + 'static,
{
    Ok(disposable::run(what, deadline, work).await??)
}

/// Replaces `path` by `bytes` as a whole. Not yet durable: see [`sync`].
pub(super) fn replace(path: &Path, bytes: &[u8], access: Access, user: Option<&OsUser>) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    let temporary = path.with_file_name(name);
    let write = || {
        // A leftover of a crash; `create_new` follows no symbolic link that another user may have put there.
        let _ = fs::remove_file(&temporary);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        give(&file, access, user)?;
        file.write_all(bytes)?;
        fs::rename(&temporary, path)
    };
    write().map_err(|error| in_words("write", path, &error))
}

/// Makes the present content of `path` and its name survive a power loss.
pub(super) fn sync(path: &Path) -> io::Result<()> {
    let directory = path.parent().unwrap_or_else(|| Path::new("/"));
    File::open(path)
        .and_then(|file| file.sync_all())
        .and_then(|()| File::open(directory)?.sync_all())
        .map_err(|error| in_words("flush", path, &error))
}

fn give(file: &File, access: Access, user: Option<&OsUser>) -> io::Result<()> {
    let user = user.filter(|_| rustix::process::geteuid().is_root());
    match (access, user) {
        (Access::ServerReads, Some(user)) => {
            fchown(file, None, Some(user.gid))?;
            file.set_permissions(fs::Permissions::from_mode(0o640))
        }
        (Access::ServerOwns, Some(user)) => fchown(file, Some(user.uid), Some(user.gid)),
        (Access::ServerReads | Access::ServerOwns, None) | (Access::Ours, _) => Ok(()),
    }
}

/// Makes a directory (and those above it) with exactly this mode; `owner` only matters when we are root.
pub(super) fn make_directory(path: &Path, mode: u32, owner: Option<(u32, u32)>) -> io::Result<()> {
    let make = || {
        fs::create_dir_all(path)?;
        if let Some((uid, gid)) = owner.filter(|_| rustix::process::geteuid().is_root()) {
            chown(path, Some(uid), Some(gid))?;
        }
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    };
    make().map_err(|error| in_words("make directory", path, &error))
}

/// Whether something (also a dangling link) has this name.
pub(super) fn exists(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(in_words("look at", path, &error)),
    }
}

/// Removes a file or a directory with all it holds; nothing there is fine.
pub(super) fn remove_all(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(facts) if facts.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(in_words("remove", path, &error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Flushes everything that was written to the volume that holds `path` (`syncfs(2)`; reports write errors since Linux
/// 5.8): for tools that write thousands of files and would flush each on its own.
pub(super) fn sync_volume(path: &Path) -> io::Result<()> {
    let flush = || Ok(rustix::fs::syncfs(File::open(path)?)?);
    flush().map_err(|error: io::Error| in_words("flush the volume of", path, &error))
}

/// Renames within one directory, durably.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let directory = to.parent().unwrap_or_else(|| Path::new("/"));
    fs::rename(from, to)
        .and_then(|()| File::open(directory)?.sync_all())
        .map_err(|error| in_words(&format!("rename {} to", from.display()), to, &error))
}

pub(super) fn in_words(doing: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {doing} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("passfile");
        replace(&path, b"one", Access::ServerOwns, None).unwrap();
        replace(&path, b"two", Access::ServerOwns, None).unwrap();
        sync(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn removing_what_is_not_there_is_fine_and_errors_name_the_path() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        remove_all(&path).unwrap();
        make_directory(&path.join("b"), 0o700, None).unwrap();
        remove_all(&path).unwrap();
        assert!(!exists(&path).unwrap());
        assert!(sync(&path).unwrap_err().to_string().contains("/a: "));
    }
}
