//! How much of a route's traffic an instance should get beside the others.
//!
//! Its weight in the file, less while it has just come (slow start) and while its answers take longer than is usual. An
//! instance never gets nothing: only so is it seen when it has become faster.

use std::time::Duration;

use model::time::Moment;

use super::latency::Average;

/// A whole: the share of an instance with weight 1 that is warm and as fast as the others.
pub(super) const WHOLE: u64 = 1000;
/// What an instance begins with, of a thousand.
const COLD: u64 = 100;
/// What is left to the slowest, of a thousand.
const SLOWEST: u64 = 125;
/// Answers that take up to so many times what is usual are as good as any: less is chance.
const USUAL: u32 = 2;
/// Nobody is slow below this: what schedulers add is not the instance's.
const QUICK: Duration = Duration::from_millis(1);

/// What the share of one instance depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    weight: u64,
    /// When it began to take requests, or began again.
    warm_since: Moment,
    /// Of a thousand, by how long its answers take.
    pace: u64,
    /// How long its answers take.
    pub(super) latency: Average,
}

impl Share {
    /// The share of an instance that begins now.
    pub(super) fn new(weight: u32, now: Moment) -> Self {
        Self { weight: u64::from(weight.max(1)), warm_since: now, pace: WHOLE, latency: Average::default() }
    }

    pub(super) fn set_weight(&mut self, weight: u32) {
        self.weight = u64::from(weight.max(1));
    }

    /// It begins again: whatever it had warmed up may be cold, and how fast it was says nothing.
    pub(super) fn restart(&mut self, now: Moment) {
        self.warm_since = now;
        self.pace = WHOLE;
        self.latency = Average::default();
    }

    /// Judges its pace by what is usual on the route.
    pub(super) fn compare(&mut self, usual: Duration) {
        let bound = usual.max(QUICK) * USUAL;
        self.pace = match self.latency.get() {
            Some(own) if own > bound => {
                let part = bound.as_micros() * u128::from(WHOLE) / own.as_micros().max(1);
                u64::try_from(part).unwrap_or(WHOLE).max(SLOWEST)
            }
            Some(_) | None => WHOLE,
        };
    }

    /// The share now; never 0.
    pub(super) fn now(&self, slow_start: Duration, now: Moment) -> u64 {
        let age = now.since(self.warm_since);
        let warmth = if age >= slow_start {
            WHOLE
        } else {
            let part = age.as_micros() * u128::from(WHOLE - COLD) / slow_start.as_micros().max(1);
            COLD + u64::try_from(part).unwrap_or(WHOLE - COLD)
        };
        (self.weight * warmth * self.pace / WHOLE).max(1)
    }
}

/// What is usual among these: the lower median, so that one slow instance of two is not the measure.
pub(super) fn usual(latencies: impl Iterator<Item = Duration>) -> Option<Duration> {
    let mut latencies: Vec<Duration> = latencies.collect();
    latencies.sort_unstable();
    let middle = latencies.len().checked_sub(1)? / 2;
    latencies.get(middle).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: Moment = Moment::from_millis(1000);
    const SLOW_START: Duration = Duration::from_secs(10);

    fn share_after(share: &Share, millis: u64) -> u64 {
        share.now(SLOW_START, BEGIN + Duration::from_millis(millis))
    }

    #[test]
    fn a_new_instance_begins_with_a_tenth_and_gets_its_weight_in_the_end() {
        let share = Share::new(4, BEGIN);
        let seen = [0, 5_000, 10_000, 99_000].map(|millis| share_after(&share, millis));
        assert_eq!(seen, [400, 2200, 4000, 4000]);
        assert_eq!(share.now(Duration::ZERO, BEGIN), 4000, "without a slow start at once");
    }

    #[test]
    fn the_slower_it_answers_the_less_it_gets_but_never_nothing() {
        let usual = Duration::from_millis(10);
        for (millis, expected) in [(1, 1000), (19, 1000), (40, 500), (80, 250), (10_000, 125)] {
            let mut share = Share::new(1, BEGIN);
            share.latency.observe(Duration::from_millis(millis));
            share.compare(usual);
            assert_eq!(share_after(&share, 10_000), expected, "{millis} ms beside 10 ms");
        }
    }

    #[test]
    fn what_a_scheduler_adds_to_quick_answers_is_no_slowness() {
        let mut share = Share::new(1, BEGIN);
        share.latency.observe(Duration::from_micros(1900));
        share.compare(Duration::from_micros(80));
        assert_eq!(share_after(&share, 10_000), 1000);
    }

    #[test]
    fn one_slow_instance_of_two_is_not_what_is_usual() {
        let millis = |list: &[u64]| usual(list.iter().map(|millis| Duration::from_millis(*millis)));
        assert_eq!(millis(&[900, 1]), Some(Duration::from_millis(1)));
        assert_eq!(millis(&[3, 900, 1]), Some(Duration::from_millis(3)));
        assert_eq!(millis(&[]), None);
    }
}
