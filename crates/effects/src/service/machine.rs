//! The life of one instance as a pure state machine: (state, event, now) to (state, actions). No clock, no I/O.

use std::time::Duration;

use model::time::Moment;

use super::InstanceState;
use super::health::Wrong;
use watch::{Ending, Health, Lifeless, Watch};

mod watch;

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
    /// An instance that was healthy and has not lived for this long is replaced.
    pub restart_after: Duration,
    /// How readiness is asked for where it is apart from health.
    pub ready: Option<Ask>,
}

/// How a question is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Good answers in a row that count; 0 when running is good enough.
    pub rise: u32,
    /// Bad answers in a row that count.
    pub fall: u32,
    /// Time between two questions.
    pub interval: Duration,
}

impl Rules {
    fn health(self) -> Ask {
        Ask { rise: self.rise, fall: self.fall, interval: self.interval }
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It shall run.
    Wanted,
    /// It shall run once what it waits for is there; what runs already runs on.
    Held(String),
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
    CheckBad(Wrong),
    /// The question that [`Action::CheckReady`] asked for was answered well.
    ReadyGood,
    /// It was not.
    ReadyBad(String),
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
    /// Ask it whether it may take requests; answered by [`Event::ReadyGood`] or [`Event::ReadyBad`].
    CheckReady,
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
    Stopped {
        last_exit: Option<String>,
    },
    /// Waits for something before its first start.
    Held {
        because: String,
    },
    Starting,
    Running {
        since: Moment,
        health: Watch,
        ready: Option<Watch>,
        lifeless: Option<Lifeless>,
    },
    Backoff {
        until: Moment,
        last_exit: String,
    },
    /// `cause` when it is ended because it did not live.
    Stopping {
        kill_at: Option<Moment>,
        again: bool,
        cause: Option<String>,
    },
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
        if let Phase::Running { ready, .. } = &mut self.phase {
            // A question that is new is due at once.
            let asked = |ask| ready.take().unwrap_or_else(|| Watch::adopted(ask, Moment::default()));
            *ready = rules.ready.map(asked);
        }
    }

    /// When [`Event::Woken`] is due.
    pub fn wake_at(&self) -> Option<Moment> {
        match &self.phase {
            Phase::Running { health, ready, .. } => {
                let ready = ready.as_ref().and_then(Watch::due_at);
                health.due_at().into_iter().chain(ready).min()
            }
            Phase::Backoff { until: at, .. } => Some(*at),
            Phase::Stopping { kill_at, .. } => *kill_at,
            Phase::Stopped { .. } | Phase::Held { .. } | Phase::Starting => None,
        }
    }

    /// Whether it does not run and shall not.
    pub fn is_stopped(&self) -> bool {
        match &self.phase {
            Phase::Stopped { .. } => true,
            Phase::Held { .. }
            | Phase::Starting
            | Phase::Running { .. }
            | Phase::Backoff { .. }
            | Phase::Stopping { .. } => false,
        }
    }

    /// Whether it waits for something before its first start.
    pub fn is_held(&self) -> bool {
        matches!(self.phase, Phase::Held { .. })
    }

    /// What people are told.
    pub fn state(&self) -> InstanceState {
        let crashes = self.crashes;
        match &self.phase {
            Phase::Stopped { last_exit } => InstanceState::Stopped { last_exit: last_exit.clone() },
            Phase::Starting => InstanceState::Starting { crashes, because: None },
            Phase::Running { health, ready, .. } => running(&health.health, ready.as_ref(), crashes),
            Phase::Held { because } => InstanceState::Waiting { because: because.clone() },
            Phase::Backoff { until, last_exit } => {
                InstanceState::Backoff { until: *until, last_exit: last_exit.clone(), crashes }
            }
            Phase::Stopping { cause: Some(cause), .. } => {
                InstanceState::NotReady { because: format!("{cause}; it is being replaced") }
            }
            Phase::Stopping { cause: None, .. } => InstanceState::Stopping,
        }
    }

    /// Takes one event. The only way to change the state.
    #[must_use]
    pub fn step(mut self, event: Event, now: Moment) -> (Self, Vec<Action>) {
        let actions = match event {
            Event::Wanted => self.wanted(),
            Event::Held(because) => self.held(because),
            Event::Unwanted => self.unwanted(now),
            Event::Replaced => self.replaced(now),
            Event::Adopted => self.adopted(now),
            Event::Started => self.started(now),
            Event::StartFailed(because) => self.start_failed(because, now),
            Event::Exited(exit) => self.exited(exit, now),
            Event::CheckGood => self.checked(Ok(()), now),
            Event::CheckBad(wrong) => self.checked(Err(wrong), now),
            Event::ReadyGood => self.readied(Ok(()), now),
            Event::ReadyBad(because) => self.readied(Err(because), now),
            Event::Woken => self.woken(now),
        };
        (self, actions)
    }

