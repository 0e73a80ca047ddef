use checker::set::Action;
use checker::{Anomaly, Operation, Outcome};

use super::{Mutator, acknowledged, is_before, is_unknown, pairs, places};
use crate::generate::at;
use crate::rng::Rng;

type History = Vec<Operation<Action>>;

pub(crate) const ALL: [Mutator<History>; 10] = [
    Mutator { name: "lose", expect: &[Anomaly::Lost], spoil: lose },
    Mutator { name: "double", expect: &[Anomaly::Doubled], spoil: double },
    Mutator { name: "revive", expect: &[Anomaly::Revived], spoil: revive },
    Mutator { name: "foreign", expect: &[Anomaly::Foreign], spoil: foreign },
    Mutator { name: "stale read", expect: &[Anomaly::Stale], spoil: stale },
    Mutator { name: "read the future", expect: &[Anomaly::Foreign], spoil: future },
    Mutator { name: "seen once, then gone", expect: &[Anomaly::Lost], spoil: forget },
    Mutator { name: "swap two reads", expect: &[Anomaly::Lost, Anomaly::Stale], spoil: swap },
    Mutator { name: "call it failed", expect: &[Anomaly::Revived], spoil: call_failed },
    Mutator { name: "acknowledge what never happened", expect: &[Anomaly::Lost], spoil: acknowledge },
];

fn values(action: &mut Action) -> Option<&mut Vec<u64>> {
    match action {
        Action::Read(found) => found.as_mut(),
        Action::Add(_) => None,
    }
}

fn added(action: &Action) -> Option<u64> {
    match action {
        Action::Add(value) => Some(*value),
        Action::Read(_) => None,
    }
}

fn reads(history: &History) -> Vec<usize> {
    acknowledged(history, |action| matches!(action, Action::Read(_)))
}

fn has(action: &Action, value: u64) -> bool {
    matches!(action, Action::Read(Some(found)) if found.contains(&value))
}

fn remove(history: &mut History, read: usize, value: u64) -> Option<()> {
    values(&mut history[read].action)?.retain(|there| *there != value);
    Some(())
}

/// Both last reads began after every acknowledgement: what is missing in the last one is gone.
fn lose(rng: &mut Rng, history: &mut History) -> Option<()> {
    let add = rng.pick(&acknowledged(history, |action| added(action).is_some()))?;
    let value = added(&history[add].action)?;
    let last = *reads(history).last()?;
    remove(history, last, value)
}

/// Unique values are there once.
fn double(rng: &mut Rng, history: &mut History) -> Option<()> {
    let read = rng.pick(&reads(history))?;
    let found = values(&mut history[read].action)?;
    let value = rng.pick(found)?;
    found.insert(rng.index(found.len() + 1), value);
    Some(())
}

/// What failed is never there.
fn revive(rng: &mut Rng, history: &mut History) -> Option<()> {
    let add = rng.pick(&places(history, |o| o.outcome == Outcome::Failed && added(&o.action).is_some()))?;
    let value = added(&history[add].action)?;
    let read = rng.pick(&reads(history))?;
    values(&mut history[read].action)?.push(value);
    Some(())
}

fn foreign(rng: &mut Rng, history: &mut History) -> Option<()> {
    let read = rng.pick(&reads(history))?;
    values(&mut history[read].action)?.push(1_000_000 + rng.below(1000));
    Some(())
}

/// The read began after the acknowledgement; the last read has the value still.
fn stale(rng: &mut Rng, history: &mut History) -> Option<()> {
    let reads = reads(history);
    let last = *reads.last()?;
    let adds = acknowledged(history, |action| added(action).is_some());
    let apart: Vec<_> = adds
        .iter()
        .flat_map(|add| reads.iter().map(move |read| (*add, *read)))
        .filter(|(add, read)| is_before(history, *add, *read) && is_before(history, *read, last))
        .collect();
    let (add, read) = rng.pick(&apart)?;
    let value = added(&history[add].action)?;
    remove(history, read, value)
}

/// The read was over before the add began.
fn future(rng: &mut Rng, history: &mut History) -> Option<()> {
    let adds = places(history, |operation| added(&operation.action).is_some() && !operation.is_failed());
    let apart: Vec<_> = reads(history)
        .into_iter()
        .flat_map(|read| adds.iter().map(move |add| (read, *add)))
        .filter(|(read, add)| is_before(history, *read, *add))
        .collect();
    let (read, add) = rng.pick(&apart)?;
    let value = added(&history[add].action)?;
    values(&mut history[read].action)?.push(value);
    Some(())
}

/// Once it was seen, an unknown outcome is known.
fn forget(rng: &mut Rng, history: &mut History) -> Option<()> {
    let unknown = places(history, |operation| is_unknown(operation) && added(&operation.action).is_some());
    let reads = reads(history);
    let last = *reads.last()?;
    let seen = |add: &usize| {
        let value = added(&history[*add].action);
        value.is_some_and(|value| {
            reads.iter().any(|read| is_before(history, *read, last) && has(&history[*read].action, value))
        })
    };
    let seen: Vec<usize> = unknown.into_iter().filter(seen).collect();
    let value = added(&history[rng.pick(&seen)?].action)?;
    remove(history, last, value)
}

/// The earlier read lacks what was acknowledged before the later one began: the later one now lacks it.
fn swap(rng: &mut Rng, history: &mut History) -> Option<()> {
    let adds = acknowledged(history, |action| added(action).is_some());
    let between = |one: usize, other: usize| {
        adds.iter().any(|add| is_before(history, one, *add) && is_before(history, *add, other))
    };
    let apart: Vec<_> =
        pairs(&reads(history)).into_iter().filter(|(one, other)| between(*one, *other)).collect();
    let (one, other) = rng.pick(&apart)?;
    let earlier = history[one].action.clone();
    history[one].action = std::mem::replace(&mut history[other].action, earlier);
    Some(())
}

/// It is in the last read, so it did not fail.
fn call_failed(rng: &mut Rng, history: &mut History) -> Option<()> {
    let add = rng.pick(&acknowledged(history, |action| added(action).is_some()))?;
    history[add].outcome = Outcome::Failed;
    Some(())
}

/// It is in no read, also not in the last one, which begins after this acknowledgement.
fn acknowledge(rng: &mut Rng, history: &mut History) -> Option<()> {
    let reads = reads(history);
    let last = history[*reads.last()?].invoked.as_micros();
    let unseen = places(history, |operation| {
        let value = added(&operation.action).filter(|_| is_unknown(operation));
        value.is_some_and(|value| {
            operation.invoked.as_micros() < last
                && !reads.iter().any(|read| has(&history[*read].action, value))
        })
    });
    let add = rng.pick(&unseen)?;
    history[add].outcome = Outcome::Ok(at(last - 1));
    Some(())
}
