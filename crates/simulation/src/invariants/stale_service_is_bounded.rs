//! No member can be reached as a primary for longer than a lease after another one was elected for a higher term.
//!
//! Not: after that term began. A member whose disk hangs has not promised the term yet, so its word still keeps the former
//! primary's gate open; but without its promise nobody is elected, and there is nothing newer to be read anywhere.

use std::time::Duration;

use decide::view::LEASE;

use crate::postgres::Process;
use crate::world::World;

/// The time one step of the simulation may take, and what a slow clock adds to a lease.
const SLACK: Duration = Duration::from_millis(5);

pub(crate) fn broken(world: &World) -> Option<String> {
    let now = world.agenda.now();
    let record = &world.store.leadership.as_ref()?.value;
    world.machines.iter().enumerate().find_map(|(node, machine)| {
        let led = machine.durable.led?;
        let serves = machine.up && machine.postgres.process == Process::Primary && world.gate_is_open(node);
        let since = *world.elected_at.range(led.next()..).next()?.1;
        (serves && led < record.term && now.since(since) > LEASE + SLACK).then(|| {
            format!(
                "{} can still be reached as the primary of term {led} {} ms after another was elected, in term {}",
                machine.name,
                now.since(since).as_millis(),
                record.term
            )
        })
    })
}
