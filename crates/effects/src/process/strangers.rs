//! Zombies that are nobody's business: orphans that the kernel gave to us (as pid 1 of a container, or as subreaper), and
//! children whose starter gave up.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use model::time::Moment;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::{ProcessId, children_of};

/// Children whose starter gave up waiting; reaped by [`reap_strangers`].
static ORPHANS: Mutex<Vec<OwnedFd>> = Mutex::new(Vec::new());

/// Zombie children seen by [`reap_strangers`] and since when.
static SEEN: Mutex<Option<HashMap<ProcessId, Moment>>> = Mutex::new(None);

/// How long a zombie must have waited before it counts as a stranger: whoever started it reaps it within milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// Remembers an abandoned child, so that it is reaped when it ends.
pub(super) fn adopt_orphan(pidfd: OwnedFd) {
    ORPHANS.lock().unwrap_or_else(PoisonError::into_inner).push(pidfd);
}

/// Reaps what nobody else will: abandoned children that have ended, and zombie children older than 5 s, which are
/// orphans given to us by the kernel. Call it every few seconds with the current time. Returns how many were reaped.
///
/// Cheap: one pass over `/proc`. A zombie counts as old from the first call that saw it.
pub fn reap_strangers(now: Moment) -> usize {
    reap_orphans() + reap_old_zombies(now)
}

fn reap_orphans() -> usize {
    let mut orphans = ORPHANS.lock().unwrap_or_else(PoisonError::into_inner);
    let before = orphans.len();
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    orphans.retain(|pidfd| matches!(waitid(WaitId::PidFd(pidfd.as_fd()), options), Ok(None)));
    before - orphans.len()
}

fn reap_old_zombies(now: Moment) -> usize {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let zombies = children_of(own).into_iter().filter(|facts| facts.is_dead()).map(|facts| facts.id);
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    let before = seen.take().unwrap_or_default();
    let current: HashMap<ProcessId, Moment> =
        zombies.map(|id| (id, before.get(&id).copied().unwrap_or(now))).collect();
    let (old, young): (HashMap<_, _>, HashMap<_, _>) =
        current.into_iter().partition(|(_, since)| now.since(*since) >= PATIENCE);
    *seen = Some(young);
    old.keys().filter(|id| reap_pid(id.pid)).count()
}

fn reap_pid(pid: i32) -> bool {
    let Some(pid) = Pid::from_raw(pid) else { return false };
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    matches!(waitid(WaitId::Pid(pid), options), Ok(Some(_)))
}
