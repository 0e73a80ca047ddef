//! Is that node silent? A detector fed with heartbeats.
//!
//! A healthy node is heard every 50 ms on every line. Gaps grow when either side is busy, so the limit follows the gaps
//! that were seen: a machine whose heartbeats come late is given more time. A gap is judged against the limit learnt
//! before it, never one it has raised itself.

use std::time::Duration;

use model::time::Moment;

/// How often a heartbeat is sent.
pub const HEARTBEAT: Duration = Duration::from_millis(50);

/// The shortest silence that counts: six heartbeats.
pub const SHORTEST_LIMIT: Duration = Duration::from_millis(300);

/// The longest silence tolerated, however late heartbeats used to come.
pub const LONGEST_LIMIT: Duration = Duration::from_millis(1500);

/// How fast a large gap is forgotten: the part of the excess that each ordinary heartbeat takes away (a half in ~7 s).
const FORGET: u32 = 200;

/// Hears one node over all lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detector {
    last_heard: Option<Moment>,
    typical_worst_gap: Duration,
}

/// What the detector says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hearing {
    /// Never heard.
    Never,
    /// Heard recently; without another heartbeat it becomes silent at `until`.
    Heard {
        /// When it will count as silent.
        until: Moment,
    },
    /// Not heard for longer than the limit.
    Silent {
        /// When it was heard last.
        since: Moment,
    },
}

impl Default for Detector {
    fn default() -> Self {
        Self { last_heard: None, typical_worst_gap: HEARTBEAT }
    }
}

impl Detector {
    /// A heartbeat or any other message arrived at `now`.
    pub fn heard(&mut self, now: Moment) {
        if let Some(last) = self.last_heard {
            self.learn(now.since(last));
        }
        self.last_heard = Some(self.last_heard.map_or(now, |last| last.max(now)));
    }

    /// A connection to it was established at `now`, so it lives. That says nothing about how late its heartbeats come.
    pub fn connected(&mut self, now: Moment) {
        self.last_heard = Some(self.last_heard.map_or(now, |last| last.max(now)));
    }

    /// This node itself stood still for `gap`: nobody could be heard, so nobody was silent.
    pub fn stood_still(&mut self, gap: Duration) {
        self.last_heard = self.last_heard.map(|last| last + gap);
    }

    fn learn(&mut self, gap: Duration) {
        if gap > LONGEST_LIMIT {
            return; // An outage, not a late heartbeat: it says nothing about how late heartbeats usually come.
        }
        let excess = self.typical_worst_gap.saturating_sub(gap);
        self.typical_worst_gap =
            if excess.is_zero() { gap } else { self.typical_worst_gap - excess / FORGET };
    }

    /// How long a silence is tolerated now: three times the worst gap of late, within fixed bounds.
    pub fn limit(&self) -> Duration {
        (self.typical_worst_gap * 3).clamp(SHORTEST_LIMIT, LONGEST_LIMIT)
    }

    /// What to say at `now`.
    pub fn hearing(&self, now: Moment) -> Hearing {
        match self.last_heard {
            None => Hearing::Never,
            Some(last) if now.since(last) >= self.limit() => Hearing::Silent { since: last },
            Some(last) => Hearing::Heard { until: last + self.limit() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::from_millis(ms)
    }

    fn fed(gaps_ms: &[u64]) -> (Detector, u64) {
        let (mut detector, mut now) = (Detector::default(), 0);
        detector.heard(at(0));
        for gap in gaps_ms {
            now += gap;
            detector.heard(at(now));
        }
        (detector, now)
    }

    #[test]
    fn a_regular_node_is_silent_after_six_heartbeats() {
        let (detector, now) = fed(&[50; 40]);
        assert_eq!(detector.hearing(at(now + 299)), Hearing::Heard { until: at(now + 300) });
        assert_eq!(detector.hearing(at(now + 300)), Hearing::Silent { since: at(now) });
    }

    #[test]
    fn while_nobody_listened_nobody_was_silent() {
        let (mut detector, now) = fed(&[50; 40]);
        detector.stood_still(Duration::from_secs(6));
        assert_eq!(detector.hearing(at(now + 6_010)), Hearing::Heard { until: at(now + 6_300) });
        let mut never = Detector::default();
        never.stood_still(Duration::from_secs(6));
        assert_eq!(never.hearing(at(7_000)), Hearing::Never);
    }

    #[test]
    fn a_node_that_stutters_is_given_more_time_and_earns_it_back() {
        let (detector, _) = fed(&[50, 50, 220]);
        assert_eq!(detector.limit(), Duration::from_millis(660));
        let (detector, _) = fed(&[&[220][..], &[50; 1000]].concat());
        assert_eq!(detector.limit(), SHORTEST_LIMIT);
    }

    #[test]
    fn an_outage_does_not_make_the_next_one_slower_to_see() {
        let (detector, _) = fed(&[50, 60_000, 50]);
        assert_eq!(detector.limit(), SHORTEST_LIMIT);
    }

    #[test]
    fn a_node_that_has_just_connected_is_given_time_for_its_first_heartbeat() {
        let (mut detector, now) = fed(&[50; 40]);
        detector.connected(at(now + 750));
        assert_eq!(detector.hearing(at(now + 760)), Hearing::Heard { until: at(now + 1050) });
        assert_eq!(detector.limit(), SHORTEST_LIMIT);
    }

    #[test]
    fn never_heard_is_not_silent() {
        assert_eq!(Detector::default().hearing(at(99_999)), Hearing::Never);
    }
}
