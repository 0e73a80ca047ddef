//! After everything is healed, every member but the primary receives log from it.

use crate::postgres::Process;
use crate::world::World;

pub(crate) fn broken(world: &World) -> Option<String> {
    let primary = (0..world.members)
        .filter(|node| world.machines[*node].postgres.process == Process::Primary)
        .find(|node| world.gate_is_open(*node))?;
    let alone: Vec<String> = (0..world.members)
        .filter(|node| *node != primary && !world.streams(primary, *node))
        .map(|node| {
            let machine = &world.machines[node];
            format!("{} ({:?}, doing {:?})", machine.name, machine.postgres.process, machine.action)
        })
        .collect();
    (!alone.is_empty())
        .then(|| format!("no log reaches {} from {}", alone.join(", "), world.machines[primary].name))
}
