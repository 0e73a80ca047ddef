//! The catalogue of faults, a file per layer: single acts with the means by which they are done, and the drills made of them.

mod clock;
mod disk;
mod network;
mod node;
mod operator;
mod process;
mod resources;

pub(super) use node::{KILL_NODE, START_NODE};

use super::act::Act;
use super::catalogue::Drill;

/// Every act.
pub(super) fn acts() -> impl Iterator<Item = &'static Act> {
    let layers = [process::ACTS, node::ACTS, disk::ACTS, resources::ACTS, clock::ACTS, network::ACTS];
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
        operator::DRILLS,
    ];
    layers.into_iter().flatten()
}
