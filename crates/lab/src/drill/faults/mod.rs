//! The catalogue of faults, a file per layer: single acts with the means by which they are done, and the drills made of them.

mod clock;
mod disk;
mod network;
mod node;
mod operator;
mod process;
mod resources;
mod site;

pub(super) use network::apart::PART;
pub(super) use network::flaws::LEAK;
pub(super) use network::flaws::LOSE;
pub(super) use network::flaws::NARROW;
pub(super) use network::{CUT_NODE, HEAL_NODE, MUTE, SEPARATE};
pub(super) use node::{FREEZE_NODE, KILL_NODE, START_NODE};
pub(super) use operator::END_REPLICATION;
pub(super) use process::{HANG_AGENT, KILL_AGENT, KILL_POSTMASTER};

use super::act::Act;
use super::catalogue::Drill;

/// Every act.
pub(super) fn acts() -> impl Iterator<Item = &'static Act> {
    let layers = [
        process::ACTS,
        node::ACTS,
        disk::ACTS,
        resources::ACTS,
        clock::ACTS,
        network::ACTS,
        site::ACTS,
        operator::ACTS,
    ];
    layers.concat().into_iter()
}

/// Every drill.
pub(super) fn drills() -> impl Iterator<Item = &'static Drill> {
    let layers = [
        process::DRILLS,
        node::DRILLS,
        disk::DRILLS,
        resources::DRILLS,
        clock::DRILLS,
        network::DRILLS,
        network::apart::DRILLS,
        network::flapping::DRILLS,
        network::flaws::DRILLS,
        network::slow::DRILLS,
        site::DRILLS,
        operator::DRILLS,
    ];
    layers.into_iter().flatten()
}
