//! What must always be true, one file each with the sentence it holds.

mod acknowledged_writes_survive;
mod one_acknowledges;
mod settings_arrive;
mod stale_service_is_bounded;
mod writes_flow_again;

use crate::world::World;

/// The sentence that is broken now, if any.
pub(crate) fn broken(world: &World) -> Option<String> {
    one_acknowledges::broken(world)
        .or_else(|| acknowledged_writes_survive::broken(world))
        .or_else(|| stale_service_is_bounded::broken(world))
}

/// The progress that was not made by the end, if any.
pub(crate) fn not_alive(world: &World) -> Option<String> {
    acknowledged_writes_survive::at_the_end(world)
        .or_else(|| writes_flow_again::broken(world))
        .or_else(|| settings_arrive::broken(world))
}
