use checker::Operation;
use checker::set::Action;

use super::{USUAL, in_order, last_looks, schedule};
use crate::rng::Rng;

pub(crate) fn generate(rng: &mut Rng) -> Vec<Operation<Action>> {
    let mut slots = schedule(rng, USUAL);
    let looks = last_looks(&slots);
    let clients = slots.len();
    slots.extend(looks);
    let mut actions: Vec<Action> = (0..slots.len() as u64)
        .map(|number| {
            let reads = number >= clients as u64 || rng.percent(25);
            if reads { Action::Read(None) } else { Action::Add(number) }
        })
        .collect();
    let mut there = Vec::new();
    for slot in in_order(&slots) {
        match &mut actions[slot] {
            Action::Add(value) => there.push(*value),
            Action::Read(found) => *found = slots[slot].is_ok().then(|| there.clone()),
        }
    }
    let mut history: Vec<_> =
        slots.iter().zip(actions).map(|(slot, action)| slot.operation(action)).collect();
    rng.shuffle(&mut history);
    history
}
