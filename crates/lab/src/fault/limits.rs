//! Resources that run out: numbers of processes, processor time, memory, open files. The kernel's control groups do it for a
//! whole node (see [`crate::cgroup`]); the limit of open files is a process's own.

use std::fs;
use std::time::Duration;

use effects::clock::now;
use model::NodeName;
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::load::eat_memory;
use super::{Evidence, Target};
use crate::cgroup::{Controller, Group, Version};
use crate::error::{LabError, Result};
use crate::lab::Lab;
use crate::process;

/// How soon a limit must be felt: the kernel has counted that it refused something.
const FELT_LIMIT: Duration = Duration::from_secs(10);

/// The period in which a quota of processor time is counted, in microseconds; the kernel's own default.
const PERIOD: u32 = 100_000;

/// The files that every process has.
const STANDARD_STREAMS: u64 = 3;

impl Lab {
    /// Allows a node as many processes and threads as it has: whoever wants another one gets `EAGAIN`. Returns when somebody
    /// was refused.
    pub fn limit_processes(&self, node: &NodeName) -> Result<Evidence> {
        let begun = now();
        let group = self.gather(node, Controller::Pids)?;
        let before = group.counter("pids.events", "max");
        let count = group.read("pids.current").trim().to_owned();
        // Fewer than it has, because whoever ends would else make room for a new one.
        group.write("pids.max", "1")?;
        let refused = || group.counter("pids.events", "max") - before;
        felt("a refused process", || refused() > 0)?;
        let what = format!("{node} may have no process beyond its {count}; {} were refused", refused());
        Ok(Evidence::since(begun, what))
    }

    /// Allows a node so many hundredths of one processor. Returns when it was held back.
    pub fn limit_cpu(&self, node: &NodeName, percent: u32) -> Result<Evidence> {
        let begun = now();
        let group = self.gather(node, Controller::Cpu)?;
        let before = group.counter("cpu.stat", "nr_throttled");
        let quota = PERIOD / 100 * percent;
        match group.version() {
            Version::V2 => group.write("cpu.max", &format!("{quota} {PERIOD}"))?,
            Version::V1 => {
                group.write("cpu.cfs_period_us", &PERIOD.to_string())?;
                group.write("cpu.cfs_quota_us", &quota.to_string())?;
            }
        }
        let held = || group.counter("cpu.stat", "nr_throttled") - before;
        felt("a node that is held back", || held() > 0)?;
        let what = format!("{node} has {percent} % of a processor; it was held back {} times", held());
        Ok(Evidence::since(begun, what))
    }

    /// Allows a node so much more memory, and has a client's statement use it up, through the door (see
    /// [`Lab::use_door`]). Returns when the kernel has killed somebody for it.
    pub fn exhaust_memory(&self, node: &NodeName, bytes: u64) -> Result<Evidence> {
        let door = self.door()?.past(node);
        let begun = now();
        let group = self.gather(node, Controller::Memory)?;
        let (file, used, limit) = match group.version() {
            Version::V2 => ("memory.events", "memory.current", "memory.max"),
            Version::V1 => ("memory.oom_control", "memory.usage_in_bytes", "memory.limit_in_bytes"),
        };
        let before = group.counter(file, "oom_kill");
        let used: u64 = group.read(used).trim().parse().unwrap_or(0);
        group.write(limit, &(used + bytes).to_string())?;
        let runtime = self.client_runtime()?;
        let eater = runtime.spawn(async move { eat_memory(&door, bytes * 2).await });
        let killed = || group.counter(file, "oom_kill") - before;
        let ended = felt("a kill for want of memory", || killed() > 0);
        eater.abort();
        runtime.shutdown();
        ended?;
        let what = format!("{node} had {} MB left; the kernel killed {} for it", bytes >> 20, killed());
        Ok(Evidence::since(begun, what))
    }

    /// Takes a limit of processes back.
    pub fn free_processes(&self, node: &NodeName) -> Result<Evidence> {
        self.lift(node, Controller::Pids, |_| ("pids.max", "max"))
    }

