//! Processes that outlive the agent: started in their own session, watched through a pidfd, adopted after a restart.
//!
//! A process is named by its pid and its start time, never by the pid alone: pids are used again. Every process
//! started or adopted here is reaped in the background, so that none stays a zombie when its [`Process`] is dropped.

mod launch;
mod memory;
mod procfs;
mod registry;
mod spawn;
mod strangers;
mod tool;
mod turns;
mod user;
mod withheld;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::process::{
    Pid, PidfdFlags, WaitId, WaitIdOptions, WaitIdStatus, pidfd_open, pidfd_send_signal, waitid,
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub(crate) use launch::RECORD_DEADLINE;
pub use launch::{Launch, Launched, forget, group_of, launch};
pub use memory::MemoryGroup;
pub use procfs::{ProcessFacts, children_of, facts_of, processes_of, session_of};
pub use registry::{Found, Record, Registry};
pub use rustix::process::Signal;
pub use spawn::{MARK, Spawn, find_program, spawn, spawn_detached};
pub use strangers::reap_strangers;
pub use tool::{ToolCommand, ToolError, ToolOutput, run_tool};
pub use turns::Turns;
pub use user::OsUser;
pub use withheld::Withheld;

/// Which process: pid and start time, an identity that survives the pid's reuse (within one boot).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    /// The process id.
    pub pid: i32,
    /// When it started, in clock ticks since boot (`proc(5)`, `/proc/PID/stat` field 22).
    pub start_ticks: u64,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exit {
    /// It returned this exit code.
    Code(i32),
    /// A signal of this number ended it.
    Signal(i32),
    /// It is gone, but it was not our child (adopted), so the system tells only its parent how it ended.
    Unknown,
}

/// A running (or ended) process. Clones are handles of the same process; dropping all of them does not hurt it.
#[derive(Clone)]
pub struct Process {
    id: ProcessId,
    pidfd: Arc<OwnedFd>,
    exit: watch::Receiver<Option<Exit>>,
}

impl ProcessId {
    /// The identity of the process that has this pid now; `None` when there is none.
    pub fn of(pid: i32) -> Option<Self> {
        facts_of(pid).map(|facts| facts.id)
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {}", self.pid)
    }
}

impl Exit {
    /// Whether it ended with exit code 0.
    pub fn is_success(self) -> bool {
        self == Self::Code(0)
    }

    fn from_status(status: &WaitIdStatus) -> Self {
        if let Some(code) = status.exit_status() {
            return Self::Code(code);
        }
        status.terminating_signal().map_or(Self::Unknown, Self::Signal)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(number) => write!(f, "signal {number}{}", signal_name(*number)),
            Self::Unknown => f.write_str("an unknown exit status (it was adopted, not our child)"),
        }
    }
}

/// ` (SIGKILL)` for the signals people meet; empty for the others.
fn signal_name(number: i32) -> &'static str {
    match number {
        1 => " (SIGHUP)",
        2 => " (SIGINT)",
        3 => " (SIGQUIT)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        9 => " (SIGKILL)",
        11 => " (SIGSEGV)",
        13 => " (SIGPIPE)",
        15 => " (SIGTERM)",
        _ => "",
    }
}

/// Takes over a process that somebody (an earlier run of the agent) started. `None` when it no longer runs, or when its
/// pid belongs to another process now. Must be called inside a tokio runtime.
pub fn adopt(id: ProcessId) -> Option<Process> {
    // First the pidfd, then the check: were the pid reused in between, the start time read afterwards would tell.
    let pidfd = open_pidfd(id.pid).ok()?;
    let facts = facts_of(id.pid)?;
    if facts.id != id || facts.is_dead() {
        return None;
    }
    Process::watch(id, pidfd).ok()
}

fn open_pidfd(pid: i32) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::other("a process id is positive"))?;
    Ok(pidfd_open(pid, PidfdFlags::NONBLOCK)?)
}

