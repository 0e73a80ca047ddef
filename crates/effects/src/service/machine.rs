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
mod tests {
    use super::*;

    const RULES: Rules =
        Rules { rise: 2, fall: 3, interval: Duration::from_secs(1), grace: Duration::from_secs(5) };

    /// An instance with a clock of its own.
    struct Life {
        instance: Instance,
        now: Moment,
    }

    impl Life {
        fn new(rules: Rules) -> Self {
            Self { instance: Instance::new(rules), now: Moment::from_millis(1_000_000) }
        }

        fn step(&mut self, event: Event) -> Vec<Action> {
            let (next, actions) = self.instance.clone().step(event, self.now);
            self.instance = next;
            actions
        }

        /// Lets time pass to the next wake-up; how long that was.
        fn sleep(&mut self) -> (Duration, Vec<Action>) {
            let at = self.instance.wake_at().expect("something to wait for");
            let slept = at.since(self.now);
            self.now = at;
            (slept, self.step(Event::Woken))
        }

        fn pass(&mut self, time: Duration) {
            self.now = self.now + time;
        }

        fn run(&mut self) {
            assert_eq!(self.step(Event::Wanted), [Action::Start]);
            assert_eq!(self.step(Event::Started), []);
        }

        fn check(&mut self, result: Event) {
            assert_eq!(self.sleep().1, [Action::Check]);
            assert_eq!(self.step(result), []);
        }

        fn state(&self) -> String {
            self.instance.state().to_string()
        }
    }

    fn crash() -> Event {
        Event::Exited("exit code 1".into())
    }

    fn bad() -> Event {
        Event::CheckBad("no".into())
    }

    #[test]
    fn an_instance_becomes_ready_after_as_many_good_checks_as_asked_for() {
        let mut life = Life::new(RULES);
        assert_eq!(life.state(), "stopped");
        life.run();
        assert_eq!(life.state(), "starting");
        life.check(bad());
        assert_eq!(life.state(), "starting: no");
        life.check(Event::CheckGood);
        life.check(bad());
        life.check(Event::CheckGood);
        assert_eq!(life.state(), "starting: no", "a bad one in between counts from the beginning");
        life.check(Event::CheckGood);
        assert_eq!(life.state(), "ready");
    }

    #[test]
    fn checks_are_frequent_until_the_first_success_and_then_regular() {
        let mut life = Life::new(RULES);
        life.run();
        assert_eq!(life.sleep(), (Duration::ZERO, vec![Action::Check]), "the first one at once");
        life.pass(Duration::from_millis(30));
        life.step(Event::CheckGood);
        assert_eq!(life.sleep().0, Duration::from_millis(70), "counted from question to question");
        life.step(Event::CheckGood);
        assert_eq!(life.sleep().0, Duration::from_secs(1));
        life.pass(Duration::from_secs(9));
        life.step(Event::CheckGood);
        assert_eq!(life.sleep().0, Duration::ZERO, "a check that took too long is followed by the next");
    }

    #[test]
    fn it_takes_several_bad_checks_in_a_row_to_lose_readiness() {
        let mut life = Life::new(Rules { rise: 1, ..RULES });
        life.run();
        life.check(Event::CheckGood);
        for event in [bad(), bad(), Event::CheckGood, bad(), bad()] {
            life.check(event);
            assert_eq!(life.state(), "ready");
        }
        life.check(bad());
        assert_eq!(life.state(), "not ready: no");
        life.check(Event::CheckGood);
        assert_eq!(life.state(), "ready");
    }

    #[test]
    fn running_is_good_enough_without_a_check() {
        let mut life = Life::new(Rules { rise: 0, ..RULES });
        life.run();
        assert_eq!(life.state(), "ready");
        assert_eq!(life.instance.wake_at(), None);
    }