    /// Takes a quota of processor time back.
    pub fn free_cpu(&self, node: &NodeName) -> Result<Evidence> {
        self.lift(node, Controller::Cpu, |version| match version {
            Version::V2 => ("cpu.max", "max"),
            Version::V1 => ("cpu.cfs_quota_us", "-1"),
        })
    }

    /// Takes a limit of memory back.
    pub fn free_memory(&self, node: &NodeName) -> Result<Evidence> {
        self.lift(node, Controller::Memory, |version| match version {
            Version::V2 => ("memory.max", "max"),
            Version::V1 => ("memory.limit_in_bytes", "-1"),
        })
    }

    /// Allows a process of a node no file or connection beyond those it has open (`RLIMIT_NOFILE`, getrlimit(2)).
    pub fn limit_files(&self, node: &NodeName, target: &Target) -> Result<Evidence> {
        let found = self.await_process(node, target)?;
        let begun = now();
        // What is open stays open above the limit; what is closed meanwhile makes no room below it.
        let old =
            set_files(found.pid, |old| Rlimit { current: Some(STANDARD_STREAMS), maximum: old.maximum })?;
        let old = old.current.map_or_else(|| "any number".to_owned(), |old| old.to_string());
        Ok(Evidence::since(
            begun,
            format!("{target:?} of {node} may open nothing any more (before: {old} files)"),
        ))
    }

    /// Allows the process that is `target` now as many open files as may be.
    pub fn free_files(&self, node: &NodeName, target: &Target) -> Result<Evidence> {
        let begun = now();
        let what = match self.find_process(node, target) {
            Ok(found) => {
                set_files(found.pid, |old| Rlimit { current: old.maximum, maximum: old.maximum })?;
                format!("{target:?} of {node} may open files again")
            }
            Err(LabError::NotPossible { .. } | LabError::NodeOff { .. }) => {
                format!("{target:?} of {node} is gone meanwhile")
            }
            Err(error) => return Err(error),
        };
        Ok(Evidence::since(begun, what))
    }

    /// The node's group for the controller, with all its processes in it.
    fn gather(&self, node: &NodeName, controller: Controller) -> Result<Group> {
        let init = self.init(node)?;
        let Some(group) = Group::create(controller, self.system(), node) else {
            return Err(LabError::NotPossible {
                what: format!("limiting {node}"),
                why: format!("the kernel gives no control group for it ({controller:?}), or only to root"),
            });
        };
        group.take_in(|| self.inside(node, init))?;
        Ok(group)
    }

    fn lift(
        &self,
        node: &NodeName,
        controller: Controller,
        open: fn(Version) -> (&'static str, &'static str),
    ) -> Result<Evidence> {
        let begun = now();
        let Some(group) = Group::find(controller, self.system(), node) else {
            return Ok(Evidence::since(begun, format!("{node} has no limit")));
        };
        let (file, value) = open(group.version());
        group.write(file, value)?;
        if group.version() == Version::V1 {
            // Where every controller has groups of its own, the node shares the machine again as before.
            group.dissolve()?;
        }
        Ok(Evidence::since(begun, format!("{node} has no limit any more")))
    }
}

fn felt(what: &str, happened: impl Fn() -> bool) -> Result<()> {
    match process::wait_until(FELT_LIMIT, happened) {
        true => Ok(()),
        false => Err(LabError::Late {
            what: what.to_owned(),
            within: FELT_LIMIT,
            seen: "the kernel's counter did not move".to_owned(),
        }),
    }
}

/// Changes a process's limit of open files; the one it had.
fn set_files(pid: i32, change: impl Fn(&Rlimit) -> Rlimit) -> Result<Rlimit> {
    let doing = || format!("limiting the open files of process {pid}");
    let gone = || LabError::NotPossible { what: doing(), why: "there is no such number".to_owned() };
    let process = Pid::from_raw(pid).ok_or_else(gone)?;
    let text = fs::read_to_string(format!("/proc/{pid}/limits")).map_err(LabError::io(doing))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap_or_default();
    let mut numbers = line.split_ascii_whitespace().map(|word| word.parse().ok());
    let old = Rlimit { current: numbers.next().flatten(), maximum: numbers.next().flatten() };
    prlimit(Some(process), Resource::Nofile, change(&old)).map_err(LabError::io(doing))
}
