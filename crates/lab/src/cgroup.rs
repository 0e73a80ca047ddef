//! Control groups of nodes (cgroups(7)): what the kernel counts, limits and stops for all processes of a node at once. Each
//! controller is taken from cgroup v2 where it is there, else from its own v1 hierarchy.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use effects::process::ProcessId;
use model::{NodeName, SystemName};

use crate::error::{LabError, Result};
use crate::process;

/// How long the kernel may take to let a group go, and a node to hold still while it is moved.
const GROUP_LIMIT: Duration = Duration::from_secs(2);

/// What a group is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Controller {
    /// Stopping and letting go on.
    Freezer,
    /// Shares and quotas of processors.
    Cpu,
    /// Limits of memory.
    Memory,
    /// Numbers of processes.
    Pids,
}

/// Which of the kernel's two interfaces a group belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// One hierarchy for all controllers.
    V2,
    /// A hierarchy per controller.
    V1,
}

/// The control group of one node for one controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    controller: Controller,
    version: Version,
    root: PathBuf,
    path: PathBuf,
}

impl Controller {
    const ALL: [Self; 4] = [Self::Freezer, Self::Cpu, Self::Memory, Self::Pids];

    const fn name(self) -> &'static str {
        match self {
            Self::Freezer => "freezer",
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Pids => "pids",
        }
    }

    /// The file by which the group rules: without it the controller is not there.
    pub(crate) const fn switch(self, version: Version) -> &'static str {
        match (self, version) {
            (Self::Freezer, Version::V2) => "cgroup.freeze",
            (Self::Freezer, Version::V1) => "freezer.state",
            (Self::Cpu, Version::V2) => "cpu.max",
            (Self::Cpu, Version::V1) => "cpu.cfs_quota_us",
            (Self::Memory, Version::V2) => "memory.max",
            (Self::Memory, Version::V1) => "memory.limit_in_bytes",
            (Self::Pids, Version::V1 | Version::V2) => "pids.max",
        }
    }
}

impl Group {
    /// The node's group, made when it does not exist; `None` where this process may not make any, or the kernel has no such
    /// controller.
    pub(crate) fn create(controller: Controller, system: &SystemName, node: &NodeName) -> Option<Self> {
        candidates(controller, &name(system, node)).into_iter().find(|group| {
            let made = fs::create_dir(&group.path);
            let is_new = made.is_ok();
            let there = made.is_ok() || made.is_err_and(|e| e.kind() == io::ErrorKind::AlreadyExists);
            if there && group.version == Version::V2 && controller != Controller::Freezer {
                // Groups below the root have what the root hands down.
                let _ =
                    fs::write(group.root.join("cgroup.subtree_control"), format!("+{}", controller.name()));
            }
            let is_there = there && group.is_there();
            if is_new && !is_there {
                // The controller is had from the other interface.
                let _ = fs::remove_dir(&group.path);
            }
            is_there
        })
    }

    /// The node's group when there is one.
    pub(crate) fn find(controller: Controller, system: &SystemName, node: &NodeName) -> Option<Self> {
        candidates(controller, &name(system, node)).into_iter().find(Self::is_there)
    }

    /// All groups of a system's nodes, for whatever they are.
    pub(crate) fn all(system: &SystemName) -> Vec<Self> {
        let prefix = format!("mainstay-lab.{system}.");
        let found = Controller::ALL.into_iter().flat_map(|controller| {
            roots(controller).into_iter().flat_map(move |(version, root)| {
                let entries = fs::read_dir(&root).into_iter().flatten().flatten();
                let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
                names.map(move |name| Self { controller, version, path: root.join(name), root: root.clone() })
            })
        });
        let ours = |group: &Self| {
            group.path.file_name().and_then(|name| name.to_str()).is_some_and(|n| n.starts_with(&prefix))
        };
        let mut paths = BTreeSet::new();
        found.filter(ours).filter(|group| paths.insert(group.path.clone())).collect()
    }

    /// All groups of one node, for whatever they are.
    pub(crate) fn of_node(system: &SystemName, node: &NodeName) -> Vec<Self> {
        let name = name(system, node);
        Self::all(system).into_iter().filter(|group| group.path.ends_with(&name)).collect()
    }

    /// Whether the group was found for this controller.
    pub(crate) fn is_for(&self, controller: Controller) -> bool {
        self.controller == controller
    }

    /// The file through which a process joins: it writes `0`.
    pub(crate) fn door(&self) -> io::Result<File> {
        OpenOptions::new().write(true).open(self.path.join("cgroup.procs"))
    }

