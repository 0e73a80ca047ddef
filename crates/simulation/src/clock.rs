//! Virtual time: what happens next.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use model::time::Moment;

/// Things that will happen, in the order of their moments, and of their making at the same moment.
#[derive(Debug)]
pub struct Agenda<E> {
    now: Moment,
    number: u64,
    order: BinaryHeap<Reverse<(Moment, u64)>>,
    events: BTreeMap<u64, E>,
}

impl<E> Agenda<E> {
    /// An empty agenda at a moment that is not zero, so that "never" and "at the start" differ.
    pub fn new() -> Self {
        Self {
            now: Moment::from_millis(1_000_000),
            number: 0,
            order: BinaryHeap::new(),
            events: BTreeMap::new(),
        }
    }

    /// Now.
    pub fn now(&self) -> Moment {
        self.now
    }

    /// Lets `event` happen after `delay`.
    pub fn after(&mut self, delay: Duration, event: E) {
        self.number += 1;
        self.order.push(Reverse((self.now + delay, self.number)));
        self.events.insert(self.number, event);
    }

    /// Moves time to the next event.
    pub fn pop(&mut self) -> Option<E> {
        let Reverse((at, number)) = self.order.pop()?;
        self.now = at;
        self.events.remove(&number)
    }
}

impl<E> Default for Agenda<E> {
    fn default() -> Self {
        Self::new()
    }
}
