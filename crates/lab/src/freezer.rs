//! Freezing all processes of a node at once with the kernel's freezer: cgroup v2 (`cgroup.freeze`) where there is one, else
//! the v1 controller (`freezer.state`).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::{NodeName, SystemName};

use crate::error::{LabError, Result};
use crate::process;

/// The control group of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Freezer {
    /// Kernel 5.2 and later; killing works on the frozen.
    V2(PathBuf),
    /// The older hierarchy; the killed end when they are thawed.
    V1(PathBuf),
}

impl Freezer {
    /// The node's group, made when it does not exist; `None` where this process may not make any.
    pub(crate) fn create(system: &SystemName, node: &NodeName) -> Option<Self> {
        let group = group(system, node);
        let make = |freezer: Self| {
            let made = fs::create_dir(freezer.path());
            let there = made.is_ok() || made.is_err_and(|e| e.kind() == io::ErrorKind::AlreadyExists);
            (there && freezer.switch().exists()).then_some(freezer)
        };
        let v2 = mounted("cgroup2", "").and_then(|root| make(Self::V2(root.join(&group))));
        v2.or_else(|| mounted("cgroup", "freezer").and_then(|root| make(Self::V1(root.join(&group)))))
    }

    /// The node's group when there is one.
    pub(crate) fn find(system: &SystemName, node: &NodeName) -> Option<Self> {
        let group = group(system, node);
        let v2 = mounted("cgroup2", "").map(|root| Self::V2(root.join(&group)));
        let v1 = mounted("cgroup", "freezer").map(|root| Self::V1(root.join(&group)));
        v2.into_iter().chain(v1).find(|freezer| freezer.switch().exists())
    }

    /// All groups of a system's nodes.
    pub(crate) fn all(system: &SystemName) -> Vec<Self> {
        let prefix = format!("mainstay-lab.{system}.");
        let in_root = |root: PathBuf| {
            let entries = fs::read_dir(root).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).collect::<Vec<_>>()
        };
        let ours = |path: &PathBuf| {
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(&prefix))
        };
        let v2 = mounted("cgroup2", "").map(in_root).unwrap_or_default();
        let v1 = mounted("cgroup", "freezer").map(in_root).unwrap_or_default();
        let v2 = v2.into_iter().filter(ours).map(Self::V2);
        v2.chain(v1.into_iter().filter(ours).map(Self::V1)).collect()
    }

    /// The file through which a process joins: it writes `0`.
    pub(crate) fn door(&self) -> io::Result<File> {
        OpenOptions::new().write(true).open(self.path().join("cgroup.procs"))
    }

    /// Stops every process of the group and waits until the kernel says that all of them stand still.
    pub(crate) fn freeze(&self, within: Duration) -> Result<usize> {
        self.order(true)?;
        if process::wait_until(within, || self.is_frozen()) {
            return Ok(self.processes());
        }
        let seen = format!("the kernel could not stop all of its {} processes", self.processes());
        Err(LabError::Late { what: format!("freezing {}", self.path().display()), within, seen })
    }

    /// Lets them go on.
    pub(crate) fn thaw(&self) -> Result<()> {
        self.order(false)
    }

    /// Whether every process of the group stands still.
    pub(crate) fn is_frozen(&self) -> bool {
        match self {
            Self::V2(path) => fs::read_to_string(path.join("cgroup.events"))
                .is_ok_and(|text| text.lines().any(|line| line == "frozen 1")),
            Self::V1(path) => {
                fs::read_to_string(path.join("freezer.state")).is_ok_and(|text| text.trim() == "FROZEN")
            }
        }
    }

    /// How many processes are in the group and the groups below it.
    pub(crate) fn processes(&self) -> usize {
        count(self.path())
    }

    /// Removes the group with those below it. The kernel refuses while it has processes.
    pub(crate) fn remove(&self) -> Result<()> {
        let gone = || remove_tree(self.path()).is_ok();
        if process::wait_until(Duration::from_secs(2), gone) {
            return Ok(());
        }
        remove_tree(self.path()).map_err(LabError::file("removing", self.path()))
    }

    fn path(&self) -> &Path {
        match self {
            Self::V2(path) | Self::V1(path) => path,
        }
    }

    fn switch(&self) -> PathBuf {
        match self {
            Self::V2(path) => path.join("cgroup.freeze"),
            Self::V1(path) => path.join("freezer.state"),
        }
    }

    fn order(&self, freeze: bool) -> Result<()> {
        let word = match (self, freeze) {
            (Self::V2(_), true) => "1",
            (Self::V2(_), false) => "0",
            (Self::V1(_), true) => "FROZEN",
            (Self::V1(_), false) => "THAWED",
        };
        fs::write(self.switch(), word).map_err(LabError::file("writing", &self.switch()))
    }
}

fn group(system: &SystemName, node: &NodeName) -> String {
    format!("mainstay-lab.{system}.{node}")
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

fn count(group: &Path) -> usize {
    let own = fs::read_to_string(group.join("cgroup.procs")).map_or(0, |text| text.lines().count());
    own + below(group).iter().map(|path| count(path)).sum::<usize>()
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

    /// Freezes and thaws a real process in the group.
    fn stands_still_and_goes_on(freezer: &Freezer) {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        fs::write(freezer.path().join("cgroup.procs"), child.id().to_string()).unwrap();
        assert_eq!(freezer.freeze(Duration::from_secs(5)).unwrap(), 1);
        assert!(freezer.is_frozen());
        freezer.thaw().unwrap();
        assert!(process::wait_until(Duration::from_secs(5), || !freezer.is_frozen()));
        child.kill().unwrap();
        child.wait().unwrap();
        freezer.remove().unwrap();
        assert!(!freezer.path().exists());
    }

    #[test]
    fn both_kinds_of_freezer_work_where_the_kernel_has_them() {
        let system = SystemName::new(format!("freezer-{}", std::process::id()));
        let name = group(&system, &NodeName::new("e1"));
        let v2 = mounted("cgroup2", "").map(|root| Freezer::V2(root.join(&name)));
        let v1 = mounted("cgroup", "freezer").map(|root| Freezer::V1(root.join(&name)));
        let there: Vec<Freezer> = v2.into_iter().chain(v1).collect();
        assert!(
            !there.is_empty(),
            "this test needs a cgroup hierarchy with a freezer, as every systemd machine has it"
        );
        for freezer in there {
            assert!(fs::create_dir(freezer.path()).is_ok(), "this test makes control groups and needs root");
            stands_still_and_goes_on(&freezer);
        }
    }
}
