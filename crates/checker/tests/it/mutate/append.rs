//! Values are appended once in a whole history, so that a value tells who wrote it and into which list.
//!
//! Two clients look at all lists at the end, one after the other: whatever one of them is made to see, the other still
//! tells the truth.

mod cycles;

use checker::append::{Action, Claim, Key, Level, Step};
use checker::{Anomaly, Operation, Outcome};

use super::{Mutator, acked, acknowledged, end, is_before, is_unknown, pairs, places};
use crate::generate::at;
use crate::rng::Rng;

pub(crate) use cycles::CYCLES;

pub(crate) type History = (Claim, Vec<Operation<Action>>);

pub(crate) const ALL: [Mutator<History>; 14] = [
    Mutator { name: "lose", expect: &[Anomaly::Lost], spoil: lose },
    Mutator { name: "double", expect: &[Anomaly::Doubled], spoil: double },
    Mutator { name: "revive", expect: &[Anomaly::G1a], spoil: revive },
    Mutator { name: "call it failed", expect: &[Anomaly::G1a], spoil: call_failed },
    Mutator { name: "intermediate read", expect: &[Anomaly::G1b], spoil: intermediate },
    Mutator { name: "drop one in the middle", expect: &[Anomaly::IncompatibleOrder], spoil: drop_middle },
    Mutator { name: "reorder", expect: &[Anomaly::IncompatibleOrder], spoil: reorder },
    Mutator { name: "stale read", expect: &[Anomaly::Stale], spoil: stale },
    Mutator { name: "read another list", expect: &[Anomaly::Foreign], spoil: cross },
    Mutator { name: "read what nobody wrote", expect: &[Anomaly::Foreign], spoil: foreign },
    Mutator { name: "read the future", expect: &[Anomaly::G1c], spoil: future },
    Mutator { name: "swap two reads", expect: &[Anomaly::Stale], spoil: swap },
    Mutator { name: "acknowledge what never happened", expect: &[Anomaly::Lost], spoil: acknowledge },
    Mutator { name: "own append unseen", expect: &[Anomaly::Internal], spoil: own_unseen },
];

/// One append: whose, to which list, what.
#[derive(Clone, Debug)]
struct Appended {
    txn: usize,
    key: Key,
    value: u64,
}

/// One answered read: whose, the place among its steps, of which list.
#[derive(Clone, Debug)]
struct Looked {
    txn: usize,
    step: usize,
    key: Key,
}

fn appended(history: &History) -> Vec<Appended> {
    let of = |(txn, operation): (usize, &Operation<Action>)| {
        let append = move |step: &Step| match step {
            Step::Append(key, value) => Some(Appended { txn, key: key.clone(), value: *value }),
            Step::Read(..) => None,
        };
        operation.action.iter().filter_map(append).collect::<Vec<_>>()
    };
    history.1.iter().enumerate().flat_map(of).collect()
}

fn appended_by(history: &History, holds: impl Fn(&Operation<Action>) -> bool) -> Vec<Appended> {
    appended(history).into_iter().filter(|append| holds(&history.1[append.txn])).collect()
}

fn is_acked(operation: &Operation<Action>) -> bool {
    operation.acknowledged().is_some()
}

/// Reads of transactions that append nothing, so that nothing of their own is in the lists.
fn looked(history: &History) -> Vec<Looked> {
    let appends = |step: &Step| matches!(step, Step::Append(..));
    let pure = acknowledged(&history.1, |action: &Action| !action.iter().any(appends));
    let of = |txn: usize| {
        let read = move |(step, what): (usize, &Step)| match what {
            Step::Read(key, Some(_)) => Some(Looked { txn, step, key: key.clone() }),
            Step::Read(_, None) | Step::Append(..) => None,
        };
        history.1[txn].action.iter().enumerate().filter_map(read).collect::<Vec<_>>()
    };
    pure.into_iter().flat_map(of).collect()
}

fn list<'a>(history: &'a mut History, look: &Looked) -> Option<&'a mut Vec<u64>> {
    match &mut history.1[look.txn].action[look.step] {
        Step::Read(_, found) => found.as_mut(),
        Step::Append(..) => None,
    }
}

fn seen(history: &History, look: &Looked) -> Vec<u64> {
    match &history.1[look.txn].action[look.step] {
        Step::Read(_, Some(found)) => found.clone(),
        Step::Read(_, None) | Step::Append(..) => Vec::new(),
    }
}

