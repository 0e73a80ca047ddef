//! The steps of drills, done with the lab's faults.

use model::DatabaseName;

use super::{CutOptions, Evidence, Target};
use crate::drill::Step;
use crate::error::Result;
use crate::lab::Lab;

impl Lab {
    /// Does one step of a drill on `database`; `None` for a switchover, which is the system's own work and no fault.
    pub fn take_step(&mut self, step: &Step, database: &DatabaseName) -> Result<Option<Evidence>> {
        let done = match step {
            Step::KillPostmaster(node) => self.kill_process(node, &Target::Postmaster(database.clone())),
            Step::KillNode(node) => self.kill_node(node),
            Step::FreezeNode(node) => self.freeze_node(node, true),
            Step::CutNode(node) => self.cut_node(node, &CutOptions::whole()),
            Step::KillAgent(node) => self.kill_process(node, &Target::Agent),
            Step::StartNode(node) => self.start_node(node),
            Step::ThawNode(node) => self.thaw_node(node),
            Step::HealNode(node) => self.heal_node(node),
            Step::Switchover(_) => return Ok(None),
        };
        done.map(Some)
    }
}
