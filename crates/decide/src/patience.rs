//! How long a probe of a server may go unanswered before the server counts as sick.
//!
//! A machine that is merely overloaded is no reason to fail over to another one, which often has the same load. So the
//! deadline follows what was seen of late, within bounds that keep a hung server from being waited for.

use std::time::Duration;

/// The deadline of a probe where answers come fast.
pub const SHORTEST: Duration = Duration::from_millis(900);
/// The deadline of a probe however late answers used to come.
pub const LONGEST: Duration = Duration::from_secs(3);

/// So many times as long as usual is too long.
const TOO_LONG: u32 = 3;
/// A new connection with a write takes about so many times as long as a question to an open one, with some to spare.
const PROBE_COSTS: u32 = 8;
/// The part of the excess of a late answer that each ordinary one takes away: a half in about 14 probes.
const FORGET: u32 = 20;

/// What was seen of how late answers come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patience {
    /// How long the slowest probes of late took.
    slowest: Duration,
    /// How long an open connection takes to answer now, and the own process to wake up.
    pressure: Duration,
}

impl Patience {
    /// A probe was answered after `took`.
    pub fn answered(&mut self, took: Duration) {
        // An answer that came after a hang says nothing about how late answers usually come.
        if took <= LONGEST {
            let excess = self.slowest.saturating_sub(took);
            self.slowest = if excess.is_zero() { took } else { self.slowest - excess / FORGET };
        }
    }

    /// An open connection answered, or the own process woke up, after `took`. Where that is slow too, neither the
    /// postmaster nor the disk hangs: the machine has too much to do.
    pub fn feel(&mut self, took: Duration) {
        self.pressure = took.max(self.pressure - self.pressure / PROBE_COSTS);
    }

    /// How long a probe may wait now.
    pub fn limit(&self) -> Duration {
        (self.slowest * TOO_LONG).max(self.pressure * PROBE_COSTS).clamp(SHORTEST, LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn fast_answers_leave_the_shortest_deadline() {
        let mut patience = Patience::default();
        assert_eq!(patience.limit(), SHORTEST);
        patience.answered(ms(20));
        patience.feel(ms(2));
        assert_eq!(patience.limit(), SHORTEST);
    }

    #[test]
    fn late_answers_make_it_longer_at_once_and_ordinary_ones_shorter_by_and_by() {
        let mut patience = Patience::default();
        patience.answered(ms(600));
        assert_eq!(patience.limit(), ms(1800));
        patience.answered(ms(20));
        assert!(patience.limit() < ms(1800) && patience.limit() > ms(1600), "{:?}", patience.limit());
        (0..14).for_each(|_| patience.answered(ms(20)));
        assert!(patience.limit() < ms(1000), "{:?}", patience.limit());
    }

    #[test]
    fn a_slow_machine_is_given_time_before_any_probe_was_late() {
        let mut patience = Patience::default();
        patience.feel(ms(250));
        assert_eq!(patience.limit(), ms(2000));
        (0..20).for_each(|_| patience.feel(ms(1)));
        assert_eq!(patience.limit(), SHORTEST);
    }

    #[test]
    fn a_hang_is_neither_waited_for_nor_learnt_from() {
        let mut patience = Patience::default();
        patience.feel(ms(5000));
        assert_eq!(patience.limit(), LONGEST);
        let mut patience = Patience::default();
        patience.answered(ms(30_000));
        assert_eq!(patience.limit(), SHORTEST);
    }
}
