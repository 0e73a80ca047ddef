//! Whether live traffic finds an instance fit.
//!
//! Fit until failures in a row add up; then ejected for a while; then asked by a probe of the proxy's own, so that no
//! client has to find out; then on trial with a single request, which makes it fit again or ejects it for twice as long.

use std::time::Duration;

use model::time::Moment;

/// Failures that add up to this, with no success between them, eject.
const LIMIT: u32 = 10;
/// The first ejection, and the time from one probe to the next while they fail.
const FIRST: Duration = Duration::from_millis(500);
/// The longest ejection.
const LONGEST: Duration = Duration::from_secs(30);
/// Who stayed fit for so long after an ejection begins with a short one again.
const FORGIVEN: Duration = Duration::from_secs(60);
/// So long after a good probe any request may be the trial; before that only one that can be repeated.
const TRIAL_WAITS: Duration = Duration::from_secs(1);

/// How an instance failed a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It took no connection.
    Unreachable,
    /// It closed a fresh connection before it answered.
    Broken,
    /// Another instance, asked later, answered first.
    Late,
    /// It answered with a server error (500, 502, 503, 504) where another instance did not.
    Outdone,
    /// It answered with a server error and nobody knows whether another one would have.
    ServerError,
}

/// What is known of one instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    state: State,
    /// How often it has been ejected since it was last forgiven.
    times: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Takes requests. Failures since the last success add up to `score`.
    Fit { score: u32, since: Option<Moment> },
    /// Takes no requests until then.
    Ejected { until: Moment },
    /// Is being asked by a probe.
    Probing,
    /// A probe was answered at `since`; a trial is owed.
    Confirmed { since: Moment },
    /// Is being tried with one request.
    OnTrial { since: Moment },
}

impl Default for State {
    fn default() -> Self {
        Self::Fit { score: 0, since: None }
    }
}

impl Failure {
    /// One refusal ejects; two of what may be chance; five of what may be the request's own fault.
    fn score(self) -> u32 {
        match self {
            Self::Unreachable => LIMIT,
            Self::Broken | Self::Late | Self::Outdone => LIMIT / 2,
            Self::ServerError => LIMIT / 5,
        }
    }
}

impl Health {
    /// Whether it takes requests like any other.
    pub fn is_fit(self) -> bool {
        match self.state {
            State::Fit { .. } => true,
            State::Ejected { .. } | State::Probing | State::Confirmed { .. } | State::OnTrial { .. } => false,
        }
    }

    /// Whether it has answered a probe since its ejection and only waits for its trial.
    pub fn is_confirmed(self) -> bool {
        match self.state {
            State::Confirmed { .. } => true,
            State::Fit { .. } | State::Ejected { .. } | State::Probing | State::OnTrial { .. } => false,
        }
    }

    /// When the next probe is due; `None` when none is.
    pub fn probe_at(self) -> Option<Moment> {
        match self.state {
            State::Ejected { until } => Some(until),
            State::Fit { .. } | State::Probing | State::Confirmed { .. } | State::OnTrial { .. } => None,
        }
    }

    /// Begins a probe if it is due. True: send it.
    pub fn begin_probe(&mut self, now: Moment) -> bool {
        let due = self.probe_at().is_some_and(|due| now >= due);
        if due {
            self.state = State::Probing;
        }
        due
    }

    /// The probe has ended.
    pub fn probed(&mut self, answered: bool, now: Moment) {
        if self.state == State::Probing {
            self.state = if answered {
                State::Confirmed { since: now }
            } else {
                State::Ejected { until: now + FIRST }
            };
        }
    }

    /// Begins the trial that is owed after a good probe. True: send it this one request.
    pub fn begin_trial(&mut self, repeatable: bool, now: Moment) -> bool {
        match self.state {
            State::Confirmed { since } if repeatable || now.since(since) >= TRIAL_WAITS => {
                self.state = State::OnTrial { since };
                true
            }
            State::Confirmed { .. }
            | State::Fit { .. }
            | State::Ejected { .. }
            | State::Probing
            | State::OnTrial { .. } => false,
        }
    }

    /// It answered as it should. True: it is fit again and was not before.
    pub fn succeeded(&mut self, now: Moment) -> bool {
        match self.state {
            State::Fit { since, .. } => {
                let forgiven = since.is_some_and(|since| now.since(since) >= FORGIVEN);
                self.times = if forgiven { 0 } else { self.times };
                self.state = State::Fit { score: 0, since: since.filter(|_| !forgiven) };
                false
            }
            State::OnTrial { .. } => {
                self.state = State::Fit { score: 0, since: Some(now) };
                true
            }
            // A request from before its ejection, or one that was sent to it because nobody else was left: as good as
            // an answered probe.
            State::Ejected { .. } | State::Probing => {
                self.state = State::Confirmed { since: now };
                false
            }
            State::Confirmed { .. } => false,
        }
    }

