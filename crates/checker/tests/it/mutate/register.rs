//! All on histories in which every value is written only once, so that a value tells who wrote it.

use checker::register::{Action, Answer, What};
use checker::{Anomaly, Operation, Outcome};

use super::{Mutator, acked, acknowledged, end, is_before, is_unknown, places};
use crate::rng::Rng;

type History = Vec<Operation<Action>>;

const EXPECT: &[Anomaly] = &[Anomaly::NotLinearizable];

pub(crate) const ALL: [Mutator<History>; 13] = [
    Mutator { name: "read the future", expect: EXPECT, spoil: future },
    Mutator { name: "read what nobody wrote", expect: EXPECT, spoil: foreign },
    Mutator { name: "read what failed", expect: EXPECT, spoil: revive },
    Mutator { name: "call it failed", expect: EXPECT, spoil: call_failed },
    Mutator { name: "read nothing after a write", expect: EXPECT, spoil: vanish },
    Mutator { name: "stale read", expect: EXPECT, spoil: stale },
    Mutator { name: "new, then old", expect: EXPECT, spoil: inversion },
    Mutator { name: "swapped twice", expect: EXPECT, spoil: swapped_twice },
    Mutator { name: "swapped what was overwritten", expect: EXPECT, spoil: late_swap },
    Mutator { name: "refused though it fits", expect: EXPECT, spoil: refused },
    Mutator { name: "unknown write seen twice", expect: EXPECT, spoil: seen_twice },
    Mutator { name: "lost write", expect: EXPECT, spoil: lose },
    Mutator { name: "refused swap took effect", expect: EXPECT, spoil: refused_and_done },
];

fn is_read(action: &Action) -> bool {
    matches!(action.what, What::Read(_))
}

fn new_value(action: &Action) -> Option<u64> {
    match action.what {
        What::Read(_) => None,
        What::Write(value) | What::Swap { to: value, .. } => Some(value),
    }
}

fn key(rng: &mut Rng) -> String {
    format!("k{}", rng.below(2))
}

fn on(key: &str, what: What) -> Action {
    Action { key: key.to_owned(), what }
}

fn read(key: &str, value: u64) -> Action {
    on(key, What::Read(Answer::Value(value)))
}

/// A read and an operation that began after it was over, of the same key.
fn future(rng: &mut Rng, history: &mut History) -> Option<()> {
    let writes = places(history, |operation| new_value(&operation.action).is_some());
    let apart: Vec<_> = acknowledged(history, is_read)
        .into_iter()
        .flat_map(|read| writes.iter().map(move |write| (read, *write)))
        .filter(|(read, write)| history[*read].action.key == history[*write].action.key)
        .filter(|(read, write)| is_before(history, *read, *write))
        .collect();
    let (read, write) = rng.pick(&apart)?;
    history[read].action.what = What::Read(Answer::Value(new_value(&history[write].action)?));
    Some(())
}

fn foreign(rng: &mut Rng, history: &mut History) -> Option<()> {
    let read = rng.pick(&acknowledged(history, is_read))?;
    history[read].action.what = What::Read(Answer::Value(1_000_000 + rng.below(1000)));
    Some(())
}

fn revive(rng: &mut Rng, history: &mut History) -> Option<()> {
    let failed = places(history, |o| o.outcome == Outcome::Failed && new_value(&o.action).is_some());
    let failed = rng.pick(&failed)?;
    let (key, value) = (history[failed].action.key.clone(), new_value(&history[failed].action)?);
    let reads = acknowledged(history, |action| is_read(action) && action.key == key);
    let read = rng.pick(&reads)?;
    history[read].action.what = What::Read(Answer::Value(value));
    Some(())
}

/// Somebody read its value.
fn call_failed(rng: &mut Rng, history: &mut History) -> Option<()> {
    let seen: Vec<_> = acknowledged(history, |_| true)
        .into_iter()
        .filter_map(|read| match history[read].action.what {
            What::Read(Answer::Value(value)) => Some((history[read].action.key.clone(), value)),
            What::Read(_) | What::Write(_) | What::Swap { .. } => None,
        })
        .collect();
    let (key, value) = rng.pick(&seen)?;
    let writer = |o: &Operation<Action>| o.action.key == key && new_value(&o.action) == Some(value);
    let writer = rng.pick(&places(history, writer))?;
    history[writer].outcome = Outcome::Failed;
    Some(())
}