    #[test]
    fn the_back_off_doubles_from_100_ms_to_30_s_and_begins_anew_after_10_stable_seconds() {
        let mut life = Life::new(RULES);
        life.run();
        let mut waits = Vec::new();
        for _ in 0..12 {
            assert_eq!(life.step(crash()), [Action::Sweep]);
            let (wait, actions) = life.sleep();
            assert_eq!(actions, [Action::Start]);
            life.step(Event::Started);
            waits.push(wait.as_millis());
        }
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000, 30000]);
        life.pass(Duration::from_millis(9_999));
        life.step(crash());
        assert_eq!(life.sleep().0, Duration::from_secs(30));
        life.step(Event::Started);
        life.pass(Duration::from_secs(10));
        life.step(crash());
        assert_eq!(life.sleep().0, Duration::from_millis(100));
    }

    #[test]
    fn a_crash_loop_is_visible_in_every_state_it_passes() {
        let mut life = Life::new(RULES);
        life.run();
        for _ in 0..5 {
            assert!(!life.instance.state().is_crash_loop());
            life.step(crash());
            if life.instance.crashes < 5 {
                life.sleep();
                life.step(Event::Started);
            }
        }
        assert!(life.instance.state().is_crash_loop());
        assert_eq!(life.state(), "ended with exit code 1, waits for its next start (5 crashes in a row)");
        life.sleep();
        assert!(life.instance.state().is_crash_loop());
        assert_eq!(life.state(), "starting again after 5 crashes in a row");
    }

    #[test]
    fn a_start_that_fails_backs_off_like_a_crash() {
        let mut life = Life::new(RULES);
        life.step(Event::Wanted);
        assert_eq!(life.step(Event::StartFailed("no such file".into())), []);
        assert_eq!(life.state(), "ended with no such file, waits for its next start (1 crash)");
        assert_eq!(life.sleep(), (Duration::from_millis(100), vec![Action::Start]));
    }

    #[test]
    fn stopping_asks_first_and_kills_after_the_grace() {
        let mut life = Life::new(RULES);
        life.run();
        assert_eq!(life.step(Event::Unwanted), [Action::Terminate]);
        assert_eq!(life.state(), "stopping");
        assert_eq!(life.sleep(), (Duration::from_secs(5), vec![Action::Kill]));
        assert_eq!(life.step(Event::Exited("signal 9".into())), [Action::Sweep]);
        assert_eq!(life.state(), "stopped (signal 9)");
        assert!(life.instance.is_stopped() && life.instance.wake_at().is_none());
    }

    #[test]
    fn a_stop_during_the_start_ends_the_process_as_soon_as_it_is_there() {
        let mut life = Life::new(RULES);
        life.step(Event::Wanted);
        assert_eq!(life.step(Event::Unwanted), []);
        assert_eq!(life.step(Event::Started), [Action::Terminate]);
        life.step(Event::Exited("signal 15".into()));
        assert!(life.instance.is_stopped());
    }

    #[test]
    fn a_stop_during_the_back_off_is_a_stop() {
        let mut life = Life::new(RULES);
        life.run();
        life.step(crash());
        assert_eq!(life.step(Event::Unwanted), []);
        assert_eq!(life.state(), "stopped (exit code 1)");
    }

    #[test]
    fn a_replacement_ends_the_old_one_before_the_new_one_starts() {
        let mut life = Life::new(RULES);
        life.run();
        assert_eq!(life.step(Event::Replaced), [Action::Terminate]);
        assert_eq!(life.step(crash()), [Action::Sweep, Action::Start]);
        assert_eq!(life.state(), "starting", "the end was asked for and is no crash");
        assert_eq!(life.step(Event::Replaced), [], "also while it starts");
        assert_eq!(life.step(Event::Started), [Action::Terminate]);
        assert_eq!(life.step(crash()), [Action::Sweep, Action::Start]);
    }

    #[test]
    fn what_is_wanted_again_while_it_stops_starts_again() {
        let mut life = Life::new(RULES);
        life.run();
        life.step(Event::Unwanted);
        assert_eq!(life.step(Event::Wanted), []);
        assert_eq!(life.step(crash()), [Action::Sweep, Action::Start]);
        life.step(Event::Started);
        assert_eq!(life.step(Event::Wanted), [], "what runs is left alone");
    }

    #[test]
    fn an_adopted_instance_keeps_its_traffic_until_a_check_speaks_against_it() {
        let mut life = Life::new(RULES);
        assert_eq!(life.step(Event::Adopted), []);
        assert_eq!(life.state(), "ready");
        assert_eq!(life.sleep(), (Duration::ZERO, vec![Action::Check]));
        life.step(bad());
        assert_eq!(life.state(), "not ready: no");
    }

    #[test]
    fn late_answers_of_an_earlier_life_change_nothing() {
        let mut life = Life::new(RULES);
        life.run();
        life.sleep();
        life.step(crash());
        let before = life.instance.clone();
        for event in [Event::CheckGood, bad(), crash(), Event::Started, Event::StartFailed("late".into())] {
            assert_eq!(life.step(event), []);
            assert_eq!(life.instance, before);
        }
    }
}
