//! How long a probe of a server may go unanswered before the server counts as sick.
//!
//! A machine that is merely overloaded is no reason to fail over to another one, which often has the same load. So the
//! deadline follows what was seen of late, within bounds that keep a hung server from being waited for: how long probes
//! took, how late open connections and the own process answer, and how long the server's processes wait for a processor. The
//! last is what tells of a burst before any probe was late: a new connection is several processes' work, one after the
//! other, and each waits for its turn.
//!
//! Where others withhold the processor from the server (a quota, a hypervisor), its load would not come along to whoever
//! takes its place, so there is no reason for patience.

use std::time::Duration;

/// The deadline of a probe where answers come fast.
pub const SHORTEST: Duration = Duration::from_millis(900);
/// The deadline of a probe however late answers used to come.
pub const LONGEST: Duration = Duration::from_secs(3);

/// How long an open connection may take to answer where answers come fast.
pub const SHORTEST_ANSWER: Duration = Duration::from_millis(700);

/// So many times as long as usual is too long.
const TOO_LONG: u32 = 3;
/// A new connection with a write takes about so many times as long as a question to an open one, with some to spare.
const PROBE_COSTS: u32 = 8;
/// How long a new connection to a primary that has just been promoted may take in the rush of all its clients.
const RUSH: Duration = Duration::from_millis(600);
/// The part of the excess of a late answer that each ordinary one takes away: a half in about 14 probes.
const FORGET: u32 = 20;

/// A machine is crowded when a process with something to do waits for so many times as long as it then runs. Two
/// systems under load on two cores have 1 to 1.5, one that gets only what others leave 5 to 14.
const CROWDED: f64 = 3.0;
/// The part of what was seen of turns that each look takes away: a half in about 5 looks.
const FORGET_TURNS: u32 = 8;

/// What was seen of how late answers come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patience {
    /// How long the slowest probes of late took.
    slowest: Duration,
    /// How long an open connection takes to answer now, and the own process to wake up.
    pressure: Duration,
    /// For how long the server's processes ran of late, and for how long they waited for a processor.
    turns: (Duration, Duration),
    /// Whether almost all of a processor is withheld from the server.
    withheld: bool,
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

    /// The server has just become the primary, or is looked at for the first time as one: all clients come at once, and
    /// the first connections take longer than they ever will. Ordinary answers make up for it within some seconds.
    pub fn expect_a_rush(&mut self) {
        self.slowest = self.slowest.max(RUSH);
    }

    /// An open connection answered, or the own process woke up, after `took`. Where that is slow too, neither the
    /// postmaster nor the disk hangs: the machine has too much to do.
    pub fn feel(&mut self, took: Duration) {
        self.pressure = took.max(self.pressure - self.pressure / PROBE_COSTS);
    }

    /// The server's processes ran for `ran` since the last look, and waited for a processor for `waited`.
    pub fn take_turns(&mut self, ran: Duration, waited: Duration) {
        let keep = |sum: Duration, new: Duration| sum - sum / FORGET_TURNS + new;
        self.turns = (keep(self.turns.0, ran), keep(self.turns.1, waited));
    }

    /// Whether almost all of a processor is withheld from the server, as seen now.
    pub const fn note_withheld(&mut self, withheld: bool) {
        self.withheld = withheld;
    }

    /// How many times slower than on a machine with processors to spare everything is that has to run; 1 there.
    fn crowd(&self) -> f64 {
        let (ran, waited) = self.turns;
        if ran.is_zero() { 1.0 } else { (waited.as_secs_f64() / ran.as_secs_f64() / CROWDED).max(1.0) }
    }

    /// How long a probe may wait now.
    pub fn limit(&self) -> Duration {
        if self.withheld {
            return SHORTEST;
        }
        let crowded = SHORTEST.mul_f64(self.crowd().min(LONGEST.as_secs_f64() / SHORTEST.as_secs_f64()));
        (self.slowest * TOO_LONG).max(self.pressure * PROBE_COSTS).max(crowded).clamp(SHORTEST, LONGEST)
    }

    /// How long an open connection may take to answer now: a server whose sessions all hang is found as soon as one that
    /// takes no new ones.
    pub fn answer_limit(&self) -> Duration {
        (self.limit() / 2).max(SHORTEST_ANSWER)
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
    fn a_new_primary_is_given_twice_as_long_and_then_less_and_less() {
        let mut patience = Patience::default();
        patience.expect_a_rush();
        assert_eq!(patience.limit(), 2 * SHORTEST);
        (0..20).for_each(|_| patience.answered(ms(20)));
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
    fn who_is_kept_from_running_by_others_is_not_waited_for() {
        let mut patience = Patience::default();
        patience.feel(ms(900));
        patience.take_turns(ms(5), ms(800));
        assert_eq!(patience.limit(), LONGEST);
        patience.note_withheld(true);
        assert_eq!((patience.limit(), patience.answer_limit()), (SHORTEST, SHORTEST_ANSWER));
        patience.note_withheld(false);
        assert_eq!(patience.limit(), LONGEST);
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

    #[test]
    fn a_crowded_machine_is_given_time_and_one_with_processors_to_spare_none() {
        let mut patience = Patience::default();
        (0..20).for_each(|_| patience.take_turns(ms(4), ms(8)));
        assert_eq!(patience.limit(), SHORTEST, "a machine that is busy is not crowded");
        assert_eq!(patience.answer_limit(), SHORTEST_ANSWER);
        (0..5).for_each(|_| patience.take_turns(ms(4), ms(80)));
        assert!(patience.limit() > ms(2400), "half a second of a crowd: {:?}", patience.limit());
        (0..99).for_each(|_| patience.take_turns(ms(4), ms(400)));
        assert_eq!(patience.limit(), LONGEST, "a server that hangs is found on a busy machine too");
        assert_eq!(patience.answer_limit(), ms(1500));
        (0..60).for_each(|_| patience.take_turns(ms(4), Duration::ZERO));
        assert_eq!(patience.limit(), SHORTEST);
    }

    #[test]
    fn where_nobody_counts_turns_nothing_is_given() {
        let mut patience = Patience::default();
        patience.take_turns(Duration::ZERO, Duration::ZERO);
        assert_eq!(patience.limit(), SHORTEST);
    }
}
