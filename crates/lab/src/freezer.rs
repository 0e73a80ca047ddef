//! Freezing all processes of a node at once with the kernel's freezer: cgroup v2 (`cgroup.freeze`, kernel 5.2 and later;
//! killing works on the frozen) where there is one, else the v1 controller (`freezer.state`; the killed end when they are
//! thawed).

use std::fs::File;
use std::io;
use std::time::Duration;

use model::{NodeName, SystemName};

use crate::cgroup::{Controller, Group, Version};
use crate::error::{LabError, Result};
use crate::process;

/// The freezer of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Freezer(Group);

impl Freezer {
    /// The node's freezer, made when it does not exist; `None` where this process may not make any.
    pub(crate) fn create(system: &SystemName, node: &NodeName) -> Option<Self> {
        Group::create(Controller::Freezer, system, node).map(Self)
    }

    /// The node's freezer when there is one.
    pub(crate) fn find(system: &SystemName, node: &NodeName) -> Option<Self> {
        Group::find(Controller::Freezer, system, node).map(Self)
    }

    /// All freezers of a system's nodes.
    pub(crate) fn all(system: &SystemName) -> Vec<Self> {
        Group::all(system).into_iter().filter(|group| group.is_for(Controller::Freezer)).map(Self).collect()
    }

    /// The file through which a process joins: it writes `0`.
    pub(crate) fn door(&self) -> io::Result<File> {
        self.0.door()
    }

    /// Stops every process of the group and waits until the kernel says that all of them stand still.
    pub(crate) fn freeze(&self, within: Duration) -> Result<usize> {
        self.order(true)?;
        if process::wait_until(within, || self.is_frozen()) {
            return Ok(self.0.processes());
        }
        let seen = format!("the kernel could not stop all of its {} processes", self.0.processes());
        Err(LabError::Late { what: format!("freezing {}", self.0.path().display()), within, seen })
    }

    /// Lets them go on.
    pub(crate) fn thaw(&self) -> Result<()> {
        self.order(false)
    }

    /// Whether every process of the group stands still.
    pub(crate) fn is_frozen(&self) -> bool {
        match self.0.version() {
            Version::V2 => self.0.counter("cgroup.events", "frozen") == 1,
            Version::V1 => self.0.read("freezer.state").trim() == "FROZEN",
        }
    }

    /// Whether the killed end only when they are thawed.
    pub(crate) fn holds_the_killed(&self) -> bool {
        self.0.version() == Version::V1
    }

    fn order(&self, freeze: bool) -> Result<()> {
        let word = match (self.0.version(), freeze) {
            (Version::V2, true) => "1",
            (Version::V2, false) => "0",
            (Version::V1, true) => "FROZEN",
            (Version::V1, false) => "THAWED",
        };
        self.0.write(Controller::Freezer.switch(self.0.version()), word)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;
    use crate::cgroup::candidates;

    /// Freezes and thaws a real process in the group.
    fn stands_still_and_goes_on(freezer: &Freezer) {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        fs::write(freezer.0.path().join("cgroup.procs"), child.id().to_string()).unwrap();
        assert_eq!(freezer.freeze(Duration::from_secs(5)).unwrap(), 1);
        assert!(freezer.is_frozen());
        freezer.thaw().unwrap();
        assert!(process::wait_until(Duration::from_secs(5), || !freezer.is_frozen()));
        child.kill().unwrap();
        child.wait().unwrap();
        freezer.0.remove().unwrap();
        assert!(!freezer.0.path().exists());
    }

    #[test]
    fn both_kinds_of_freezer_work_where_the_kernel_has_them() {
        let name = format!("mainstay-lab.freezer-{}.e1", std::process::id());
        let there: Vec<Freezer> = candidates(Controller::Freezer, &name).into_iter().map(Freezer).collect();
        assert!(
            !there.is_empty(),
            "this test needs a cgroup hierarchy with a freezer, as every systemd machine has it"
        );
        for freezer in there {
            assert!(
                fs::create_dir(freezer.0.path()).is_ok(),
                "this test makes control groups and needs root"
            );
            stands_still_and_goes_on(&freezer);
        }
    }
}
