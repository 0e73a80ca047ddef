//! A drill's steps as faults of the lab.

use std::time::Duration;

use model::DatabaseName;

use super::catalogue::Step;
use crate::error::{LabError, Result};
use crate::fault::{CutOptions, Target};
use crate::lab::Lab;

/// When a cut heals by itself although nobody healed it: longer than any drill waits.
const CUT_EXPIRES: Duration = Duration::from_secs(180);

/// Does one step and says what was seen of it. It waits for processes and files: not for a thread of an async runtime.
///
/// # Errors
/// Those of the faults, and [`LabError::NotPossible`] for a switchover, which is asked of the system and not done to it.
pub fn act(lab: &mut Lab, database: &DatabaseName, step: &Step) -> Result<String> {
    let evidence = match step {
        Step::KillPostmaster(node) => lab.kill_process(node, &Target::Postmaster(database.clone())),
        Step::KillAgent(node) => lab.kill_process(node, &Target::Agent),
        Step::KillNode(node) => lab.kill_node(node),
        Step::StartNode(node) => lab.start_node(node),
        Step::FreezeNode(node) => lab.freeze_node(node, true),
        Step::ThawNode(node) => lab.thaw_node(node),
        Step::CutNode(node) => lab.cut_node(node, &CutOptions::whole().lasting(CUT_EXPIRES)),
        Step::HealNode(node) => lab.heal_node(node),
        Step::Switchover(node) => Err(LabError::NotPossible {
            what: format!("a switchover away from {node}"),
            why: "the lab injects faults; a switchover is asked of the system".to_owned(),
        }),
    };
    evidence.map(|evidence| evidence.to_string())
}
