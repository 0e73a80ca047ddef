use std::collections::BTreeMap;

use checker::append::{Action, Claim, Key, Level, Step};
use checker::{Operation, Outcome};

use super::{Size, Slot, last_looks, schedule};
use crate::rng::Rng;

type Lists = BTreeMap<Key, Vec<u64>>;

/// A moment in a transaction's life: when, whose, and which of its moments.
type Event = (u64, usize, Phase);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// All steps at once, as a snapshot shows them.
    Snapshot,
    Step(usize),
    Commit,
}

/// A transaction under way.
#[derive(Clone, Default)]
struct Open {
    own: Lists,
    /// How long a list was when the transaction first wanted to write it.
    locked: BTreeMap<Key, usize>,
    answers: Vec<Option<Vec<u64>>>,
}

pub(crate) fn generate(rng: &mut Rng, level: Level, size: Size) -> (Claim, Vec<Operation<Action>>) {
    let mut slots = schedule(rng, size);
    let looks = last_looks(&slots);
    let clients = slots.len();
    slots.extend(looks);
    let mut actions: Vec<Action> =
        (0..slots.len()).map(|slot| if slot < clients { transaction(rng, slot) } else { look() }).collect();
    let mut events: Vec<Event> =
        (0..slots.len()).flat_map(|txn| events(rng, level, txn, &slots[txn], &actions[txn])).collect();
    events.sort_unstable();
    let mut lists = Lists::new();
    let mut open: Vec<Open> = vec![Open::default(); slots.len()];
    for (_, txn, phase) in events {
        let steps = &mut actions[txn];
        match phase {
            Phase::Snapshot => (0..steps.len()).for_each(|step| open[txn].take(&lists, &steps[step])),
            Phase::Step(step) => open[txn].take(&lists, &steps[step]),
            Phase::Commit => commit(&mut lists, &open[txn], &mut slots[txn], steps),
        }
    }
    let mut history: Vec<_> =
        slots.iter().zip(actions).map(|(slot, action)| slot.operation(action)).collect();
    rng.shuffle(&mut history);
    (Claim { level, real_time: true }, history)
}

fn key(number: u64) -> Key {
    format!("k{number}")
}

fn transaction(rng: &mut Rng, txn: usize) -> Action {
    let step = |rng: &mut Rng, step: u64| {
        let key = key(rng.below(3));
        if rng.percent(50) { Step::Read(key, None) } else { Step::Append(key, txn as u64 * 10 + step) }
    };
    (0..=rng.below(4)).map(|number| step(rng, number)).collect()
}

fn look() -> Action {
    (0..3).map(|number| Step::Read(key(number), None)).collect()
}

fn events(rng: &mut Rng, level: Level, txn: usize, slot: &Slot, action: &Action) -> Vec<Event> {
    let Some(effect) = slot.effect else { return Vec::new() };
    let lasts = effect - slot.invoked + 1;
    let mut events = match level {
        Level::Serializable => vec![(effect, txn, Phase::Snapshot)],
        Level::RepeatableRead => vec![(slot.invoked + rng.below(lasts), txn, Phase::Snapshot)],
        Level::ReadCommitted => {
            let mut moments: Vec<u64> = action.iter().map(|_| slot.invoked + rng.below(lasts)).collect();
            moments.sort_unstable();
            moments.into_iter().enumerate().map(|(step, at)| (at, txn, Phase::Step(step))).collect()
        }
    };
    events.push((effect, txn, Phase::Commit));
    events
}

impl Open {
    fn take(&mut self, lists: &Lists, step: &Step) {
        let there = |key: &Key| lists.get(key).cloned().unwrap_or_default();
        match step {
            Step::Append(key, value) => {
                self.locked.entry(key.clone()).or_insert_with(|| there(key).len());
                self.own.entry(key.clone()).or_default().push(*value);
                self.answers.push(None);
            }
            Step::Read(key, _) => {
                let mut found = there(key);
                found.extend(self.own.get(key).into_iter().flatten());
                self.answers.push(Some(found));
            }
        }
    }
}

/// The first who commits a list wins; who wanted to write it meanwhile is refused, as a conflict or a deadlock is.
fn commit(lists: &mut Lists, open: &Open, slot: &mut Slot, action: &mut Action) {
    let is_changed = |(key, length): (&Key, &usize)| lists.get(key).map_or(0, Vec::len) != *length;
    if open.locked.iter().any(is_changed) {
        if slot.is_ok() {
            slot.outcome = Outcome::Failed;
        }
        return;
    }
    for (key, own) in &open.own {
        lists.entry(key.clone()).or_default().extend(own);
    }
    for (step, answer) in action.iter_mut().zip(&open.answers) {
        if let (Step::Read(_, found), true) = (step, slot.is_ok()) {
            found.clone_from(answer);
        }
    }
}