/// What the two clients at the end read.
fn last_looks(history: &History) -> [Vec<Looked>; 2] {
    let all = looked(history);
    let mut readers: Vec<usize> = all.iter().map(|look| look.txn).collect();
    readers.sort_by_key(|txn| history.1[*txn].invoked);
    readers.dedup();
    let last = readers.split_off(readers.len() - 2);
    [last[0], last[1]].map(|txn| all.iter().filter(|look| look.txn == txn).cloned().collect())
}

fn one_of_the_last(rng: &mut Rng, history: &History) -> Option<Looked> {
    let which = rng.index(2);
    rng.pick(&last_looks(history)[which])
}

/// The list's true end: what the last client saw.
fn now(history: &History, key: &Key) -> Vec<u64> {
    let [_, last] = last_looks(history);
    last.iter().find(|look| look.key == *key).map(|look| seen(history, look)).unwrap_or_default()
}

fn writer(history: &History, value: u64) -> Option<usize> {
    appended(history).into_iter().find(|append| append.value == value).map(|append| append.txn)
}

/// How many values of a list stand before the block of the transaction that wrote the value at a place.
fn block_start(history: &History, list: &[u64], place: usize) -> usize {
    let by = writer(history, list[place]);
    (0..=place).rev().take_while(|at| writer(history, list[*at]) == by).last().unwrap_or(place)
}

/// The last clients began after the acknowledgement.
fn lose(rng: &mut Rng, history: &mut History) -> Option<()> {
    let lost = rng.pick(&appended_by(history, is_acked))?;
    for operation in &mut history.1 {
        for step in &mut operation.action {
            if let Step::Read(key, Some(found)) = step
                && *key == lost.key
            {
                found.retain(|value| *value != lost.value);
            }
        }
    }
    Some(())
}

fn double(rng: &mut Rng, history: &mut History) -> Option<()> {
    let look = rng.pick(&looked(history))?;
    let found = list(history, &look)?;
    let value = rng.pick(found)?;
    found.push(value);
    Some(())
}

fn revive(rng: &mut Rng, history: &mut History) -> Option<()> {
    let failed = rng.pick(&appended_by(history, |operation| operation.outcome == Outcome::Failed))?;
    let looks: Vec<_> = looked(history).into_iter().filter(|look| look.key == failed.key).collect();
    let look = rng.pick(&looks)?;
    list(history, &look)?.push(failed.value);
    Some(())
}

/// The last clients saw its values.
fn call_failed(rng: &mut Rng, history: &mut History) -> Option<()> {
    let append = rng.pick(&appended_by(history, is_acked))?;
    history.1[append.txn].outcome = Outcome::Failed;
    Some(())
}

/// The list ends with a value that its own transaction had already followed by another.
fn intermediate(rng: &mut Rng, history: &mut History) -> Option<()> {
    let inside = |look: &Looked| {
        let found = seen(history, look);
        let same = |at: &usize| writer(history, found[at - 1]) == writer(history, found[*at]);
        (1..found.len()).filter(same).map(|at| (look.clone(), at)).collect::<Vec<_>>()
    };
    let cuts: Vec<_> = looked(history).iter().flat_map(inside).collect();
    let (look, at) = rng.pick(&cuts)?;
    list(history, &look)?.truncate(at);
    Some(())
}

/// The other of the last clients saw what follows it, and it.
fn drop_middle(rng: &mut Rng, history: &mut History) -> Option<()> {
    let look = one_of_the_last(rng, history)?;
    let found = list(history, &look)?;
    if found.len() < 2 {
        return None;
    }
    found.remove(rng.index(found.len() - 1));
    Some(())
}

/// The other of the last clients saw both the other way round.
fn reorder(rng: &mut Rng, history: &mut History) -> Option<()> {
    let look = one_of_the_last(rng, history)?;
    let found = list(history, &look)?;
    if found.len() < 2 {
        return None;
    }
    let at = rng.index(found.len() - 1);
    found.swap(at, at + 1);
    Some(())
}

/// It ends before a transaction that was acknowledged before it began (and not inside another).
fn stale(rng: &mut Rng, history: &mut History) -> Option<()> {
    let look = one_of_the_last(rng, history)?;
    let found = seen(history, &look);
    let acked: Vec<usize> = (0..found.len())
        .filter(|at| writer(history, found[*at]).is_some_and(|txn| is_acked(&history.1[txn])))
        .collect();
    let cut = block_start(history, &found, rng.pick(&acked)?);
    list(history, &look)?.truncate(cut);
    Some(())
}

