//! How long an answer usually takes, and when waiting for one instance alone is no longer reasonable.

use std::time::Duration;

/// Weight of one answer against all before: 1/16.
const WEIGHT: u32 = 16;
/// An answer that takes this many times the average is late.
const LATE: u32 = 20;
/// Nothing is called late before this: schedulers and garbage collectors pause for so long.
const EARLIEST: Duration = Duration::from_millis(20);
/// Everything is called late after this.
const LATEST: Duration = Duration::from_secs(2);
/// Before the first answer nothing is known.
const UNKNOWN: Duration = Duration::from_secs(1);

/// A moving average of times to an answer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Average(Option<Duration>);

impl Average {
    /// Counts an answer.
    pub(super) fn observe(&mut self, taken: Duration) {
        self.0 = Some(self.0.map_or(taken, |average| (average * (WEIGHT - 1) + taken) / WEIGHT));
    }

    /// The average; `None` before the first answer.
    pub(super) fn get(&self) -> Option<Duration> {
        self.0
    }
}

/// The moving average of the time from a request to the head of its answer, over all instances of a route, so that a
/// slow instance does not earn itself more patience.
#[derive(Clone, Copy, Debug, Default)]
pub struct Latency {
    average: Average,
}

impl Latency {
    /// Counts an answer.
    pub fn observe(&mut self, taken: Duration) {
        self.average.observe(taken);
    }

    /// When to ask a second instance too, if the request may be repeated.
    pub fn deadline(&self) -> Duration {
        self.average.get().map_or(UNKNOWN, |average| (average * LATE).clamp(EARLIEST, LATEST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deadline_follows_what_is_usual() {
        let mut latency = Latency::default();
        assert_eq!(latency.deadline(), UNKNOWN);
        latency.observe(Duration::from_micros(300));
        assert_eq!(latency.deadline(), EARLIEST);
        (0..100).for_each(|_| latency.observe(Duration::from_millis(10)));
        let deadline = latency.deadline();
        assert!((190..=200).contains(&deadline.as_millis()), "{deadline:?}");
        (0..200).for_each(|_| latency.observe(Duration::from_secs(1)));
        assert_eq!(latency.deadline(), LATEST);
    }
}