    /// It failed. True: it is ejected now and was not before.
    pub fn failed(&mut self, failure: Failure, now: Moment) -> bool {
        match self.state {
            State::Fit { score, since } if score + failure.score() < LIMIT => {
                self.state = State::Fit { score: score + failure.score(), since };
                false
            }
            State::Fit { since, .. } => {
                self.times =
                    if since.is_some_and(|since| now.since(since) >= FORGIVEN) { 0 } else { self.times };
                self.eject(now);
                true
            }
            State::OnTrial { .. } | State::Confirmed { .. } => {
                self.eject(now);
                true
            }
            // A request that was under way when it was ejected, or panic mode: nothing new.
            State::Ejected { .. } | State::Probing => false,
        }
    }

    /// A request was given up without a verdict; a trial is then still owed.
    pub fn abandoned(&mut self) {
        if let State::OnTrial { since } = self.state {
            self.state = State::Confirmed { since };
        }
    }

    fn eject(&mut self, now: Moment) {
        self.times = self.times.saturating_add(1);
        let doubled = FIRST.saturating_mul(1_u32.checked_shl(self.times.min(20) - 1).unwrap_or(u32::MAX));
        self.state = State::Ejected { until: now + doubled.min(LONGEST) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::from_millis(millis)
    }

    fn ejected() -> Health {
        let mut health = Health::default();
        assert!(health.failed(Failure::Unreachable, at(1000)), "one refusal ejects");
        health
    }

    #[test]
    fn a_success_between_failures_forgives() {
        let mut health = Health::default();
        assert!(!health.failed(Failure::Late, at(0)));
        health.succeeded(at(1));
        assert!(!health.failed(Failure::Late, at(2)));
        assert!(health.is_fit());
        assert!(health.failed(Failure::Outdone, at(3)));
        assert_eq!(health.probe_at(), Some(at(503)));
    }

    #[test]
    fn a_probe_comes_before_the_trial_and_the_trial_is_one_request() {
        let mut health = ejected();
        assert!(!health.begin_trial(true, at(9000)), "nobody's request finds out");
        assert!(!health.begin_probe(at(1499)));
        assert!(health.begin_probe(at(1500)));
        assert!(!health.begin_probe(at(1500)), "one at a time");
        health.probed(false, at(1600));
        assert_eq!(health.probe_at(), Some(at(2100)), "asked again soon, however often");
        assert!(health.begin_probe(at(2100)));
        health.probed(true, at(2101));
        assert!(!health.is_fit(), "not yet");
        assert!(!health.begin_trial(false, at(2200)), "rather with what can be repeated");
        assert!(health.begin_trial(true, at(2200)));
        assert!(!health.begin_trial(true, at(2200)), "one at a time");
        health.abandoned();
        assert!(health.begin_trial(false, at(3200)), "it is still owed, and who waits for long takes any");
        assert!(health.succeeded(at(3201)));
        assert!(health.is_fit());
    }

    #[test]
    fn failing_the_trial_doubles_the_ejection_until_it_is_forgiven() {
        let mut health = ejected();
        let mut now = at(1500);
        let mut lasted = vec![];
        for _ in 0..8 {
            assert!(health.begin_probe(now));
            health.probed(true, now);
            assert!(health.begin_trial(true, now));
            assert!(health.failed(Failure::Late, now));
            let until = health.probe_at().unwrap();
            lasted.push(until.since(now).as_millis());
            now = until;
        }
        assert_eq!(lasted, [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
        assert!(health.begin_probe(now));
        health.probed(true, now);
        assert!(health.begin_trial(true, now));
        health.succeeded(now);
        let soon = now + Duration::from_secs(59);
        let mut relapsed = health;
        assert!(relapsed.failed(Failure::Unreachable, soon));
        assert_eq!(relapsed.probe_at(), Some(soon + LONGEST));
        let later = now + FORGIVEN;
        assert!(health.failed(Failure::Unreachable, later));
        assert_eq!(health.probe_at(), Some(later + FIRST));
    }

    #[test]
    fn an_answer_from_an_ejected_one_is_as_good_as_a_probe() {
        let mut health = ejected();
        assert!(!health.succeeded(at(1100)));
        assert!(health.begin_trial(true, at(1100)));
        assert!(health.succeeded(at(1101)));
        assert!(health.is_fit());
    }
}
