//! How long one attempt to reach a member may take, and how long to pause between rounds of attempts.

use std::time::Duration;

use model::time::Moment;

/// An attempt to connect never takes longer than this.
const CONNECT_LONGEST: Duration = Duration::from_secs(1);
/// The first attempt is cut early: the kernel repeats a lost first packet only after a second, while a member whose
/// gate has just opened would have answered a new one at once.
const CONNECT_FIRST: Duration = Duration::from_millis(150);
/// The shortest pause after every member has refused.
const RETRY_FIRST: Duration = Duration::from_millis(20);
/// The longest pause after every member has refused.
pub const RETRY_LONGEST: Duration = Duration::from_millis(320);
/// How long a member may leave a client's first message unanswered while there are others to ask.
const ANSWER: Duration = Duration::from_secs(1);
/// Who leaves all attempts to connect without an answer for so long is out of this node's reach. Were it dead, the table
/// would say so by now; so it is cut off from this node alone, or this node from everybody.
const OUT_OF_REACH: Duration = Duration::from_secs(2);

/// One client's attempts so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patience {
    attempts: u32,
    rounds: u32,
}

impl Patience {
    /// How long the next attempt to connect may take: 150 ms, doubling up to a second.
    pub fn next_connect(&mut self) -> Duration {
        let wait = doubled(CONNECT_FIRST, self.attempts, CONNECT_LONGEST);
        self.attempts = self.attempts.saturating_add(1);
        wait
    }

    /// How long to pause after all members have failed: 20 ms, doubling up to [`RETRY_LONGEST`]. A change of the
    /// table ends the pause.
    pub fn next_pause(&mut self) -> Duration {
        let wait = doubled(RETRY_FIRST, self.rounds, RETRY_LONGEST);
        self.rounds = self.rounds.saturating_add(1);
        wait
    }

    /// Whether members that have left attempts to connect without an answer since then are not to be waited for.
    pub fn is_over(since: Moment, now: Moment) -> bool {
        now.since(since) >= OUT_OF_REACH
    }

    /// How long to wait for a member's first byte: for ever if there is no other one to ask.
    pub fn answer(others: usize) -> Option<Duration> {
        (others > 0).then_some(ANSWER)
    }
}

fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    first.saturating_mul(1_u32.checked_shl(times.min(20)).unwrap_or(u32::MAX)).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_their_limits() {
        let mut patience = Patience::default();
        let connects: Vec<_> = (0..5).map(|_| patience.next_connect().as_millis()).collect();
        assert_eq!(connects, [150, 300, 600, 1000, 1000]);
        let pauses: Vec<_> = (0..6).map(|_| patience.next_pause().as_millis()).collect();
        assert_eq!(pauses, [20, 40, 80, 160, 320, 320]);
    }

    #[test]
    fn the_only_member_is_given_all_the_time_it_wants() {
        assert_eq!(Patience::answer(0), None);
        assert_eq!(Patience::answer(1), Some(ANSWER));
    }
}
