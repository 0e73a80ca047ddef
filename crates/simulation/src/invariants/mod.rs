//! What must always be true, one file each with the sentence it holds.

mod acknowledged_writes_survive;
mod histories_do_not_mix;
mod one_acknowledges;
mod outages_are_short;
mod redundancy_returns;
mod sets_intersect;
mod settings_arrive;
mod stale_service_is_bounded;
mod writes_flow_again;

use crate::world::World;

/// A sentence that is not true.
pub(crate) struct Broken {
    /// The invariant, by the name of its file.
    pub(crate) invariant: &'static str,
    /// What was found instead.
    pub(crate) what: String,
}

type Invariant = (&'static str, fn(&World) -> Option<String>);

/// What must be true after every step.
const ALWAYS: [Invariant; 6] = [
    ("one acknowledges", one_acknowledges::broken),
    ("acknowledged writes survive", acknowledged_writes_survive::broken),
    ("histories do not mix", histories_do_not_mix::broken),
    ("sets intersect", sets_intersect::broken),
    ("stale service is bounded", stale_service_is_bounded::broken),
    ("outages are short", outages_are_short::broken),
];

/// What must be true at the end, when all has been healed for a while.
const AT_THE_END: [Invariant; 4] = [
    ("acknowledged writes survive", acknowledged_writes_survive::at_the_end),
    ("writes flow again", writes_flow_again::broken),
    ("settings arrive", settings_arrive::broken),
    ("redundancy returns", redundancy_returns::broken),
];

/// The first sentence that is broken now, if any.
pub(crate) fn broken(world: &World) -> Option<Broken> {
    first(&ALWAYS, world)
}

/// The progress that was not made by the end, if any.
pub(crate) fn not_alive(world: &World) -> Option<Broken> {
    first(&AT_THE_END, world)
}

fn first(invariants: &[Invariant], world: &World) -> Option<Broken> {
    invariants.iter().find_map(|(invariant, broken)| {
        let what = broken(world)?;
        Some(Broken { invariant, what })
    })
}
