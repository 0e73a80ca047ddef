//! After everything is healed, writes are acknowledged again within the time allowed, and go on.

use std::time::Duration;

use crate::world::World;

/// How long before the end the last acknowledgement may lie.
const LATEST: Duration = Duration::from_secs(2);

pub(crate) fn broken(world: &World) -> Option<String> {
    let healed = world.client.healed_at?;
    let last = world.client.acknowledged.last().map(|ack| ack.at);
    let flows = last.is_some_and(|last| last > healed && world.agenda.now().since(last) < LATEST);
    (!flows).then(|| {
        let record = world.store.leadership.as_ref().map(|stored| &stored.value);
        let states: Vec<String> = world
            .machines
            .iter()
            .map(|m| {
                format!(
                    "{} {:?} at {} promised {} doing {:?}",
                    m.name,
                    m.postgres.process,
                    m.postgres.position(),
                    m.durable.promised,
                    m.action
                )
            })
            .collect();
        format!("no writes are acknowledged although everything is healed; record {record:#?}; {states:#?}")
    })
}
