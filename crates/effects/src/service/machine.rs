//! The life of one instance as a pure state machine: (state, event, now) to (state, actions). No clock, no I/O.

use std::time::Duration;

use model::time::Moment;

use super::InstanceState;

/// Wait before the second start; doubles with every quick end.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(100);

/// The longest wait before a start.
pub const BACKOFF_LONGEST: Duration = Duration::from_secs(30);

/// A process that ran this long has not crashed "again": the back-off begins anew.
pub const STABLE_AFTER: Duration = Duration::from_secs(10);

/// Time between two health checks of an instance that was never healthy yet, so that it takes traffic as soon as it can.
pub const FIRST_CHECKS_EVERY: Duration = Duration::from_millis(100);

/// How an instance is treated; may change while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Good checks in a row that make it healthy; 0 when running is good enough.
    pub rise: u32,
    /// Bad checks in a row that make it unhealthy.
    pub fall: u32,
    /// Time between two checks.
    pub interval: Duration,
    /// Time from SIGTERM to SIGKILL.
    pub grace: Duration,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It shall run.
    Wanted,
    /// It shall not run.
    Unwanted,
    /// It shall run with another command: end it and start it again.
    Replaced,
    /// It runs already, started by an earlier run of the agent.
    Adopted,
    /// The start that [`Action::Start`] asked for succeeded.
    Started,
    /// It failed.
    StartFailed(String),
    /// The process ended.
    Exited(String),
    /// The check that [`Action::Check`] asked for ended well.
    CheckGood,
    /// It did not.
    CheckBad(String),
    /// [`Instance::wake_at`] is reached (or passed).
    Woken,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start the process; answered by [`Event::Started`] or [`Event::StartFailed`].
    Start,
    /// Ask it for its health; answered by [`Event::CheckGood`] or [`Event::CheckBad`].
    Check,
    /// Ask it to end (SIGTERM).
    Terminate,
    /// End it with all it started (SIGKILL).
    Kill,
    /// End what it left running, so that its port is free.
    Sweep,
}

/// Where in its life an instance is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Stopped { last_exit: Option<String> },
    Starting,
    Running { since: Moment, health: Health, check: Check },
    Backoff { until: Moment, last_exit: String },
    Stopping { kill_at: Option<Moment>, again: bool },
}

/// What the checks of a running instance said.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Health {
    /// Never healthy yet; `good` checks in a row.
    New { good: u32, because: Option<String> },
    /// Healthy; `bad` checks in a row.
    Good { bad: u32 },
    /// Was healthy; `good` checks in a row.
    Bad { good: u32, because: String },
}

/// When the next check is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    /// At this moment.
    Due(Moment),
    /// One is under way, asked for at this moment.
    UnderWay(Moment),
    /// Running is good enough.
    Never,
}

/// One instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    rules: Rules,
    phase: Phase,
    crashes: u32,
}

impl Instance {
    /// An instance that does not run and shall not.
    pub fn new(rules: Rules) -> Self {
        Self { rules, phase: Phase::Stopped { last_exit: None }, crashes: 0 }
    }

    /// Treats it by other rules from now on.
    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// When [`Event::Woken`] is due.
    pub fn wake_at(&self) -> Option<Moment> {
        match &self.phase {
            Phase::Running { check: Check::Due(at), .. } | Phase::Backoff { until: at, .. } => Some(*at),
            Phase::Stopping { kill_at, .. } => *kill_at,
            Phase::Running { check: Check::UnderWay(_) | Check::Never, .. }
            | Phase::Stopped { .. }
            | Phase::Starting => None,
        }
    }

    /// Whether it does not run and shall not.
    pub fn is_stopped(&self) -> bool {
        match &self.phase {
            Phase::Stopped { .. } => true,
            Phase::Starting | Phase::Running { .. } | Phase::Backoff { .. } | Phase::Stopping { .. } => false,
        }
    }

    /// What people are told.
    pub fn state(&self) -> InstanceState {
        let crashes = self.crashes;
        match &self.phase {
            Phase::Stopped { last_exit } => InstanceState::Stopped { last_exit: last_exit.clone() },
            Phase::Starting => InstanceState::Starting { crashes, because: None },
            Phase::Running { health: Health::New { because, .. }, .. } => {
                InstanceState::Starting { crashes, because: because.clone() }
            }
            Phase::Running { health: Health::Good { .. }, .. } => InstanceState::Ready,
            Phase::Running { health: Health::Bad { because, .. }, .. } => {
                InstanceState::NotReady { because: because.clone() }
            }
            Phase::Backoff { until, last_exit } => {
                InstanceState::Backoff { until: *until, last_exit: last_exit.clone(), crashes }
            }
            Phase::Stopping { .. } => InstanceState::Stopping,
        }
    }

