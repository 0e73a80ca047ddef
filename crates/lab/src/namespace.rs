//! Entering network namespaces and nodes. A namespace belongs to a thread: all entering happens on a thread of its own,
//! which ends with the work, so that no thread of the caller is ever left in the wrong place.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::thread;

use effects::process::ProcessId;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::thread::{
    LinkNameSpaceType, ThreadNameSpaceType, UnshareFlags, move_into_link_name_space,
    move_into_thread_name_spaces, unshare_unsafe,
};

use crate::error::{LabError, Result};
use crate::process;

/// A network namespace with a name, as `ip netns` makes it (ip-netns(8)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkNamespace {
    name: String,
}

impl NetworkNamespace {
    /// The namespace of that name, whether it exists or not.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    /// Its name for `ip netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that keeps it alive.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// Whether there is one.
    pub fn exists(&self) -> bool {
        self.path().exists()
    }

    /// The number the kernel knows it by; `None` when it does not exist.
    pub(crate) fn inode(&self) -> Option<u64> {
        fs::metadata(self.path()).ok().map(|m| m.ino())
    }

    /// A handle that keeps it alive.
    pub(crate) fn open(&self) -> Result<File> {
        File::open(self.path()).map_err(LabError::io(|| format!("opening network namespace {}", self.name)))
    }

    /// Runs `work` on a thread inside; sockets it opens belong to the namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let handle = self.open()?;
        let doing = || format!("entering network namespace {}", self.name);
        on_thread(|| {
            enter(&handle)?;
            Ok(work())
        })
        .map_err(LabError::io(doing))
    }

    /// Starts a program inside. Its file system and process numbers are the machine's own.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        let program = command.get_program().to_string_lossy().into_owned();
        let doing = || format!("starting {program} in network namespace {}", self.name);
        self.run(|| command.spawn())?.map_err(LabError::io(doing))
    }
}

/// Moves the calling thread into a network namespace.
pub(crate) fn enter(namespace: &File) -> io::Result<()> {
    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// Starts a program inside a node: its network, mounts, host name, and process numbers, so that it dies with the node.
pub(crate) fn spawn_in_node(init: ProcessId, command: &mut Command) -> io::Result<Child> {
    on_thread(|| {
        let pid = Pid::from_raw(init.pid).ok_or(io::ErrorKind::NotFound)?;
        let handle = pidfd_open(pid, PidfdFlags::empty())?;
        if !process::is_alive(init) {
            return Err(io::ErrorKind::NotFound.into());
        }
        // SAFETY: only the file system attributes of this thread are unshared; descriptors stay common.
        unsafe { unshare_unsafe(UnshareFlags::FS)? };
        let kinds = ThreadNameSpaceType::NETWORK
            | ThreadNameSpaceType::MOUNT
            | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
            | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
            | ThreadNameSpaceType::PROCESS_ID;
        move_into_thread_name_spaces(handle.as_fd(), kinds)?;
        command.spawn()
    })
}

/// Runs `work` on a thread of its own and hands back what it says.
pub(crate) fn on_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("lab-namespace".to_owned()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread inside the namespace panicked")))
    })
}

/// Whether this process may make network, mount and process namespaces; otherwise the kernel's reason.
pub(crate) fn may_isolate() -> io::Result<()> {
    on_thread(|| {
        let flags = UnshareFlags::NEWNET | UnshareFlags::NEWNS | UnshareFlags::NEWPID | UnshareFlags::NEWUTS;
        // SAFETY: file descriptors are not unshared, and the thread ends at once.
        Ok(unsafe { unshare_unsafe(flags) }?)
    })
}
