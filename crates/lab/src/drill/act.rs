//! A drill's steps as faults of the lab.

use std::thread;
use std::time::Duration;

use model::{DatabaseName, NodeName};

use super::step::Step;
use crate::error::{LabError, Result};
use crate::fault::{CutOptions, Evidence, Target};
use crate::lab::Lab;

/// When a fault ends by itself although nobody took it back: longer than any drill waits.
const EXPIRES: Duration = Duration::from_secs(180);

/// When a hung disk ends by itself: long enough for every objective, and short, because nothing that writes there can be
/// killed before.
const DISK_EXPIRES: Duration = Duration::from_secs(60);

/// How long clients write to a separated node before it is struck again: shorter than others take to judge it silent and
/// to wait for its lease.
const SEPARATED: Duration = Duration::from_millis(300);

/// Does one step and says what was seen of it. It waits for processes and files: not for a thread of an async runtime.
///
/// What lasts ends by itself, also when this process dies: by the kernel's clock, or by a guard process that
/// [`Lab::dismiss_guards`] ends once everything is taken back.
///
/// # Errors
/// Those of the faults, and [`LabError::NotPossible`] for what is asked of the system and not done to it.
pub fn act(lab: &mut Lab, database: &DatabaseName, step: &Step) -> Result<String> {
    // A cut ends by the kernel's clock, a hung disk by a guard of its own.
    let ends_by_itself = matches!(step, Step::CutNode(_) | Step::SeparateNode(_) | Step::HangDisk(_));
    let undo = step.undo();
    if !undo.is_empty() && !ends_by_itself {
        lab.set_guard(database, &undo, EXPIRES)?;
    }
    evidence(lab, database, step).map(|evidence| evidence.to_string())
}

fn evidence(lab: &mut Lab, database: &DatabaseName, step: &Step) -> Result<Evidence> {
    let postmaster = || Target::Postmaster(database.clone());
    match step {
        Step::KillPostmaster(node) => lab.kill_process(node, &postmaster()),
        Step::HangPostmaster(node) => lab.hang_process(node, &postmaster()).map(|(_, evidence)| evidence),
        Step::ResumePostmaster(node) => lab.resume(node, &postmaster()),
        Step::KillAgent(node) => lab.kill_process(node, &Target::Agent),
        Step::HangAgent(node) => lab.hang_process(node, &Target::Agent).map(|(_, evidence)| evidence),
        Step::ResumeAgent(node) => lab.resume(node, &Target::Agent),
        Step::CutProxy(node) => lab.cut_proxy(node),
        Step::KillNode(node) => lab.kill_node(node),
        Step::KillNodes(nodes) => lab.kill_nodes(nodes),
        Step::StartNode(node) => lab.start_node(node),
        Step::FreezeNode(node) => lab.freeze_node(node, true),
        Step::ThawNode(node) => lab.thaw_node(node),
        Step::CutNode(node) => lab.cut_node(node, &CutOptions::whole().lasting(EXPIRES)),
        Step::SeparateNode(node) => separate(lab, node),
        Step::HealNode(node) => lab.heal_node(node),
        Step::FillDisk(node) => lab.fill_volume(node),
        Step::FreeDisk(node) => lab.unfill_volume(node),
        Step::HangDisk(node) => lab.freeze_volume(node, DISK_EXPIRES).map(|(_, evidence)| evidence),
        Step::ThawDisk(node) => lab.thaw_volume(node),
        Step::Switchover(_) | Step::HandTo(_) | Step::AskStatus => Err(LabError::NotPossible {
            what: format!("to {step}"),
            why: "the lab injects faults; this is asked of the system".to_owned(),
        }),
    }
}

/// Cuts a node from every other one and gives clients time to write to it.
fn separate(lab: &Lab, node: &NodeName) -> Result<Evidence> {
    let evidence = lab.separate_node(node, EXPIRES)?;
    thread::sleep(SEPARATED);
    Ok(evidence)
}
