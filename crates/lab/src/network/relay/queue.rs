//! When each frame goes on: delay, jitter, overtaking and doubles, without clock or devices.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use model::time::Moment;
use serde::{Deserialize, Serialize};

/// How a slow link treats what is sent over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// How late frames arrive.
    pub delay: Duration,
    /// How much earlier or later than that, by chance. Frames stay in order.
    pub jitter: Duration,
    /// So many of a hundred frames overtake those that wait.
    pub overtake: u8,
    /// So many of a hundred frames arrive twice.
    pub double: u8,
}

/// What a queue did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Carried {
    /// Frames that came late.
    pub(crate) frames: u64,
    /// How late, in microseconds, all together.
    pub(crate) late_us: u64,
    /// Frames that overtook others.
    pub(crate) overtook: u64,
    /// Frames that arrived twice.
    pub(crate) doubled: u64,
    /// Frames that found the queue full.
    pub(crate) refused: u64,
}

/// More frames than that wait nowhere: a second of a link of 100 Mbit.
const ROOM: usize = 10_000;

/// Frames that wait for their time; `T` says where a frame goes and what it holds.
#[derive(Debug)]
pub(super) struct Queue<T> {
    pace: Pace,
    waiting: BinaryHeap<Reverse<Waiting<T>>>,
    /// The latest time given to a frame that keeps its place.
    last: Moment,
    number: u64,
    dice: Dice,
    carried: Carried,
}

#[derive(Debug)]
struct Waiting<T> {
    at: Moment,
    number: u64,
    came: Moment,
    frame: T,
}

impl<T> PartialEq for Waiting<T> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<T> Eq for Waiting<T> {}

impl<T> PartialOrd for Waiting<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Waiting<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// `SplitMix64` (Steele, Lea, Flood 2014).
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides.max(1)
    }
}

impl<T: Clone> Queue<T> {
    pub(super) fn new(pace: Pace, seed: u64) -> Self {
        Self {
            pace,
            waiting: BinaryHeap::new(),
            last: Moment::default(),
            number: 0,
            dice: Dice(seed),
            carried: Carried::default(),
        }
    }

    /// Takes a frame that came at this moment.
    pub(super) fn take(&mut self, frame: T, came: Moment) {
        if self.waiting.len() >= ROOM {
            self.carried.refused += 1;
            return;
        }
        if self.dice.roll(100) < u64::from(self.pace.double) {
            self.carried.doubled += 1;
            self.wait(frame.clone(), came);
        }
        self.wait(frame, came);
    }

    fn wait(&mut self, frame: T, came: Moment) {
        let overtakes = self.dice.roll(100) < u64::from(self.pace.overtake) && !self.waiting.is_empty();
        let at = if overtakes {
            self.carried.overtook += 1;
            came
        } else {
            self.last = self.last.max(came + self.delay());
            self.last
        };
        self.number += 1;
        self.waiting.push(Reverse(Waiting { at, number: self.number, came, frame }));
    }

    fn delay(&mut self) -> Duration {
        let Pace { delay, jitter, .. } = self.pace;
        let span = u64::try_from(jitter.as_micros() * 2).unwrap_or(u64::MAX);
        let by_chance = Duration::from_micros(self.dice.roll(span.saturating_add(1)));
        (delay + by_chance).saturating_sub(jitter)
    }

    /// When the next frame goes on.
    pub(super) fn next(&self) -> Option<Moment> {
        self.waiting.peek().map(|Reverse(waiting)| waiting.at)
    }

    /// The next frame whose time has come.
    pub(super) fn due(&mut self, now: Moment) -> Option<T> {
        self.waiting.peek().filter(|Reverse(waiting)| waiting.at <= now)?;
        let Reverse(waiting) = self.waiting.pop()?;
        self.carried.frames += 1;
        self.carried.late_us += u64::try_from(now.since(waiting.came).as_micros()).unwrap_or(u64::MAX);
        Some(waiting.frame)
    }

    /// What was done so far.
    pub(super) const fn carried(&self) -> Carried {
        self.carried
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: Pace =
        Pace { delay: Duration::from_millis(50), jitter: Duration::from_millis(10), overtake: 0, double: 0 };

    /// The times at which frames sent every millisecond arrive, with their numbers.
    fn arrivals(pace: Pace) -> (Vec<(u64, u64)>, Carried) {
        let mut queue = Queue::new(pace, 7);
        let mut arrived = vec![];
        for ms in 0..2000 {
            let now = Moment::from_millis(ms);
            if ms < 1000 {
                queue.take(ms, now);
            }
            arrived.extend(std::iter::from_fn(|| queue.due(now)).map(|number| (number, ms)));
        }
        assert_eq!(queue.next(), None, "all have gone on");
        (arrived, queue.carried())
    }

    #[test]
    fn frames_come_late_by_the_delay_and_stay_in_order() {
        let (arrived, carried) = arrivals(SLOW);
        assert!(arrived.is_sorted_by_key(|(number, _)| *number));
        assert!(arrived.iter().all(|(number, ms)| (40..=61).contains(&(ms - number))), "{arrived:?}");
        assert!(arrived.iter().any(|(number, ms)| ms - number < 50), "some come earlier than the mean");
        assert_eq!((arrived.len(), carried.frames, carried.overtook, carried.doubled), (1000, 1000, 0, 0));
        let mean = carried.late_us / carried.frames;
        assert!((50_000..=61_000).contains(&mean), "{mean}");
    }

    #[test]
    fn some_overtake_and_some_come_twice() {
        let (arrived, carried) = arrivals(Pace { overtake: 25, double: 10, ..SLOW });
        assert!(!arrived.is_sorted_by_key(|(number, _)| *number));
        assert!((50..150).contains(&carried.doubled), "{carried:?}");
        assert!((200..350).contains(&carried.overtook), "{carried:?}");
        assert_eq!(arrived.len() as u64, 1000 + carried.doubled);
    }

    #[test]
    fn a_full_queue_takes_nothing_more() {
        let mut queue = Queue::new(SLOW, 7);
        (0..ROOM + 5).for_each(|number| queue.take(number, Moment::default()));
        assert_eq!(queue.carried().refused, 5);
    }
}
