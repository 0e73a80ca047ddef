//! Histories spoiled by what a weaker isolation level lets happen: transactions beside each other at the end, each of
//! which is fine alone.

use checker::append::{Key, Level, Step};
use checker::{Anomaly, Operation};

use super::{History, at_least, block_start, is_acked, last_looks, list, now, places_of, seen, writer};
use crate::mutate::{Mutator, acked, end};
use crate::rng::Rng;

pub(crate) const CYCLES: [Mutator<History>; 9] = [
    Mutator { name: "dirty write", expect: &[Anomaly::G0], spoil: dirty_write },
    Mutator { name: "circular reads", expect: &[Anomaly::G1c], spoil: circular },
    Mutator { name: "fractured read", expect: &[Anomaly::GSingle], spoil: fractured },
    Mutator { name: "read skew", expect: &[Anomaly::GSingle], spoil: read_skew },
    Mutator { name: "lost update", expect: &[Anomaly::GSingle], spoil: lost_update },
    Mutator { name: "read twice, two answers", expect: &[Anomaly::Internal], spoil: unrepeatable },
    Mutator { name: "long fork", expect: &[Anomaly::GNonadjacent], spoil: long_fork },
    Mutator { name: "write skew", expect: &[Anomaly::G2], spoil: write_skew },
    Mutator { name: "write skew of three", expect: &[Anomaly::G2], spoil: write_skew_of_three },
];

/// A stage at the end of a history, on which transactions act side by side.
struct Stage<'h> {
    history: &'h mut History,
    from: u64,
    keys: [Key; 3],
    next: u32,
}

impl<'h> Stage<'h> {
    fn new(rng: &mut Rng, history: &'h mut History) -> Self {
        let mut keys = ["k0", "k1", "k2"].map(str::to_owned);
        rng.shuffle(&mut keys);
        let from = end(&history.1);
        Self { history, from, keys, next: 0 }
    }

    /// Reads a list as it was, and these values behind it.
    fn read(&self, key: usize, more: &[u64]) -> Step {
        let mut found = now(self.history, &self.keys[key]);
        found.extend(more);
        Step::Read(self.keys[key].clone(), Some(found))
    }

    fn append(&self, key: usize, value: u64) -> Step {
        Step::Append(self.keys[key].clone(), value)
    }

    /// A transaction that overlaps with all others on the stage.
    fn beside(&mut self, steps: Vec<Step>) {
        let from = self.from + u64::from(self.next);
        self.push(from, self.from + 100, steps);
    }

    /// A transaction after all others on the stage.
    fn after(&mut self, steps: Vec<Step>) {
        self.push(self.from + 200, self.from + 210, steps);
    }

    fn push(&mut self, from: u64, until: u64, steps: Vec<Step>) {
        self.history.1.push(acked(self.next, from, until, steps));
        self.next += 1;
    }
}

/// Two write two lists, in a different order each.
fn dirty_write(rng: &mut Rng, history: &mut History) -> Option<()> {
    let mut stage = Stage::new(rng, history);
    let last = vec![stage.read(0, &[9001, 9003]), stage.read(1, &[9004, 9002])];
    stage.beside(vec![stage.append(0, 9001), stage.append(1, 9002)]);
    stage.beside(vec![stage.append(0, 9003), stage.append(1, 9004)]);
    stage.after(last);
    Some(())
}

/// Each sees the other's write.
fn circular(rng: &mut Rng, history: &mut History) -> Option<()> {
    let mut stage = Stage::new(rng, history);
    let (one, other) = (stage.read(1, &[9002]), stage.read(0, &[9001]));
    stage.beside(vec![stage.append(0, 9001), one]);
    stage.beside(vec![stage.append(1, 9002), other]);
    Some(())
}

/// One of the last clients sees a transaction in one list and not in the other. Without real time, so that nothing but
/// the cycle tells.
fn fractured(rng: &mut Rng, history: &mut History) -> Option<()> {
    at_least(history, Level::RepeatableRead)?;
    let [one, _] = last_looks(history);
    let cuts = |operation: &Operation<_>| is_acked(operation);
    let writers = places_of(history, cuts);
    let mut found = Vec::new();
    for txn in writers {
        let of_txn = |look: &&super::Looked| {
            seen(history, look).iter().any(|value| writer(history, *value) == Some(txn))
        };
        let lists: Vec<_> = one.iter().filter(of_txn).collect();
        if let [look, _, ..] = lists[..] {
            let values = seen(history, look);
            let place = values.iter().position(|value| writer(history, *value) == Some(txn))?;
            found.push((look.clone(), block_start(history, &values, place)));
        }
    }
    let (look, cut) = rng.pick(&found)?;
    list(history, &look)?.truncate(cut);
    history.0.real_time = false;
    Some(())
}

/// One reads two lists, and another writes both in between.
fn read_skew(rng: &mut Rng, history: &mut History) -> Option<()> {
    at_least(history, Level::RepeatableRead)?;
    let mut stage = Stage::new(rng, history);
    let torn = vec![stage.read(0, &[]), stage.read(1, &[9002])];
    stage.beside(vec![stage.append(0, 9001), stage.append(1, 9002)]);
    let last = vec![stage.read(0, &[9001])];
    stage.beside(torn);
    stage.after(last);
    Some(())
}

/// Two read the same and both append.
fn lost_update(rng: &mut Rng, history: &mut History) -> Option<()> {
    at_least(history, Level::RepeatableRead)?;
    let mut stage = Stage::new(rng, history);
    let (before, after) = (stage.read(0, &[]), stage.read(0, &[9001, 9002]));
    stage.beside(vec![before.clone(), stage.append(0, 9001)]);
    stage.beside(vec![before, stage.append(0, 9002)]);
    stage.after(vec![after]);
    Some(())
}

fn unrepeatable(rng: &mut Rng, history: &mut History) -> Option<()> {
    at_least(history, Level::RepeatableRead)?;
    let mut stage = Stage::new(rng, history);
    let (before, after) = (stage.read(0, &[]), stage.read(0, &[9001]));
    stage.beside(vec![stage.append(0, 9001)]);
    stage.beside(vec![before, after]);
    Some(())
}

/// Two readers see two writers in a different order each.
fn long_fork(rng: &mut Rng, history: &mut History) -> Option<()> {
    at_least(history, Level::RepeatableRead)?;
    let mut stage = Stage::new(rng, history);
    let one = vec![stage.read(0, &[9001]), stage.read(1, &[])];
    let other = vec![stage.read(0, &[]), stage.read(1, &[9002])];
    stage.beside(vec![stage.append(0, 9001)]);
    stage.beside(vec![stage.append(1, 9002)]);
    stage.beside(one);
    stage.beside(other);
    Some(())
}

/// Each misses the other's write. Snapshot isolation allows it.
fn write_skew(rng: &mut Rng, history: &mut History) -> Option<()> {
    at_least(history, Level::Serializable)?;
    let mut stage = Stage::new(rng, history);
    let (one, other) = (stage.read(0, &[]), stage.read(1, &[]));
    stage.beside(vec![one, stage.append(1, 9001)]);
    stage.beside(vec![other, stage.append(0, 9002)]);
    Some(())
}

fn write_skew_of_three(rng: &mut Rng, history: &mut History) -> Option<()> {
    at_least(history, Level::Serializable)?;
    let mut stage = Stage::new(rng, history);
    let reads = [0, 1, 2].map(|key| stage.read(key, &[]));
    for (place, (read, value)) in reads.into_iter().zip(9001..).enumerate() {
        stage.beside(vec![read, stage.append((place + 1) % 3, value)]);
    }
    Some(())
}
