//! Where a lab's files lie, and the lock that lets one command at a time change it.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use model::{NodeName, SystemName};
use rustix::fs::{FlockOperation, flock};

use crate::error::{LabError, Result};

/// How long a command waits for another one that changes the same lab.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);

/// The directory of one lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Home {
    pub(crate) system: SystemName,
    directory: PathBuf,
}

/// Held while a lab is changed; released when dropped, also by the death of the process.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// The directory all labs of this user lie in: `/var/lib/mainstay/lab` for root, else below `$XDG_STATE_HOME`
/// (XDG Base Directory Specification; `~/.local/state` when unset).
pub fn standard_base() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/mainstay/lab");
    }
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/".into())).join(".local/state");
    state.unwrap_or_else(home).join("mainstay/lab")
}

impl Home {
    pub(crate) fn new(base: &Path, system: &SystemName) -> Self {
        Self { system: system.clone(), directory: base.join(system.as_str()) }
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn manifest(&self) -> PathBuf {
        self.directory.join("lab.json")
    }

    /// The node's `--root`.
    pub(crate) fn node_root(&self, node: &NodeName) -> PathBuf {
        self.directory.join("nodes").join(node.as_str())
    }

    /// What a node's init and agent print, as a machine's journal would keep it.
    pub(crate) fn node_log(&self, node: &NodeName) -> PathBuf {
        self.directory.join("logs").join(format!("{node}.log"))
    }

    pub(crate) fn node_spec(&self, node: &NodeName) -> PathBuf {
        self.directory.join("specs").join(format!("{node}.json"))
    }

    pub(crate) fn volume(&self, node: &NodeName) -> PathBuf {
        self.directory.join("volumes").join(format!("{node}.img"))
    }

    pub(crate) fn forwarder_spec(&self) -> PathBuf {
        self.directory.join("specs").join("forwarder.json")
    }

    pub(crate) fn forwarder_log(&self) -> PathBuf {
        self.directory.join("logs").join("forwarder.log")
    }

    /// The system file as loopback nodes see it.
    pub(crate) fn loopback_file(&self) -> PathBuf {
        self.directory.join("mainstay.toml")
    }

    /// Takes the lock, waiting for a command that holds it; makes the directory when it does not exist.
    pub(crate) fn lock(&self) -> Result<Lock> {
        let path = self.directory.join("lock");
        let end = Instant::now() + LOCK_PATIENCE;
        loop {
            fs::create_dir_all(&self.directory).map_err(LabError::file("creating", &self.directory))?;
            let opened = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
            let file = match opened {
                Ok(file) => file,
                // A `down` has just removed the directory.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(LabError::file("opening", &path)(error)),
            };
            let taken = flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
            if taken && still_there(&file, &path) {
                return Ok(Lock { _file: file });
            }
            if Instant::now() > end {
                return Err(LabError::Busy { system: self.system.clone(), waited: LOCK_PATIENCE });
            }
            if !taken {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// A lock on a file that `down` has removed while we waited protects nothing.
fn still_there(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(held), Ok(found)) => held.ino() == found.ino() && held.dev() == found.dev(),
        _ => false,
    }
}
