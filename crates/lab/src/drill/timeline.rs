//! A run in the order of time: what the client saw beside what was done and what the system said. Milliseconds count from
//! the fault's first act.

use model::event::Event;
use model::time::Moment;
use serde::Serialize;

use super::report::round;

/// One run in the order of time.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Timeline {
    /// When the fault's first act began, by the wall clock, in microseconds since the Unix epoch.
    pub begun_us: i64,
    /// When the client's writes were acknowledged.
    pub acknowledged: Vec<f64>,
    /// When its writes failed, or turned out to have an unknown outcome.
    pub errors: Vec<f64>,
    /// The longest time without an acknowledgement that the fault caused.
    pub outage: Option<(f64, f64)>,
    /// What was done to the system.
    pub deeds: Vec<(f64, String)>,
    /// From when on the system named which primary.
    pub primaries: Vec<(f64, Option<String>)>,
    /// From when on the system said that it was fully redundant, or was not.
    pub redundant: Vec<(f64, bool)>,
    /// What the system wrote down.
    pub events: Vec<(f64, Event)>,
    /// When the measurement ended.
    pub end: f64,
}

impl Timeline {
    /// Adds what the system wrote down during the run. Nodes on one machine share its clock.
    pub fn add_events(&mut self, events: Vec<Event>) {
        let at = |event: &Event| {
            let since_us = event.at_us - self.begun_us;
            round(
                std::time::Duration::from_micros(since_us.unsigned_abs()).as_secs_f64()
                    * 1000.0
                    * sign(since_us),
            )
        };
        let mut placed: Vec<(f64, Event)> = events.into_iter().map(|event| (at(&event), event)).collect();
        placed.retain(|(at, _)| (0.0..=self.end).contains(at));
        placed.sort_by(|a, b| a.0.total_cmp(&b.0));
        self.events = placed;
    }
}

const fn sign(value: i64) -> f64 {
    if value < 0 { -1.0 } else { 1.0 }
}

/// Milliseconds from `begun` to `at`; negative before it.
pub(super) fn relative(begun: Moment, at: Moment) -> f64 {
    round(at.since(begun).as_secs_f64() * 1000.0 - begun.since(at).as_secs_f64() * 1000.0)
}

/// The longest time between two acknowledgements that ends after the fault and begins before `until`.
pub(super) fn longest(acknowledged: &[f64], until: f64) -> Option<(f64, f64)> {
    let gaps = acknowledged.windows(2).map(|pair| (pair[0], pair[1]));
    let caused = gaps.filter(|(from, to)| *to > 0.0 && *from < until);
    caused.max_by(|a, b| (a.1 - a.0).total_cmp(&(b.1 - b.0)))
}

/// Keeps the first of equal values in a row.
pub(super) fn changes<T: PartialEq>(values: impl IntoIterator<Item = (f64, T)>) -> Vec<(f64, T)> {
    let mut kept: Vec<(f64, T)> = Vec::new();
    for (at, value) in values {
        if kept.last().is_none_or(|(_, last)| *last != value) {
            kept.push((at, value));
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use model::event::Severity;

    use super::*;

    #[test]
    fn the_longest_gap_is_one_that_the_fault_caused() {
        let acknowledged = [-900.0, -100.0, -10.0, 400.0, 410.0, 5000.0];
        assert_eq!(longest(&acknowledged, 3000.0), Some((410.0, 5000.0)));
        assert_eq!(longest(&acknowledged, 400.0), Some((-10.0, 400.0)));
        assert_eq!(longest(&acknowledged[..2], 400.0), None);
    }

    #[test]
    fn events_of_other_times_are_left_out() {
        let event = |at_us| Event {
            at_us,
            node: "a".into(),
            severity: Severity::Info,
            subject: "system".to_owned(),
            what: "it".to_owned(),
            because: String::new(),
        };
        let mut timeline = Timeline { begun_us: 1_000_000, end: 100.0, ..Timeline::default() };
        timeline.add_events([999_000, 1_050_000, 1_002_500, 1_200_000].map(event).into());
        let at: Vec<f64> = timeline.events.iter().map(|(at, _)| *at).collect();
        assert_eq!(at, [2.5, 50.0]);
    }

    #[test]
    fn only_changes_are_kept() {
        assert_eq!(
            changes([(1.0, 'a'), (2.0, 'a'), (3.0, 'b'), (4.0, 'a')]),
            [(1.0, 'a'), (3.0, 'b'), (4.0, 'a')]
        );
    }
}
