//! After everything is healed, every server runs with the settings of the system file.

use crate::world::World;

pub(crate) fn broken(world: &World) -> Option<String> {
    let behind: Vec<String> = world
        .behind_the_file()
        .into_iter()
        .map(|node| {
            let machine = &world.machines[node];
            let (runs, floor) = (machine.postgres.connections, machine.postgres.floor);
            format!("{} runs with {runs}, floor {floor}, doing {:?}", machine.name, machine.action)
        })
        .collect();
    let turn = world.store.leadership.as_ref().map(|stored| &stored.value.restart);
    (!behind.is_empty())
        .then(|| format!("the file wants {}, but {}; the turn is {turn:?}", world.wanted, behind.join("; ")))
}
