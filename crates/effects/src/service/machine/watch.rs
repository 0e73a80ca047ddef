//! One question that is asked of an instance again and again, and what the answers so far say.

use std::time::Duration;

use model::time::Moment;

use super::{Ask, FIRST_CHECKS_EVERY};
use crate::service::health::Wrong;

/// What the answers said, and when the next question is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Watch {
    pub(super) health: Health,
    pub(super) check: Check,
}

/// What the answers said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// Never good yet; `good` answers in a row.
    New { good: u32, because: Option<String> },
    /// Good; `bad` answers in a row.
    Good { bad: u32 },
    /// Was good; `good` answers in a row.
    Bad { good: u32, because: String },
}

/// When the next question is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// At this moment.
    Due(Moment),
    /// One is under way, asked at this moment.
    UnderWay(Moment),
}

/// For how long an instance has not lived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lifeless {
    since: Moment,
    answers: u32,
    frozen: bool,
}

impl Watch {
    /// Of an instance that has just started: good at once where running is good enough.
    pub(super) fn new(ask: Ask, now: Moment) -> Self {
        let health = match ask.rise {
            0 => Health::Good { bad: 0 },
            _ => Health::New { good: 0, because: None },
        };
        Self { health, check: Check::Due(now) }
    }

    /// Of an instance that served before: good until the next answer says otherwise.
    pub(super) fn adopted(ask: Ask, now: Moment) -> Self {
        Self { health: Health::Good { bad: ask.fall.saturating_sub(1) }, check: Check::Due(now) }
    }

    /// When it is to be asked next.
    pub(super) fn due_at(&self) -> Option<Moment> {
        match self.check {
            Check::Due(at) => Some(at),
            Check::UnderWay(_) => None,
        }
    }

    /// Whether the question is asked now.
    pub(super) fn ask(&mut self, now: Moment) -> bool {
        let is_due = self.due_at().is_some_and(|at| now >= at);
        if is_due {
            self.check = Check::UnderWay(now);
        }
        is_due
    }

    /// Takes in the answer; whether one was waited for.
    pub(super) fn answered(&mut self, result: Result<(), String>, ask: Ask, now: Moment) -> bool {
        let Check::UnderWay(asked) = self.check else { return false };
        self.health.take(result, ask);
        let pause = match self.health {
            Health::New { .. } => ask.interval.min(FIRST_CHECKS_EVERY),
            Health::Good { .. } | Health::Bad { .. } => ask.interval,
        };
        // A slow answer does not make the next question wait longer.
        self.check = Check::Due((asked + pause).max(now));
        true
    }

    /// Whether it was good and is not now.
    pub(super) fn is_bad(&self) -> bool {
        match self.health {
            Health::Bad { .. } => true,
            Health::New { .. } | Health::Good { .. } => false,
        }
    }
}

impl Health {
    fn take(&mut self, result: Result<(), String>, ask: Ask) {
        *self = match (&*self, result) {
            (Self::New { good, .. }, Ok(())) if good + 1 >= ask.rise => Self::Good { bad: 0 },
            (Self::New { good, because }, Ok(())) => Self::New { good: good + 1, because: because.clone() },
            (Self::New { .. }, Err(because)) => Self::New { good: 0, because: Some(because) },
            (Self::Good { .. }, Ok(())) => Self::Good { bad: 0 },
            (Self::Good { bad }, Err(because)) if bad + 1 >= ask.fall => Self::Bad { good: 0, because },
            (Self::Good { bad }, Err(_)) => Self::Good { bad: bad + 1 },
            (Self::Bad { good, .. }, Ok(())) if good + 1 >= ask.rise => Self::Good { bad: 0 },
            (Self::Bad { good, because }, Ok(())) => Self::Bad { good: good + 1, because: because.clone() },
            (Self::Bad { .. }, Err(because)) => Self::Bad { good: 0, because },
        };
    }
}

/// A stopped process does nothing until somebody lets it go on; so long it is left to whoever stopped it for a moment.
const FROZEN_FOR: Duration = Duration::from_secs(1);

impl Lifeless {
    /// What an answer says about life. A bad answer is an answer: only where readiness is asked for apart does it count as
    /// none.
    pub(super) fn after(
        before: Option<Self>,
        result: &Result<(), Wrong>,
        strict: bool,
        now: Moment,
    ) -> Option<Self> {
        let frozen = match result {
            Ok(()) => return None,
            Err(Wrong::Answer(_)) if !strict => return None,
            Err(Wrong::Answer(_) | Wrong::Silence(_)) => false,
            Err(Wrong::Frozen(_)) => true,
        };
        let begins = before.filter(|before| before.frozen == frozen || !frozen);
        let before = begins.unwrap_or(Self { since: now, answers: 0, frozen });
        Some(Self { answers: before.answers + 1, frozen, ..before })
    }

    /// Whether it has lasted long enough for `restart_after`.
    pub(super) fn is_over(self, restart_after: Duration, now: Moment) -> Option<Ending> {
        let lasted = now.since(self.since);
        if self.frozen && self.answers > 1 && lasted >= FROZEN_FOR {
            return Some(Ending::Kill);
        }
        (!self.frozen && lasted >= restart_after).then_some(Ending::Terminate)
    }
}

/// How what does not live is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// It may still finish its work.
    Terminate,
    /// It cannot even hear that it shall end.
    Kill,
}
