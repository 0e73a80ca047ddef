//! A short script that fails, out of a long one.

use model::script::{Script, Step};

use crate::world::{Violation, World};

/// Leaves out as many faults as possible, in ever smaller groups, while the run still breaks an invariant (not always the
/// same: any that is broken is worth a look). Returns the shortest script found and how it fails.
pub fn shrink(script: &Script, violation: Violation) -> (Script, Violation) {
    let (mut best, mut fails) = (script.clone(), violation);
    let mut group = best.steps.len().div_ceil(2).max(1);
    loop {
        match smaller(&best, group) {
            Some((script, violation)) => (best, fails) = (script, violation),
            None if group == 1 => return (best, fails),
            None => group = group.div_ceil(2),
        }
    }
}

/// The script without the first group of faults that it can do without.
fn smaller(script: &Script, group: usize) -> Option<(Script, Violation)> {
    (0..script.steps.len()).step_by(group).find_map(|from| {
        let is_left = |(at, _): &(usize, &Step)| *at < from || *at >= from + group;
        let steps = script.steps.iter().enumerate().filter(is_left).map(|(_, step)| *step).collect();
        let shorter = Script { steps, ..script.clone() };
        let violation = World::new(&shorter).run().err()?;
        Some((shorter, violation))
    })
}
