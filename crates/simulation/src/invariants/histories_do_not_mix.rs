//! Log is never received on top of another history.
//!
//! PostgreSQL compares timelines by their numbers, and two members that were promoted apart may both have made the same
//! number: a copy that holds the other one's log would take what comes for the continuation of its own.

use crate::world::World;

pub(crate) fn broken(world: &World) -> Option<String> {
    let pairs = (0..world.members).flat_map(|from| (0..world.members).map(move |to| (from, to)));
    { pairs }.find_map(|(from, to)| {
        let (source, copy) = (&world.machines[from], &world.machines[to]);
        let taken_for_its_own = world.is_connected(from, to)
            && source.postgres.timeline == copy.postgres.timeline
            && copy.postgres.log.len() <= source.postgres.flushed;
        (taken_for_its_own && !source.postgres.extends(&copy.postgres.log)).then(|| {
            format!(
                "{} receives log from {} on top of another timeline of the same number",
                copy.name, source.name
            )
        })
    })
}
