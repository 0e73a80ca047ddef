//! Processes by exact identity: a number alone may have been given to somebody else in the meantime.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::error::{LabError, Result};

/// `PF_EXITING` (`linux/sched.h`).
const EXITING: u32 = 0x4;

/// A process of this boot: its number and when it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    /// Number as the machine's own PID namespace has it.
    pub pid: u32,
    /// Start, in clock ticks since boot (`/proc/PID/stat`, field 22; see proc(5)).
    pub started: u64,
}

/// What `/proc/PID/stat` says, as far as it is needed here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stat {
    pub(crate) state: char,
    pub(crate) parent: u32,
    /// Device number of the controlling terminal; 0 without one.
    pub(crate) terminal: i64,
    /// `PF_` flags of the kernel.
    flags: u32,
    pub(crate) started: u64,
}

impl ProcessId {
    /// The process that has this number now; `None` when there is none or it is already dead.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = stat(pid)?;
        (!stat.dead()).then_some(Self { pid, started: stat.started })
    }

    /// Whether it still runs (frozen and stopped processes do, zombies do not).
    pub fn is_alive(self) -> bool {
        stat(self.pid).is_some_and(|now| now.started == self.started && !now.dead())
    }

    /// Sends a signal to exactly this process; `Ok` also when it is gone already.
    pub fn signal(self, signal: Signal) -> io::Result<()> {
        let Some(number) = Pid::from_raw(self.pid.cast_signed()) else { return Ok(()) };
        let Ok(handle) = pidfd_open(number, PidfdFlags::empty()) else { return Ok(()) };
        // Checked after the handle was taken: from here on the number cannot pass to another process.
        if !self.is_alive() {
            return Ok(());
        }
        match pidfd_send_signal(&handle, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until it has ended; `false` when it still runs after `within`.
    pub fn wait_gone(self, within: Duration) -> bool {
        wait_until(within, || !self.is_alive())
    }
}

impl Stat {
    /// Whether nothing of it will ever run again. The first process of a PID namespace, when killed, sleeps in its exit until
    /// the parents of all others in it, who may be outside, have collected them: it is dead already then.
    fn dead(self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x') || (self.state == 'S' && self.flags & EXITING != 0)
    }
}

/// Reads `/proc/PID/stat`.
pub(crate) fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in brackets and may itself hold brackets and blanks.
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let terminal = fields.nth(2)?.parse().ok()?;
    let flags = fields.nth(1)?.parse().ok()?;
    let started = fields.nth(12)?.parse().ok()?;
    Some(Stat { state, parent, terminal, flags, started })
}

/// The numbers of all processes that can be seen.
pub(crate) fn all() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// All living processes that `wanted` accepts, this one excepted.
pub(crate) fn matching(wanted: impl Fn(u32) -> bool) -> Vec<ProcessId> {
    let me = std::process::id();
    all().into_iter().filter(|pid| *pid != me && wanted(*pid)).filter_map(ProcessId::of).collect()
}

/// The inode of a namespace of a process, for example `net` or `pid`.
pub(crate) fn namespace(pid: u32, kind: &str) -> Option<u64> {
    fs::metadata(format!("/proc/{pid}/ns/{kind}")).ok().map(|m| m.ino())
}

/// All living descendants of a process, nearest first.
pub(crate) fn descendants(ancestor: u32) -> Vec<ProcessId> {
    let mut children: BTreeMap<u32, Vec<(u32, Stat)>> = BTreeMap::new();
    for pid in all() {
        if let Some(stat) = stat(pid) {
            children.entry(stat.parent).or_default().push((pid, stat));
        }
    }
    let mut found = Vec::new();
    let mut seen = BTreeSet::from([ancestor]);
    let mut waiting = vec![ancestor];
    while let Some(parent) = waiting.pop() {
        for (pid, stat) in children.get(&parent).into_iter().flatten() {
            if seen.insert(*pid) {
                waiting.push(*pid);
                if !stat.dead() {
                    found.push(ProcessId { pid: *pid, started: stat.started });
                }
            }
        }
    }
    found
}

/// The process itself and those that it descends from.
pub(crate) fn ancestors(pid: u32) -> BTreeSet<u32> {
    let mut line = BTreeSet::new();
    let mut next = Some(pid);
    while let Some(pid) = next.filter(|pid| *pid != 0 && line.insert(*pid)) {
        next = stat(pid).map(|stat| stat.parent);
    }
    line
}

/// The number a process has in its own, innermost PID namespace (`NSpid` in proc(5)).
pub(crate) fn inner_pid(pid: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_ascii_whitespace().last()?.parse().ok()
}

/// Whether a process was started with `variable=value` in its environment.
pub(crate) fn has_environment(pid: u32, variable: &str, value: &str) -> bool {
    let wanted = format!("{variable}={value}");
    fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|text| text.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes()))
}

/// The working directory of a process.
pub(crate) fn working_directory(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/cwd")).ok()
}

/// What a person calls the process: number and program.
pub(crate) fn describe(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    format!("process {pid} ({})", name.trim())
}

/// Kills everything that `find` returns, again and again until it returns nothing.
///
/// # Errors
/// [`LabError::Late`] with what is left when that does not succeed within `within`, for example because a process hangs in
/// the kernel on a frozen file system.
pub(crate) fn kill_all(what: &str, within: Duration, find: impl Fn() -> Vec<ProcessId>) -> Result<usize> {
    let end = Instant::now() + within;
    let mut killed = BTreeSet::new();
    loop {
        let left = find();
        if left.is_empty() {
            return Ok(killed.len());
        }
        if Instant::now() > end {
            let seen = left.iter().map(|process| describe(process.pid)).collect::<Vec<_>>().join(", ");
            return Err(LabError::Late { what: format!("the end of {what}"), within, seen });
        }
        for process in left {
            killed.insert(process);
            // One that may not be signalled shows up again in the next round and in the error.
            let _ = process.signal(Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Asks again every few milliseconds until `done` says yes; `false` when it did not within the time.
pub(crate) fn wait_until(within: Duration, done: impl Fn() -> bool) -> bool {
    let end = Instant::now() + within;
    loop {
        if done() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The identity of this boot of the machine (`/proc/sys/kernel/random/boot_id`): process records of another are void.
pub(crate) fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_is_known_by_number_and_start() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let id = ProcessId::of(child.id()).unwrap();
        assert!(id.is_alive());
        let other = ProcessId { started: id.started + 1, ..id };
        assert!(!other.is_alive());
        other.signal(Signal::KILL).unwrap();
        assert!(id.is_alive(), "a signal to a former owner of the number must not arrive");
        assert!(descendants(std::process::id()).contains(&id));
        id.signal(Signal::KILL).unwrap();
        assert!(id.wait_gone(Duration::from_secs(5)), "a zombie counts as gone");
        child.wait().unwrap();
        assert_eq!(ProcessId::of(id.pid), None);
    }
}
