//! Every acknowledged write is in the log of whoever serves as the primary.

use model::leadership::Phase;

use crate::postgres::Process;
use crate::world::{Machine, World};

/// A primary that has proved its sync set, and that the record names, holds everything acknowledged so far.
pub(crate) fn broken(world: &World) -> Option<String> {
    let record = &world.store.leadership.as_ref()?.value;
    let Phase::Led { primary } = &record.phase else { return None };
    let machine = world.machines.iter().find(|machine| machine.name == *primary)?;
    let serves = machine.postgres.process == Process::Primary && machine.durable.led == Some(record.term);
    if !serves {
        return None;
    }
    lost(world, machine)
}

/// At the end the check is complete, whatever the roles are.
pub(crate) fn at_the_end(world: &World) -> Option<String> {
    let primary = world.machines.iter().find(|machine| machine.postgres.process == Process::Primary)?;
    let holds = primary.postgres.writes();
    let missing = world.client.acknowledged.iter().find(|ack| !holds.contains(&ack.write))?;
    Some(format!(
        "write {} was acknowledged by n{} and is not on {}",
        missing.write, missing.node, primary.name
    ))
}

/// The newest acknowledged writes are looked for; older ones were looked for when they were the newest.
fn lost(world: &World, machine: &Machine) -> Option<String> {
    let newest = world.client.acknowledged.iter().rev().take(3);
    let missing = newest.into_iter().find(|ack| !machine.postgres.holds_recent(ack.write))?;
    Some(format!(
        "write {} was acknowledged by n{} in term {} and is not on {}, the primary",
        missing.write, missing.node, missing.term, machine.name
    ))
}