    /// Takes one event. The only way to change the state.
    #[must_use]
    pub fn step(mut self, event: Event, now: Moment) -> (Self, Vec<Action>) {
        let actions = match event {
            Event::Wanted => self.wanted(),
            Event::Unwanted => self.unwanted(now),
            Event::Replaced => self.replaced(now),
            Event::Adopted => self.adopted(now),
            Event::Started => self.started(now),
            Event::StartFailed(because) => self.start_failed(because, now),
            Event::Exited(exit) => self.exited(exit, now),
            Event::CheckGood => self.checked(Ok(()), now),
            Event::CheckBad(because) => self.checked(Err(because), now),
            Event::Woken => self.woken(now),
        };
        (self, actions)
    }

    fn wanted(&mut self) -> Vec<Action> {
        match &mut self.phase {
            Phase::Stopped { .. } => self.start(),
            Phase::Stopping { again, .. } => {
                *again = true;
                Vec::new()
            }
            Phase::Starting | Phase::Running { .. } | Phase::Backoff { .. } => Vec::new(),
        }
    }

    fn unwanted(&mut self, now: Moment) -> Vec<Action> {
        match &mut self.phase {
            Phase::Stopped { .. } => Vec::new(),
            Phase::Backoff { last_exit, .. } => {
                self.phase = Phase::Stopped { last_exit: Some(last_exit.clone()) };
                Vec::new()
            }
            Phase::Starting => {
                // There is no process to signal yet: it is told when its start is answered.
                self.phase = Phase::Stopping { kill_at: None, again: false };
                Vec::new()
            }
            Phase::Running { .. } => self.terminate(false, now),
            Phase::Stopping { again, .. } => {
                *again = false;
                Vec::new()
            }
        }
    }

    fn replaced(&mut self, now: Moment) -> Vec<Action> {
        // A new command deserves a fresh start, whatever the old one did.
        self.crashes = 0;
        match &mut self.phase {
            Phase::Stopped { .. } | Phase::Backoff { .. } => self.start(),
            Phase::Starting => {
                self.phase = Phase::Stopping { kill_at: None, again: true };
                Vec::new()
            }
            Phase::Running { .. } => self.terminate(true, now),
            Phase::Stopping { again, .. } => {
                *again = true;
                Vec::new()
            }
        }
    }

    /// An adopted instance served before the agent's restart: it counts as healthy until the check that is due at once says
    /// otherwise, so that the restart takes no traffic away from it.
    fn adopted(&mut self, now: Moment) -> Vec<Action> {
        let bad = self.rules.fall.saturating_sub(1);
        let check = if self.rules.rise == 0 { Check::Never } else { Check::Due(now) };
        self.phase = Phase::Running { since: now, health: Health::Good { bad }, check };
        Vec::new()
    }

    fn started(&mut self, now: Moment) -> Vec<Action> {
        match &self.phase {
            Phase::Starting => {
                self.phase = if self.rules.rise == 0 {
                    Phase::Running { since: now, health: Health::Good { bad: 0 }, check: Check::Never }
                } else {
                    let health = Health::New { good: 0, because: None };
                    Phase::Running { since: now, health, check: Check::Due(now) }
                };
                Vec::new()
            }
            Phase::Stopping { again, .. } => {
                let again = *again;
                self.terminate(again, now)
            }
            Phase::Stopped { .. } | Phase::Running { .. } | Phase::Backoff { .. } => Vec::new(),
        }
    }

    fn start_failed(&mut self, because: String, now: Moment) -> Vec<Action> {
        match &self.phase {
            Phase::Starting => {
                self.back_off(because, now);
                Vec::new()
            }
            Phase::Stopping { again: true, .. } => self.start(),
            Phase::Stopping { again: false, .. } => {
                self.phase = Phase::Stopped { last_exit: Some(because) };
                Vec::new()
            }
            Phase::Stopped { .. } | Phase::Running { .. } | Phase::Backoff { .. } => Vec::new(),
        }
    }