/// Nothing makes a register absent again.
fn vanish(rng: &mut Rng, history: &mut History) -> Option<()> {
    let (key, from) = (key(rng), end(history));
    history.push(acked(0, from, from + 10, on(&key, What::Write(500))));
    history.push(acked(1, from + 20, from + 30, on(&key, What::Read(Answer::Absent))));
    Some(())
}

/// Both writes were over before the read began, one after the other, and nobody else writes the first value.
fn stale(rng: &mut Rng, history: &mut History) -> Option<()> {
    let (key, from) = (key(rng), end(history));
    history.push(acked(0, from, from + 10, on(&key, What::Write(500))));
    history.push(acked(1, from + 20, from + 30, on(&key, What::Write(501))));
    history.push(acked(2, from + 40, from + 50, read(&key, 500)));
    Some(())
}

/// While a write is under way one reads the new value, and after that another the old one.
fn inversion(rng: &mut Rng, history: &mut History) -> Option<()> {
    let (key, from) = (key(rng), end(history));
    history.push(acked(0, from, from + 10, on(&key, What::Write(500))));
    history.push(acked(1, from + 20, from + 100, on(&key, What::Write(501))));
    history.push(acked(2, from + 30, from + 40, read(&key, 501)));
    history.push(acked(3, from + 50, from + 60, read(&key, 500)));
    Some(())
}

/// What one has swapped away, another swaps too.
fn swapped_twice(rng: &mut Rng, history: &mut History) -> Option<()> {
    let (key, from) = (key(rng), end(history));
    let swap = |to| on(&key, What::Swap { from: Some(500), to, done: Some(true) });
    history.push(acked(0, from, from + 10, on(&key, What::Write(500))));
    history.push(acked(1, from + 20, from + 100, swap(501)));
    history.push(acked(2, from + 30, from + 90, swap(502)));
    Some(())
}

fn late_swap(rng: &mut Rng, history: &mut History) -> Option<()> {
    let (key, from) = (key(rng), end(history));
    history.push(acked(0, from, from + 10, on(&key, What::Write(500))));
    history.push(acked(1, from + 20, from + 30, on(&key, What::Write(501))));
    let swap = What::Swap { from: Some(500), to: 502, done: Some(true) };
    history.push(acked(2, from + 40, from + 50, on(&key, swap)));
    Some(())
}

/// On a key of its own: elsewhere a write of unknown outcome might have come between.
fn refused(rng: &mut Rng, history: &mut History) -> Option<()> {
    let (key, from) = (format!("fresh {}", rng.below(1000)), end(history));
    history.push(acked(0, from, from + 10, on(&key, What::Write(500))));
    let swap = What::Swap { from: Some(500), to: 501, done: Some(false) };
    history.push(acked(1, from + 20, from + 30, on(&key, swap)));
    Some(())
}

/// An unknown write happens once: after another was written over it, its value does not come back.
fn seen_twice(rng: &mut Rng, history: &mut History) -> Option<()> {
    let unknown = places(history, |o| is_unknown(o) && matches!(o.action.what, What::Write(_)));
    let unknown = rng.pick(&unknown)?;
    let (key, value) = (history[unknown].action.key.clone(), new_value(&history[unknown].action)?);
    let from = end(history);
    history.push(acked(0, from, from + 10, read(&key, value)));
    history.push(acked(1, from + 20, from + 30, on(&key, What::Write(500))));
    history.push(acked(2, from + 40, from + 50, read(&key, value)));
    Some(())
}

/// After the last write, and with nothing under way at this key, the value before it is read.
fn lose(rng: &mut Rng, history: &mut History) -> Option<()> {
    let from = end(history);
    let key = format!("fresh {}", rng.below(1000));
    history.push(acked(0, from, from + 10, on(&key, What::Write(500))));
    let swap = What::Swap { from: Some(500), to: 501, done: Some(true) };
    history.push(acked(1, from + 20, from + 30, on(&key, swap)));
    history.push(acked(2, from + 40, from + 50, read(&key, 500)));
    Some(())
}

fn refused_and_done(rng: &mut Rng, history: &mut History) -> Option<()> {
    let (key, from) = (key(rng), end(history));
    let swap = What::Swap { from: Some(1_000), to: 501, done: Some(false) };
    history.push(acked(0, from, from + 10, on(&key, swap)));
    history.push(acked(1, from + 20, from + 30, read(&key, 501)));
    Some(())
}