fn cross(rng: &mut Rng, history: &mut History) -> Option<()> {
    let look = one_of_the_last(rng, history)?;
    let others: Vec<Key> =
        ["k0", "k1", "k2"].map(str::to_owned).into_iter().filter(|key| *key != look.key).collect();
    let other = now(history, &rng.pick(&others)?);
    if other.is_empty() {
        return None; // an empty list is nobody's
    }
    *list(history, &look)? = other;
    Some(())
}

fn foreign(rng: &mut Rng, history: &mut History) -> Option<()> {
    let look = rng.pick(&looked(history))?;
    list(history, &look)?.push(1_000_000 + rng.below(1000));
    Some(())
}

/// The reader was over before the writer began; the order of the list stays.
fn future(rng: &mut Rng, history: &mut History) -> Option<()> {
    let ahead = |look: &Looked| {
        let truth = now(history, &look.key);
        let known = seen(history, look).len();
        let begins_later = |at: &usize| {
            writer(history, truth[*at]).is_some_and(|writer| is_before(&history.1, look.txn, writer))
        };
        // Up to the end of its block: a cut inside would be another anomaly.
        let ends_block = |at: &usize| {
            at + 1 == truth.len() || writer(history, truth[*at]) != writer(history, truth[at + 1])
        };
        let cuts = (known..truth.len()).filter(begins_later).filter(ends_block);
        cuts.map(|at| (look.clone(), truth[..=at].to_vec())).collect::<Vec<_>>()
    };
    // A transaction that reads a list twice would contradict itself.
    let once = |look: &&Looked| {
        let of_key = |step: &&Step| matches!(step, Step::Read(key, _) if *key == look.key);
        history.1[look.txn].action.iter().filter(of_key).count() == 1
    };
    let ahead: Vec<_> = looked(history).iter().filter(once).flat_map(ahead).collect();
    let (look, found) = rng.pick(&ahead)?;
    *list(history, &look)? = found;
    Some(())
}

/// The later reader now lacks what was acknowledged before it began.
fn swap(rng: &mut Rng, history: &mut History) -> Option<()> {
    let looks = looked(history);
    let numbers: Vec<usize> = (0..looks.len()).collect();
    let lacks = |one: &Looked, other: &Looked| {
        let (before, after) = (seen(history, one), seen(history, other));
        let settled = |value: &u64| {
            let writer = writer(history, *value).filter(|writer| is_before(&history.1, *writer, other.txn));
            writer.is_some() && !before.contains(value)
        };
        one.key == other.key && one.txn != other.txn && after.iter().any(settled)
    };
    let apart: Vec<_> =
        pairs(&numbers).into_iter().filter(|(one, other)| lacks(&looks[*one], &looks[*other])).collect();
    let (one, other) = rng.pick(&apart)?;
    let (before, after) = (seen(history, &looks[one]), seen(history, &looks[other]));
    *list(history, &looks[one])? = after;
    *list(history, &looks[other])? = before;
    Some(())
}

/// None of its values is in what the last client saw, who began after this acknowledgement.
fn acknowledge(rng: &mut Rng, history: &mut History) -> Option<()> {
    let [_, last] = last_looks(history);
    let begins = history.1[last.first()?.txn].invoked.as_micros();
    let unseen: Vec<_> = appended_by(history, is_unknown)
        .into_iter()
        .filter(|append| !now(history, &append.key).contains(&append.value))
        .filter(|append| history.1[append.txn].invoked.as_micros() < begins)
        .collect();
    let append = rng.pick(&unseen)?;
    history.1[append.txn].outcome = Outcome::Ok(at(begins - 1));
    // What it read was never answered, and an acknowledged transaction knows its answers.
    history.1[append.txn].action.retain(|step| matches!(step, Step::Append(..)));
    Some(())
}

/// A transaction appends, reads, and does not find what it appended.
fn own_unseen(rng: &mut Rng, history: &mut History) -> Option<()> {
    let key = format!("k{}", rng.below(3));
    let (before, from) = (now(history, &key), end(&history.1));
    let after: Vec<u64> = before.iter().copied().chain([9_000]).collect();
    let steps = vec![Step::Append(key.clone(), 9_000), Step::Read(key.clone(), Some(before))];
    history.1.push(acked(0, from, from + 10, steps));
    history.1.push(acked(1, from + 20, from + 30, vec![Step::Read(key, Some(after))]));
    Some(())
}

/// Acknowledged transactions of the second half of a history, for those that begin where the lists end.
fn places_of(history: &History, holds: impl Fn(&Operation<Action>) -> bool) -> Vec<usize> {
    places(&history.1, holds)
}

/// Only where the level forbids it.
fn at_least(history: &History, level: Level) -> Option<()> {
    (history.0.level >= level).then_some(())
}