    fn exited(&mut self, exit: String, now: Moment) -> Vec<Action> {
        match &self.phase {
            Phase::Running { since, .. } => {
                if now.since(*since) >= STABLE_AFTER {
                    self.crashes = 0;
                }
                self.back_off(exit, now);
                vec![Action::Sweep]
            }
            Phase::Stopping { again: true, .. } => {
                let start = self.start();
                [vec![Action::Sweep], start].concat()
            }
            Phase::Stopping { again: false, .. } => {
                self.phase = Phase::Stopped { last_exit: Some(exit) };
                vec![Action::Sweep]
            }
            Phase::Stopped { .. } | Phase::Starting | Phase::Backoff { .. } => Vec::new(),
        }
    }

    fn checked(&mut self, result: Result<(), String>, now: Moment) -> Vec<Action> {
        let rules = self.rules;
        match &mut self.phase {
            Phase::Running { health, check: check @ Check::UnderWay(_), .. } => {
                let asked = match *check {
                    Check::UnderWay(asked) => asked,
                    Check::Due(_) | Check::Never => now,
                };
                health.take(result, rules);
                let pause = match health {
                    Health::New { .. } => rules.interval.min(FIRST_CHECKS_EVERY),
                    Health::Good { .. } | Health::Bad { .. } => rules.interval,
                };
                // A slow answer does not make the next question wait longer.
                *check = Check::Due((asked + pause).max(now));
                Vec::new()
            }
            Phase::Running { check: Check::Due(_) | Check::Never, .. }
            | Phase::Stopped { .. }
            | Phase::Starting
            | Phase::Backoff { .. }
            | Phase::Stopping { .. } => Vec::new(),
        }
    }

    fn woken(&mut self, now: Moment) -> Vec<Action> {
        match &mut self.phase {
            Phase::Running { check: check @ Check::Due(_), .. } if is_due(*check, now) => {
                *check = Check::UnderWay(now);
                vec![Action::Check]
            }
            Phase::Backoff { until, .. } if now >= *until => self.start(),
            Phase::Stopping { kill_at, .. } if kill_at.is_some_and(|at| now >= at) => {
                // Again, should it have been a child that held the signal off: SIGKILL cannot be refused, but a disk can
                // hold it up.
                *kill_at = Some(now + self.rules.grace.max(Duration::from_secs(1)));
                vec![Action::Kill]
            }
            Phase::Running { .. }
            | Phase::Backoff { .. }
            | Phase::Stopping { .. }
            | Phase::Stopped { .. }
            | Phase::Starting => Vec::new(),
        }
    }

    fn start(&mut self) -> Vec<Action> {
        self.phase = Phase::Starting;
        vec![Action::Start]
    }

    fn terminate(&mut self, again: bool, now: Moment) -> Vec<Action> {
        self.phase = Phase::Stopping { kill_at: Some(now + self.rules.grace), again };
        vec![Action::Terminate]
    }

    fn back_off(&mut self, last_exit: String, now: Moment) {
        self.crashes += 1;
        let doublings = (self.crashes - 1).min(16);
        let wait = (BACKOFF_FIRST * 2_u32.pow(doublings)).min(BACKOFF_LONGEST);
        self.phase = Phase::Backoff { until: now + wait, last_exit };
    }
}

impl Health {
    fn take(&mut self, result: Result<(), String>, rules: Rules) {
        *self = match (&*self, result) {
            (Self::New { good, .. }, Ok(())) if good + 1 >= rules.rise => Self::Good { bad: 0 },
            (Self::New { good, because }, Ok(())) => Self::New { good: good + 1, because: because.clone() },
            (Self::New { .. }, Err(because)) => Self::New { good: 0, because: Some(because) },
            (Self::Good { .. }, Ok(())) => Self::Good { bad: 0 },
            (Self::Good { bad }, Err(because)) if bad + 1 >= rules.fall => Self::Bad { good: 0, because },
            (Self::Good { bad }, Err(_)) => Self::Good { bad: bad + 1 },
            (Self::Bad { good, .. }, Ok(())) if good + 1 >= rules.rise => Self::Good { bad: 0 },
            (Self::Bad { good, because }, Ok(())) => Self::Bad { good: good + 1, because: because.clone() },
            (Self::Bad { .. }, Err(because)) => Self::Bad { good: 0, because },
        };
    }
}

fn is_due(check: Check, now: Moment) -> bool {
    match check {
        Check::Due(at) => now >= at,
        Check::UnderWay(_) | Check::Never => false,
    }
}

#[cfg(test)]
mod tests;
