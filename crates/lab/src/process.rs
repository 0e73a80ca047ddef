//! What the lab asks of processes beyond their identity: where they are, whom they descend from, and that they are dead.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use effects::process::{ProcessFacts, ProcessId, Signal, facts_of, processes_of, signal_process};

use crate::error::{LabError, Result};

/// `PF_EXITING` (`linux/sched.h`).
const EXITING: u64 = 0x4;

/// This process.
pub(crate) fn me() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

/// Whether it still runs (frozen and stopped processes do, zombies do not).
pub(crate) fn is_alive(process: ProcessId) -> bool {
    facts_of(process.pid).is_some_and(|facts| facts.id == process && !is_dead(&facts))
}

/// Whether nothing of it will ever run again. The first process of a PID namespace, when killed, sleeps in its exit until the
/// parents of all others in it, who may be outside, have collected them: it is dead already then.
fn is_dead(facts: &ProcessFacts) -> bool {
    facts.is_dead()
        || (facts.state == 'S' && stat_field(facts.id.pid, 9).is_some_and(|flags| flags & EXITING != 0))
}

/// The identity of a child that was just started.
pub(crate) fn of_child(child: &std::process::Child) -> Option<ProcessId> {
    ProcessId::of(i32::try_from(child.id()).ok()?)
}

/// Waits until it has ended; `false` when it still runs after `within`.
pub(crate) fn wait_gone(process: ProcessId, within: Duration) -> bool {
    wait_until(within, || !is_alive(process))
}

/// Whether it has been stopped with SIGSTOP.
pub(crate) fn is_stopped(process: ProcessId) -> bool {
    facts_of(process.pid).is_some_and(|facts| facts.id == process && facts.state == 'T')
}

/// All living processes that `wanted` accepts, this one excepted.
pub(crate) fn matching(wanted: impl Fn(&ProcessFacts) -> bool) -> Vec<ProcessId> {
    let me = me();
    let found = processes_of(|facts| facts.id.pid != me && !is_dead(facts) && wanted(facts));
    found.into_iter().map(|facts| facts.id).collect()
}

/// The inode of a namespace of a process, for example `net` or `pid`.
pub(crate) fn namespace(pid: i32, kind: &str) -> Option<u64> {
    fs::metadata(format!("/proc/{pid}/ns/{kind}")).ok().map(|m| m.ino())
}

/// All living descendants of a process, nearest first.
pub(crate) fn descendants(ancestor: i32) -> Vec<ProcessId> {
    let mut children: BTreeMap<i32, Vec<ProcessFacts>> = BTreeMap::new();
    for facts in processes_of(|_| true) {
        children.entry(facts.parent).or_default().push(facts);
    }
    let mut found = Vec::new();
    let mut waiting = vec![ancestor];
    while let Some(parent) = waiting.pop() {
        for facts in children.remove(&parent).into_iter().flatten() {
            waiting.push(facts.id.pid);
            if !is_dead(&facts) {
                found.push(facts.id);
            }
        }
    }
    found
}

/// A process with all its living descendants.
pub(crate) fn family(first: ProcessId) -> Vec<ProcessId> {
    std::iter::once(first).chain(descendants(first.pid)).collect()
}

/// The process itself and those that it descends from.
pub(crate) fn ancestors(pid: i32) -> BTreeSet<i32> {
    let mut line = BTreeSet::new();
    let mut next = Some(pid);
    while let Some(pid) = next.filter(|pid| *pid != 0 && line.insert(*pid)) {
        next = facts_of(pid).map(|facts| facts.parent);
    }
    line
}

/// The number a process has in its own, innermost PID namespace (`NSpid` in proc(5)).
pub(crate) fn inner_pid(pid: i32) -> Option<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_ascii_whitespace().last()?.parse().ok()
}

/// Whether a process has a terminal that a person could sit at.
pub(crate) fn has_terminal(pid: i32) -> bool {
    stat_field(pid, 7).is_some_and(|terminal| terminal != 0)
}

/// Processor time a process has used, in the kernel's ticks (`utime` and `stime` in proc(5)).
pub(crate) fn processor_ticks(pid: i32) -> u64 {
    [14, 15].into_iter().filter_map(|place| stat_field(pid, place)).sum()
}

/// How many sockets a process has open.
pub(crate) fn connections(pid: i32) -> usize {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let is_socket = |to: PathBuf| to.to_string_lossy().starts_with("socket:");
    open.filter(|entry| fs::read_link(entry.path()).is_ok_and(is_socket)).count()
}

/// What a person calls the process: number and program.
pub(crate) fn describe(pid: i32) -> String {
    let name = facts_of(pid).map(|facts| facts.name).unwrap_or_default();
    format!("process {pid} ({name})")
}

/// Kills everything that `find` returns, again and again until it returns nothing; how many that were.
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
            return Err(LabError::Late { what: format!("the end of {what}"), within, seen: names(&left) });
        }
        for process in left {
            killed.insert(process);
            // One that may not be signalled shows up again in the next round and in the error.
            signal_process(process, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What a person calls several processes.
pub(crate) fn names(processes: &[ProcessId]) -> String {
    processes.iter().map(|process| describe(process.pid)).collect::<Vec<_>>().join(", ")
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

/// The identity of this boot of the machine: process records of another are void.
pub(crate) fn boot() -> String {
    effects::clock::boot_id().unwrap_or_default()
}

/// A number of `/proc/PID/stat` by its place in proc(5), of those behind the name.
fn stat_field(pid: i32, place: usize) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in brackets and may itself hold brackets and blanks.
    let behind = text.get(text.rfind(')')? + 1..)?;
    behind.split_ascii_whitespace().nth(place - 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_zombie_counts_as_dead() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let id = of_child(&child).unwrap();
        assert!(is_alive(id) && descendants(me()).contains(&id) && ancestors(id.pid).contains(&me()));
        assert!(!is_alive(ProcessId { start_ticks: id.start_ticks + 1, ..id }));
        assert_eq!(
            kill_all("a child", Duration::from_secs(5), || family(id)
                .into_iter()
                .filter(|p| is_alive(*p))
                .collect())
            .unwrap(),
            1
        );
        assert!(wait_gone(id, Duration::from_secs(5)));
        child.wait().unwrap();
    }
}
