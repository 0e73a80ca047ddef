//! Virtual time: what happens next.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::Duration;

use model::time::Moment;

/// Something at its moment, in the order of its making at the same moment.
#[derive(Debug)]
struct Entry<E> {
    key: (Moment, u64),
    event: E,
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key)
    }
}

/// Things that will happen, in the order of their moments, and of their making at the same moment.
#[derive(Debug)]
pub struct Agenda<E> {
    now: Moment,
    number: u64,
    entries: BinaryHeap<Reverse<Entry<E>>>,
}

impl<E> Agenda<E> {
    /// An empty agenda at a moment that is not zero, so that "never" and "at the start" differ.
    pub fn new() -> Self {
        Self { now: Moment::from_millis(1_000_000), number: 0, entries: BinaryHeap::new() }
    }

    /// Now.
    pub fn now(&self) -> Moment {
        self.now
    }

    /// Lets `event` happen after `delay`.
    pub fn after(&mut self, delay: Duration, event: E) {
        self.number += 1;
        self.entries.push(Reverse(Entry { key: (self.now + delay, self.number), event }));
    }

    /// Moves time to the next event.
    pub fn pop(&mut self) -> Option<E> {
        let Reverse(entry) = self.entries.pop()?;
        self.now = entry.key.0;
        Some(entry.event)
    }
}

impl<E> Default for Agenda<E> {
    fn default() -> Self {
        Self::new()
    }
}

/// One node's own clock: it began somewhere else and runs a little faster or slower than the others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// How far it is ahead at the start.
    pub(crate) ahead: Duration,
    /// How much faster it runs, in millionths.
    pub(crate) drift: u32,
}

/// How far two clocks drift apart at the most, in millionths: ten times what crystals do.
pub(crate) const MOST_DRIFT: u32 = 1000;

impl Clock {
    /// What it shows at `now`, when the simulation began at `start`.
    pub(crate) fn shows(&self, start: Moment, now: Moment) -> Moment {
        let passed = now.since(start);
        now + self.ahead + passed * self.drift / 1_000_000
    }
}