    fn wanted(&mut self) -> Vec<Action> {
        match &mut self.phase {
            Phase::Stopped { .. } | Phase::Held { .. } => self.start(),
            Phase::Stopping { again, .. } => {
                *again = true;
                Vec::new()
            }
            Phase::Starting | Phase::Running { .. } | Phase::Backoff { .. } => Vec::new(),
        }
    }

    /// Only a first start is held up: what has run is not stopped, and starts again after a crash.
    fn held(&mut self, because: String) -> Vec<Action> {
        match &self.phase {
            Phase::Stopped { .. } | Phase::Held { .. } => {
                self.phase = Phase::Held { because };
                Vec::new()
            }
            Phase::Stopping { .. } | Phase::Starting | Phase::Running { .. } | Phase::Backoff { .. } => {
                self.wanted()
            }
        }
    }

    fn unwanted(&mut self, now: Moment) -> Vec<Action> {
        match &mut self.phase {
            Phase::Stopped { .. } => Vec::new(),
            Phase::Held { .. } => {
                self.phase = Phase::Stopped { last_exit: None };
                Vec::new()
            }
            Phase::Backoff { last_exit, .. } => {
                self.phase = Phase::Stopped { last_exit: Some(last_exit.clone()) };
                Vec::new()
            }
            Phase::Starting => {
                // There is no process to signal yet: it is told when its start is answered.
                self.phase = Phase::Stopping { kill_at: None, again: false, cause: None };
                Vec::new()
            }
            Phase::Running { .. } => self.terminate(false, None, now),
            Phase::Stopping { again, cause, .. } => {
                (*again, *cause) = (false, None);
                Vec::new()
            }
        }
    }

    fn replaced(&mut self, now: Moment) -> Vec<Action> {
        // A new command deserves a fresh start, whatever the old one did.
        self.crashes = 0;
        match &mut self.phase {
            Phase::Held { .. } => Vec::new(),
            Phase::Stopped { .. } | Phase::Backoff { .. } => self.start(),
            Phase::Starting => {
                self.phase = Phase::Stopping { kill_at: None, again: true, cause: None };
                Vec::new()
            }
            Phase::Running { .. } => self.terminate(true, None, now),
            Phase::Stopping { again, cause, .. } => {
                (*again, *cause) = (true, None);
                Vec::new()
            }
        }
    }

    /// An adopted instance served before the agent's restart: it counts as healthy until the check that is due at once says
    /// otherwise, so that the restart takes no traffic away from it.
    fn adopted(&mut self, now: Moment) -> Vec<Action> {
        let health = Watch::adopted(self.rules.health(), now);
        let ready = self.rules.ready.map(|ask| Watch::adopted(ask, now));
        self.phase = Phase::Running { since: now, health, ready, lifeless: None };
        Vec::new()
    }

    fn started(&mut self, now: Moment) -> Vec<Action> {
        match &self.phase {
            Phase::Starting => {
                let health = Watch::new(self.rules.health(), now);
                let ready = self.rules.ready.map(|ask| Watch::new(ask, now));
                self.phase = Phase::Running { since: now, health, ready, lifeless: None };
                Vec::new()
            }
            Phase::Stopping { again, .. } => {
                let again = *again;
                self.terminate(again, None, now)
            }
            Phase::Stopped { .. } | Phase::Held { .. } | Phase::Running { .. } | Phase::Backoff { .. } => {
                Vec::new()
            }
        }
    }

    fn start_failed(&mut self, because: String, now: Moment) -> Vec<Action> {
        match &self.phase {
            Phase::Starting => {
                self.back_off(format!("could not be started: {because}"), now);
                Vec::new()
            }
            Phase::Stopping { again: true, .. } => self.start(),
            Phase::Stopping { again: false, .. } => {
                self.phase = Phase::Stopped { last_exit: Some(because) };
                Vec::new()
            }
            Phase::Stopped { .. } | Phase::Held { .. } | Phase::Running { .. } | Phase::Backoff { .. } => {
                Vec::new()
            }
        }
    }