impl Process {
    /// Pid and start time.
    pub fn id(&self) -> ProcessId {
        self.id
    }

    /// Sends a signal to exactly this process, never to a later one with the same pid (`pidfd_send_signal(2)`).
    ///
    /// # Errors
    /// When it is gone (ESRCH) or is not ours to signal (EPERM).
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(pidfd_send_signal(self.pidfd.as_fd(), signal)?)
    }

    /// Sends a signal to this process and to every other process of its session: what it started and did not itself
    /// put into a session of its own. Returns how many were reached.
    pub fn signal_session(&self, signal: Signal) -> usize {
        let own = usize::from(self.signal(signal).is_ok());
        own + session_of(self.id).iter().filter(|&&member| signal_process(member, signal)).count()
    }

    /// Kills this process at once, and right after it the others of its session, on a thread of its own: finding them
    /// means reading all of `/proc`, which takes milliseconds. The result comes when all were signalled.
    pub fn kill_session(&self) -> tokio::sync::oneshot::Receiver<usize> {
        // An error means that it has ended; its session may have outlived it.
        let _ = self.signal(Signal::KILL);
        let process = self.clone();
        crate::disposable::start("kill session", move || process.signal_session(Signal::KILL)).unwrap_or_else(
            |_| {
                let (sender, receiver) = tokio::sync::oneshot::channel();
                // No more threads: then here and now.
                let _ = sender.send(self.signal_session(Signal::KILL));
                receiver
            },
        )
    }

    /// Whether it runs: not ended, and not a zombie that waits for its parent.
    pub fn is_alive(&self) -> bool {
        if self.exit.borrow().is_some() {
            return false;
        }
        facts_of(self.id.pid).is_some_and(|facts| facts.id == self.id && !facts.is_dead())
    }

    /// How it ended, if it has. Known a moment after the end; use [`Process::exited`] to wait.
    pub fn exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Waits for its end, which is seen at once (the pidfd becomes readable).
    pub async fn exited(&self) -> Exit {
        let mut exit = self.exit.clone();
        // Copied out at once: the guard that the channel lends must not be held while waiting.
        match exit.wait_for(Option::is_some).await.map(|exit| *exit) {
            Ok(exit) => exit.unwrap_or(Exit::Unknown),
            // The runtime that watched is shutting down: nothing more will be known.
            Err(_) => std::future::pending().await,
        }
    }

    /// Watches `pidfd` in the background and reaps the process when it is our child.
    fn watch(id: ProcessId, pidfd: OwnedFd) -> io::Result<Self> {
        let runtime = tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
        let _inside = runtime.enter();
        let pidfd = Arc::new(pidfd);
        let readable = crate::sys::wait_readable(Arc::clone(&pidfd))?;
        let (sender, exit) = watch::channel(None);
        runtime.spawn(async move {
            // An error means that the runtime's driver is gone: the process lives on unwatched.
            if readable.readable().await.is_ok() {
                sender.send_replace(Some(reap(readable.get_ref().as_fd())));
            }
        });
        Ok(Self { id, pidfd, exit })
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Process({}, {:?})", self.id, self.exit())
    }
}

/// Collects the exit status of an ended child, which also removes the zombie.
fn reap(pidfd: std::os::fd::BorrowedFd<'_>) -> Exit {
    match waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
        Ok(Some(status)) => Exit::from_status(&status),
        // ECHILD: not our child (adopted), or somebody else reaped it.
        Ok(None) | Err(_) => Exit::Unknown,
    }
}

/// Signals exactly the process `id`; whether it was reached.
pub fn signal_process(id: ProcessId, signal: Signal) -> bool {
    let Ok(pidfd) = open_pidfd(id.pid) else { return false };
    facts_of(id.pid).is_some_and(|facts| facts.id == id) && pidfd_send_signal(pidfd, signal).is_ok()
}
