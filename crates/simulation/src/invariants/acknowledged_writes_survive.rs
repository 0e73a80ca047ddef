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
        "write {} was acknowledged by {} and is not on {}",
        missing.write, world.machines[missing.node].name, primary.name
    ))
}

/// Who holds the log in which the newest write was acknowledged holds all that were acknowledged before: that was so of
/// the member that acknowledged it.
fn lost(world: &World, machine: &Machine) -> Option<String> {
    let newest = world.client.acknowledged.last()?;
    let (length, digest) = newest.log;
    (machine.postgres.digest_at(length) != Some(digest)).then(|| {
        format!(
            "write {} was acknowledged by {} in term {} and is not on {}, the primary",
            newest.write, world.machines[newest.node].name, newest.term, machine.name
        )
    })
}