    fn exited(&mut self, exit: String, now: Moment) -> Vec<Action> {
        match &self.phase {
            Phase::Running { since, .. } => {
                if now.since(*since) >= STABLE_AFTER {
                    self.crashes = 0;
                }
                self.back_off(format!("ended with {exit}"), now);
                vec![Action::Sweep]
            }
            Phase::Stopping { again: true, cause: Some(cause), .. } => {
                self.back_off(format!("was ended because it did not live: {cause}"), now);
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
            Phase::Stopped { .. } | Phase::Held { .. } | Phase::Starting | Phase::Backoff { .. } => {
                Vec::new()
            }
        }
    }

    fn checked(&mut self, result: Result<(), Wrong>, now: Moment) -> Vec<Action> {
        let (rules, strict) = (self.rules, self.rules.ready.is_some());
        let Phase::Running { since, health, lifeless, .. } = &mut self.phase else { return Vec::new() };
        let said = result.clone().map_err(|wrong| wrong.to_string());
        if !health.answered(said, rules.health(), now) {
            return Vec::new();
        }
        *lifeless = Lifeless::after(*lifeless, &result, strict, now);
        let frozen = matches!(result, Err(Wrong::Frozen(_)));
        let over = lifeless.filter(|_| health.is_bad() || frozen);
        let Some(ending) = over.and_then(|lifeless| lifeless.is_over(rules.restart_after, now)) else {
            return Vec::new();
        };
        if now.since(*since) >= STABLE_AFTER {
            self.crashes = 0;
        }
        let cause = result.err().map(|wrong| wrong.to_string());
        let terminate = self.terminate(true, cause, now);
        match ending {
            Ending::Terminate => terminate,
            Ending::Kill => vec![Action::Kill],
        }
    }

    fn readied(&mut self, result: Result<(), String>, now: Moment) -> Vec<Action> {
        if let (Phase::Running { ready: Some(ready), .. }, Some(ask)) = (&mut self.phase, self.rules.ready) {
            ready.answered(result, ask, now);
        }
        Vec::new()
    }

    fn woken(&mut self, now: Moment) -> Vec<Action> {
        match &mut self.phase {
            Phase::Running { health, ready, .. } => {
                let (check, asks) = (health.ask(now), ready.as_mut().is_some_and(|ready| ready.ask(now)));
                let check = check.then_some(Action::Check);
                check.into_iter().chain(asks.then_some(Action::CheckReady)).collect()
            }
            Phase::Backoff { until, .. } if now >= *until => self.start(),
            Phase::Stopping { kill_at, .. } if kill_at.is_some_and(|at| now >= at) => {
                // Again, should it have been a child that held the signal off: SIGKILL cannot be refused, but a disk can
                // hold it up.
                *kill_at = Some(now + self.rules.grace.max(Duration::from_secs(1)));
                vec![Action::Kill]
            }
            Phase::Backoff { .. }
            | Phase::Stopping { .. }
            | Phase::Stopped { .. }
            | Phase::Held { .. }
            | Phase::Starting => Vec::new(),
        }
    }

    fn start(&mut self) -> Vec<Action> {
        self.phase = Phase::Starting;
        vec![Action::Start]
    }

    fn terminate(&mut self, again: bool, cause: Option<String>, now: Moment) -> Vec<Action> {
        self.phase = Phase::Stopping { kill_at: Some(now + self.rules.grace), again, cause };
        vec![Action::Terminate]
    }

    fn back_off(&mut self, last_exit: String, now: Moment) {
        self.crashes += 1;
        let doublings = (self.crashes - 1).min(16);
        let wait = (BACKOFF_FIRST * 2_u32.pow(doublings)).min(BACKOFF_LONGEST);
        self.phase = Phase::Backoff { until: now + wait, last_exit };
    }
}

/// The state of a running instance: it must be healthy, and ready where that is asked for apart.
fn running(health: &Health, ready: Option<&Watch>, crashes: u32) -> InstanceState {
    match (health, ready.map(|ready| &ready.health)) {
        (Health::New { because, .. }, _) => InstanceState::Starting { crashes, because: because.clone() },
        (Health::Bad { because, .. }, _) => InstanceState::NotReady { because: because.clone() },
        (Health::Good { .. }, Some(Health::New { because, .. })) => {
            InstanceState::Starting { crashes, because: because.clone() }
        }
        (Health::Good { .. }, Some(Health::Bad { because, .. })) => {
            InstanceState::NotReady { because: because.clone() }
        }
        (Health::Good { .. }, Some(Health::Good { .. }) | None) => InstanceState::Ready,
    }
}

#[cfg(test)]
mod tests;
