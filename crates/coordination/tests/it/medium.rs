//! A disk that loses power: whatever was written since the last flush may survive, or not, or in part.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use redb::StorageBackend;

/// What a disk writes whole or, when torn, not even that.
const SECTOR: usize = 512;

/// What reaches the disk, in its order.
// Two test binaries use this file, neither all of it.
#[allow(dead_code)]
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Write {
        at: usize,
        data: Vec<u8>,
    },
    Length(usize),
    Flushed,
    /// A note of the test's own between two steps.
    Note(u64),
}

/// Whether the disk keeps its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    Kept,
    /// The control: it reports a flush and keeps everything in its cache.
    FlushIsALie,
}

/// What becomes of the writes that were not flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// None of them reached the disk.
    Everything,
    /// All of them did.
    Nothing,
    /// Each sector holds any of its versions since the flush.
    AnySectors,
    /// As [`Loss::AnySectors`], and a sector may end in the middle of a write.
    Torn,
}

pub(crate) const LOSSES: [Loss; 4] = [Loss::Everything, Loss::Nothing, Loss::AnySectors, Loss::Torn];

/// The disk. Clones are the same disk.
#[derive(Clone, Debug)]
pub(crate) struct Medium(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    word: Word,
    power: bool,
    /// What a reader sees.
    view: Vec<u8>,
    /// What was there before the first step.
    base: Vec<u8>,
    steps: Vec<Step>,
    /// Steps are kept for good, not only until the next flush.
    traced: bool,
}

// Two test binaries use this file, neither all of it.
#[allow(dead_code)]
impl Medium {
    pub(crate) fn new(content: Vec<u8>, word: Word) -> Self {
        Self::with(content, word, false)
    }

    /// A disk that remembers everything that ever reached it.
    pub(crate) fn traced(content: Vec<u8>, word: Word) -> Self {
        Self::with(content, word, true)
    }

    fn with(content: Vec<u8>, word: Word, traced: bool) -> Self {
        let (view, base) = (content.clone(), content);
        Self(Arc::new(Mutex::new(Inner { word, power: true, view, base, steps: Vec::new(), traced })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    /// Breaks its word from now on.
    pub(crate) fn lie(&self) {
        self.lock().word = Word::FlushIsALie;
    }

    pub(crate) fn note(&self, number: u64) {
        self.lock().steps.push(Step::Note(number));
    }

    /// All that happened so far, for [`left`].
    pub(crate) fn trace(&self) -> (Vec<u8>, Vec<Step>) {
        let inner = self.lock();
        (inner.base.clone(), inner.steps.clone())
    }

    /// Cuts the power: whoever still uses this disk is dead and gets errors; what is left is a new one.
    pub(crate) fn lose_power(&self, loss: Loss, dice: &mut Dice) -> Self {
        let mut inner = self.lock();
        inner.power = false;
        // A disk that lied loses all of it: in parts, the store would be found broken, which is another matter.
        let loss = if inner.word == Word::FlushIsALie { Loss::Everything } else { loss };
        Self::with(left(&inner.base, &inner.steps, loss, dice), inner.word, inner.traced)
    }
}

impl Inner {
    fn alive(&self) -> io::Result<()> {
        if self.power { Ok(()) } else { Err(io::Error::other("no power")) }
    }

    fn take(&mut self, step: Step) {
        apply(&mut self.view, &step);
        self.steps.push(step);
    }
}

fn apply(content: &mut Vec<u8>, step: &Step) {
    match step {
        Step::Write { at, data } => content[*at..*at + data.len()].copy_from_slice(data),
        Step::Length(length) => content.resize(*length, 0),
        Step::Flushed | Step::Note(_) => {}
    }
}

impl StorageBackend for Medium {
    fn len(&self) -> io::Result<u64> {
        let inner = self.lock();
        inner.alive()?;
        Ok(inner.view.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let inner = self.lock();
        inner.alive()?;
        let at = usize::try_from(offset).unwrap();
        let found = inner.view.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut inner = self.lock();
        inner.alive()?;
        inner.take(Step::Length(usize::try_from(len).unwrap()));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.lock();
        inner.alive()?;
        match inner.word {
            Word::FlushIsALie => {}
            Word::Kept if inner.traced => inner.steps.push(Step::Flushed),
            Word::Kept => {
                inner.base = inner.view.clone();
                inner.steps.clear();
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut inner = self.lock();
        inner.alive()?;
        let at = usize::try_from(offset).unwrap();
        if at + data.len() > inner.view.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        inner.take(Step::Write { at, data: data.to_vec() });
        Ok(())
    }
}

/// What the disk holds after a power loss behind these steps.
pub(crate) fn left(base: &[u8], steps: &[Step], loss: Loss, dice: &mut Dice) -> Vec<u8> {
    let flushed = steps.iter().rposition(|step| matches!(step, Step::Flushed)).map_or(0, |last| last + 1);
    let mut durable = base.to_vec();
    steps[..flushed].iter().for_each(|step| apply(&mut durable, step));
    let pending = &steps[flushed..];
    match loss {
        Loss::Everything => durable,
        Loss::Nothing => {
            pending.iter().for_each(|step| apply(&mut durable, step));
            durable
        }
        Loss::AnySectors | Loss::Torn => mixed(durable, pending, loss == Loss::Torn, dice),
    }
}

/// Every version that each sector had, the durable one first.
type Versions = BTreeMap<usize, Vec<[u8; SECTOR]>>;

fn mixed(durable: Vec<u8>, pending: &[Step], torn: bool, dice: &mut Dice) -> Vec<u8> {
    let mut versions = Versions::new();
    let mut lengths = vec![durable.len()];
    let mut running = durable.clone();
    for step in pending {
        let before = running.len();
        let touched = match step {
            Step::Write { at, data } => *at..at + data.len(),
            Step::Length(length) => (*length).min(before)..before,
            Step::Flushed | Step::Note(_) => continue,
        };
        let sectors = touched.start / SECTOR..touched.end.div_ceil(SECTOR);
        for sector in sectors.clone().filter(|_| !touched.is_empty()) {
            versions.entry(sector).or_insert_with(|| vec![whole(&running, sector)]);
        }
        apply(&mut running, step);
        lengths.push(running.len());
        for sector in sectors.filter(|_| !touched.is_empty()) {
            versions.get_mut(&sector).unwrap().push(whole(&running, sector));
        }
    }
    let longest = lengths.iter().copied().max().unwrap();
    let mut result = durable;
    result.resize(longest.div_ceil(SECTOR) * SECTOR, 0);
    for (sector, versions) in versions {
        let chosen = dice.below(versions.len());
        let mut content = versions[chosen];
        if torn && chosen > 0 && dice.below(4) == 0 {
            let end = dice.below(SECTOR);
            content[end..].copy_from_slice(&versions[chosen - 1][end..]);
        }
        result[sector * SECTOR..][..SECTOR].copy_from_slice(&content);
    }
    result.truncate(lengths[dice.below(lengths.len())]);
    result
}

/// A sector, filled up with zeros behind the end.
fn whole(content: &[u8], sector: usize) -> [u8; SECTOR] {
    let mut found = [0; SECTOR];
    let start = (sector * SECTOR).min(content.len());
    let end = (start + SECTOR).min(content.len());
    found[..end - start].copy_from_slice(&content[start..end]);
    found
}

/// Numbers from a seed.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Self(seed);
        dice.next();
        dice
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Below `end`; 0 when there is nothing below.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap() % end.max(1)
    }
}
