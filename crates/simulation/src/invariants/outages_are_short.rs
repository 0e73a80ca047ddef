//! Where one thing fails at a time, writes are acknowledged again within the promised time.

use std::time::Duration;

use crate::script::SAFETY_PHASE;
use crate::world::{START, World};

/// The longest outage that the system file of the simulation promises.
const RTO: Duration = Duration::from_secs(3);

/// When the database has been created, and clients have begun to write.
const SETTLED: Duration = Duration::from_secs(8);

pub(crate) fn broken(world: &World) -> Option<String> {
    let now = world.agenda.now();
    let since_start = now.since(START);
    if !world.script.single || since_start <= SETTLED || since_start >= SAFETY_PHASE {
        return None;
    }
    let last = world.client.acknowledged.last().map_or(START, |ack| ack.at);
    (now.since(last) > RTO)
        .then(|| format!("no write has been acknowledged for {} ms", now.since(last).as_millis()))
}
