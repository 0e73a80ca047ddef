//! Whether live traffic finds an instance fit.
//!
//! Fit until failures in a row add up; then ejected for a while; then on trial with a single request, which makes it
//! fit again or ejects it for twice as long.

use std::time::Duration;

use model::time::Moment;

/// Failures that add up to this, with no success between them, eject.
const LIMIT: u32 = 10;
/// The first ejection.
const FIRST: Duration = Duration::from_millis(500);
/// The longest ejection.
const LONGEST: Duration = Duration::from_secs(30);

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
pub enum Health {
    /// Takes requests.
    #[default]
    Fit,
    /// Takes requests, but has failed lately.
    Doubtful {
        /// What its failures add up to.
        score: u32,
    },
    /// Takes no requests.
    Ejected {
        /// Until when.
        until: Moment,
        /// How often in a row.
        times: u32,
    },
    /// Is being tried with one request.
    OnTrial {
        /// How often it has been ejected in a row.
        times: u32,
    },
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
        match self {
            Self::Fit | Self::Doubtful { .. } => true,
            Self::Ejected { .. } | Self::OnTrial { .. } => false,
        }
    }

    /// Begins the trial if the ejection is over. True: send it one request.
    pub fn try_again(&mut self, now: Moment) -> bool {
        match *self {
            Self::Ejected { until, times } if now >= until => {
                *self = Self::OnTrial { times };
                true
            }
            Self::Ejected { .. } | Self::Fit | Self::Doubtful { .. } | Self::OnTrial { .. } => false,
        }
    }

    /// It answered as it should.
    pub fn succeeded(&mut self) {
        *self = Self::Fit;
    }

    /// It failed.
    pub fn failed(&mut self, failure: Failure, now: Moment) {
        *self = match *self {
            Self::Fit => Self::doubtful(failure.score(), now),
            Self::Doubtful { score } => Self::doubtful(score + failure.score(), now),
            Self::OnTrial { times } => Self::ejected(times + 1, now),
            // A request that was under way when it was ejected, or panic mode: nothing new.
            Self::Ejected { until, times } => Self::Ejected { until, times },
        };
    }

    /// A request was given up without a verdict; a trial is then still owed.
    pub fn abandoned(&mut self, now: Moment) {
        if let Self::OnTrial { times } = *self {
            *self = Self::Ejected { until: now, times };
        }
    }

    fn doubtful(score: u32, now: Moment) -> Self {
        if score >= LIMIT { Self::ejected(1, now) } else { Self::Doubtful { score } }
    }

    fn ejected(times: u32, now: Moment) -> Self {
        let doubled = FIRST.saturating_mul(1_u32.checked_shl(times.min(20) - 1).unwrap_or(u32::MAX));
        Self::Ejected { until: now + doubled.min(LONGEST), times }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment::from_millis(1000);

    #[test]
    fn one_refusal_ejects_and_a_success_between_failures_forgives() {
        let mut health = Health::default();
        health.failed(Failure::Late, NOW);
        health.succeeded();
        health.failed(Failure::Late, NOW);
        assert!(health.is_fit());
        health.failed(Failure::Outdone, NOW);
        assert_eq!(health, Health::Ejected { until: Moment::from_millis(1500), times: 1 });

        let mut health = Health::default();
        health.failed(Failure::Unreachable, NOW);
        assert!(!health.is_fit());
    }

    #[test]
    fn a_trial_is_one_request_and_failing_it_doubles_the_ejection() {
        let mut health = Health::default();
        health.failed(Failure::Unreachable, NOW);
        assert!(!health.try_again(Moment::from_millis(1499)));
        assert!(health.try_again(Moment::from_millis(1500)));
        assert!(!health.try_again(Moment::from_millis(1500)), "one at a time");
        health.failed(Failure::Late, Moment::from_millis(1600));
        assert_eq!(health, Health::Ejected { until: Moment::from_millis(2600), times: 2 });
        assert!(health.try_again(Moment::from_millis(2600)));
        health.abandoned(Moment::from_millis(2600));
        assert!(health.try_again(Moment::from_millis(2600)), "the trial is still owed");
        health.succeeded();
        assert_eq!(health, Health::Fit);
    }

    #[test]
    fn ejections_are_bounded() {
        let mut health = Health::OnTrial { times: 4_000_000 };
        health.failed(Failure::Late, NOW);
        assert_eq!(health, Health::Ejected { until: NOW + LONGEST, times: 4_000_001 });
    }
}
