use checker::Operation;
use checker::register::{Action, Answer, Value, What};

use super::{Size, in_order, schedule};
use crate::rng::Rng;

/// Which values are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Values {
    /// A few, again and again.
    Few,
    /// Each only once, so that a value tells who wrote it.
    Unique,
}

pub(crate) fn generate(rng: &mut Rng, values: Values, keys: u64, size: Size) -> Vec<Operation<Action>> {
    let slots = schedule(rng, size);
    let mut actions = vec![None; slots.len()];
    let mut held: Vec<Value> = vec![None; usize::try_from(keys).unwrap()];
    let new = |rng: &mut Rng, slot: usize| match values {
        Values::Few => rng.below(3),
        Values::Unique => slot as u64,
    };
    for slot in in_order(&slots) {
        let key = rng.index(held.len());
        let is_ok = slots[slot].is_ok();
        let what = match rng.below(10) {
            0..4 => {
                What::Read(if is_ok { held[key].map_or(Answer::Absent, Answer::Value) } else { Answer::None })
            }
            4..7 => {
                let value = new(rng, slot);
                held[key] = Some(value);
                What::Write(value)
            }
            _ => {
                let from = if rng.percent(60) { held[key] } else { Some(rng.below(20)) };
                let to = new(rng, slot);
                let is_done = held[key] == from;
                if is_done {
                    held[key] = Some(to);
                }
                What::Swap { from, to, done: is_ok.then_some(is_done) }
            }
        };
        actions[slot] = Some(Action { key: format!("k{key}"), what });
    }
    let mut history = Vec::new();
    for (slot, action) in actions.into_iter().enumerate() {
        // What never takes effect was asked all the same.
        let asked =
            || Action { key: "k0".to_owned(), what: What::Write(new(&mut Rng::new(slot as u64), slot)) };
        history.push(slots[slot].operation(action.unwrap_or_else(asked)));
    }
    rng.shuffle(&mut history);
    history
}
