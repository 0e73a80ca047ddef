//! Every set of members whose reports allow a promotion has a member in common with every set that can acknowledge a
//! commit now, also in the middle of a change.
//!
//! Counted here by brute force over all sets of members, not with the arithmetic of the decisions.

use std::collections::BTreeSet;

use model::NodeName;
use model::leadership::SyncSet;

use crate::postgres::Process;
use crate::world::{Machine, World};

pub(crate) fn broken(world: &World) -> Option<String> {
    let record = &world.store.leadership.as_ref()?.value;
    let leads = |machine: &&Machine| {
        machine.postgres.process == Process::Primary
            && machine.durable.led == Some(record.term)
            && record.primary() == Some(&machine.name)
    };
    let primary = world.machines.iter().find(leads)?;
    let uncovered = |set: &&SyncSet| set.k > 0 && !record.sets().any(|known| known == *set);
    // Most of all the time the record names what is in force, which needs no counting beyond the arithmetic's own tests.
    let set = primary.postgres.in_force.iter().find(uncovered)?;
    let promotes = (0..1_u32 << world.members).find(|chosen| {
        let reporters = members(world, *chosen);
        let others = set.members.difference(&reporters).count();
        record.is_revoked_by(&reporters) && others >= usize::try_from(set.k).unwrap_or(usize::MAX)
    })?;
    Some(format!(
        "{} may acknowledge by {} of {set}, and reports of {:?} alone would promote another member",
        primary.name,
        set.k,
        members(world, promotes)
    ))
}

fn members(world: &World, chosen: u32) -> BTreeSet<NodeName> {
    (0..world.members)
        .filter(|node| chosen & 1 << node != 0)
        .map(|node| world.machines[node].name.clone())
        .collect()
}