    /// Which interface it belongs to.
    pub(crate) const fn version(&self) -> Version {
        self.version
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// How many processes are in the group and the groups below it.
    pub(crate) fn processes(&self) -> usize {
        members(&self.path).len()
    }

    /// Reads one of its files; nothing where it cannot be read.
    pub(crate) fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path.join(file)).unwrap_or_default()
    }

    /// Writes one of its files.
    pub(crate) fn write(&self, file: &str, value: &str) -> Result<()> {
        let path = self.path.join(file);
        fs::write(&path, value).map_err(LabError::file("writing", &path))
    }

    /// A number from a file of lines `NAME NUMBER`; 0 where it is not told.
    pub(crate) fn counter(&self, file: &str, name: &str) -> u64 {
        let text = self.read(file);
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
    }

    /// Takes in all processes that `find` returns, again and again until none is left outside: one may be born meanwhile.
    pub(crate) fn take_in(&self, find: impl Fn() -> Vec<ProcessId>) -> Result<usize> {
        let outside = || {
            let inside = members(&self.path);
            let all = find();
            let left: Vec<i32> = all.iter().map(|p| p.pid).filter(|pid| !inside.contains(pid)).collect();
            left
        };
        let moved = process::wait_until(GROUP_LIMIT, || {
            let left = outside();
            for pid in &left {
                // It may have ended.
                let _ = fs::write(self.path.join("cgroup.procs"), pid.to_string());
            }
            left.is_empty()
        });
        if moved {
            return Ok(self.processes());
        }
        let seen = format!("{} processes are still outside", outside().len());
        let what = format!("moving processes into {}", self.path.display());
        Err(LabError::Late { what, within: GROUP_LIMIT, seen })
    }

    /// Gives its processes back to the group this process is in, and removes it. Only for groups that nothing else needs.
    pub(crate) fn dissolve(&self) -> Result<()> {
        let home = self.root.join(own_group(self.controller).trim_start_matches('/'));
        let emptied = process::wait_until(GROUP_LIMIT, || {
            for pid in members(&self.path) {
                let _ = fs::write(home.join("cgroup.procs"), pid.to_string());
            }
            self.processes() == 0
        });
        if emptied {
            return self.remove();
        }
        let what = format!("emptying {}", self.path.display());
        Err(LabError::Late { what, within: GROUP_LIMIT, seen: format!("{} are in it", self.processes()) })
    }

    /// Removes the group with those below it. The kernel refuses while it has processes.
    pub(crate) fn remove(&self) -> Result<()> {
        let gone = || remove_tree(&self.path).is_ok();
        if process::wait_until(GROUP_LIMIT, gone) {
            return Ok(());
        }
        remove_tree(&self.path).map_err(LabError::file("removing", &self.path))
    }

    fn is_there(&self) -> bool {
        self.path.join(self.controller.switch(self.version)).exists()
    }
}

fn name(system: &SystemName, node: &NodeName) -> String {
    format!("mainstay-lab.{system}.{node}")
}

/// Where the controller may be had, the better one first.
pub(crate) fn candidates(controller: Controller, name: &str) -> Vec<Group> {
    let group =
        |(version, root): (Version, PathBuf)| Group { controller, version, path: root.join(name), root };
    roots(controller).into_iter().map(group).collect()
}

fn roots(controller: Controller) -> Vec<(Version, PathBuf)> {
    let v2 = mounted("cgroup2", "").map(|root| (Version::V2, root));
    let v1 = mounted("cgroup", controller.name()).map(|root| (Version::V1, root));
    v2.into_iter().chain(v1).collect()
}

/// Where a hierarchy is mounted (`/proc/self/mountinfo`, proc(5)): by type and, for v1, by controller.
fn mounted(kind: &str, controller: &str) -> Option<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").ok()?;
    text.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut right = right.split(' ');
        let matches = right.next()? == kind
            && (controller.is_empty() || right.nth(1)?.split(',').any(|option| option == controller));
        matches.then(|| left.split(' ').nth(4).map(PathBuf::from))?
    })
}

/// The group of this process in a v1 hierarchy (`/proc/self/cgroup`, cgroups(7)).
fn own_group(controller: Controller) -> String {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = text.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let names = parts.next()?;
        names.split(',').any(|name| name == controller.name()).then(|| parts.next().map(str::to_owned))?
    });
    own.unwrap_or_default()
}

/// The processes of a group and the groups below it.
fn members(group: &Path) -> BTreeSet<i32> {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let mut all: BTreeSet<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    for child in below(group) {
        all.extend(members(&child));
    }
    all
}

fn below(group: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(group).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir())).map(|entry| entry.path()).collect()
}

fn remove_tree(group: &Path) -> io::Result<()> {
    for child in below(group) {
        remove_tree(&child)?;
    }
    match fs::remove_dir(group) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn processes_are_taken_in_counted_and_given_back() {
        let system = SystemName::new(format!("group-{}", std::process::id()));
        let group = Group::create(Controller::Pids, &system, &NodeName::new("e1"));
        let group = group.unwrap_or_else(|| panic!("this test needs root and the controller of processes"));
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let id = process::of_child(&child).unwrap();
        assert_eq!(group.take_in(|| vec![id]).unwrap(), 1);
        assert_eq!(group.read("pids.current").trim(), "1");
        assert_eq!(group.counter("pids.events", "max"), 0);
        assert_eq!(Group::find(Controller::Pids, &system, &NodeName::new("e1")), Some(group.clone()));
        assert!(Group::all(&system).contains(&group));
        match group.version() {
            Version::V1 => group.dissolve().unwrap(),
            Version::V2 => {
                child.kill().unwrap();
                child.wait().unwrap();
                group.remove().unwrap();
            }
        }
        assert_eq!(Group::all(&system), []);
        assert!(group.version() == Version::V2 || process::is_alive(id), "what was given back lives on");
        let _ = child.kill();
        child.wait().unwrap();
    }
}
