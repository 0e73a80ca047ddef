//! Lives of instances in virtual time.

use super::*;

const RULES: Rules = Rules {
    rise: 2,
    fall: 3,
    interval: Duration::from_secs(1),
    grace: Duration::from_secs(5),
    restart_after: Duration::from_secs(10),
    ready: None,
};

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
    Event::CheckBad(Wrong::Answer("no".into()))
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
    life.check(Event::CheckGood);
    assert_eq!(life.sleep().0, Duration::from_secs(1), "whether it runs is looked at all the same");
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
    assert_eq!(life.state(), "could not be started: no such file, waits for its next start (1 crash)");
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
    assert_eq!(life.state(), "stopped (ended with exit code 1)");
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

fn silent() -> Event {
    Event::CheckBad(Wrong::Silence("no answer".into()))
}

fn frozen() -> Event {
    Event::CheckBad(Wrong::Frozen("it is stopped".into()))
}

/// Brings an instance to `ready`.
fn healthy(rules: Rules) -> Life {
    let mut life = Life::new(rules);
    life.run();
    for _ in 0..rules.rise {
        life.check(Event::CheckGood);
    }
    life
}

#[test]
fn an_instance_that_does_not_answer_loses_its_traffic_first_and_is_replaced_later() {
    let mut life = healthy(RULES);
    for _ in 0..3 {
        life.check(silent());
    }
    assert_eq!(life.state(), "not ready: no answer");
    for _ in 3..10 {
        life.check(silent());
    }
    assert_eq!(life.sleep().1, [Action::Check]);
    assert_eq!(life.step(silent()), [Action::Terminate], "10 s after the first silence");
    assert_eq!(life.state(), "not ready: no answer; it is being replaced");
    assert_eq!(life.step(crash()), [Action::Sweep]);
    let told = "was ended because it did not live: no answer, waits for its next start (1 crash)";
    assert_eq!(life.state(), told);
    assert_eq!(life.sleep(), (Duration::from_millis(100), vec![Action::Start]));
}

#[test]
fn an_answer_of_any_kind_is_a_sign_of_life_unless_readiness_is_asked_for_apart() {
    let mut life = healthy(RULES);
    for event in
        [silent(), silent(), silent(), silent(), silent(), silent(), silent(), silent(), silent(), bad()]
    {
        life.check(event);
    }
    for _ in 0..100 {
        life.check(bad());
    }
    assert_eq!(life.state(), "not ready: no");
    let ready = Ask { rise: 1, fall: 1, interval: Duration::from_secs(3600) };
    let mut life = healthy(Rules { rise: 0, ready: Some(ready), ..RULES });
    assert_eq!(life.sleep().1, [Action::Check, Action::CheckReady]);
    life.step(Event::ReadyGood);
    life.step(bad());
    for _ in 1..10 {
        life.check(bad());
    }
    assert_eq!(life.sleep().1, [Action::Check]);
    assert_eq!(life.step(bad()), [Action::Terminate]);
}

#[test]
fn a_stopped_process_is_killed_within_seconds() {
    for rules in [RULES, Rules { rise: 0, ..RULES }] {
        let mut life = healthy(rules);
        life.check(frozen());
        assert_eq!(life.state(), "ready", "somebody may have stopped it for a moment");
        life.pass(Duration::from_secs(1));
        assert_eq!(life.step(Event::Woken), [Action::Check]);
        assert_eq!(life.step(frozen()), [Action::Kill], "it could not hear that it shall end");
        life.step(Event::Exited("signal 9".into()));
        let told = "was ended because it did not live: it is stopped, waits for its next start (1 crash)";
        assert_eq!(life.state(), told);
    }
    let mut life = healthy(RULES);
    life.check(frozen());
    life.check(Event::CheckGood);
    life.check(frozen());
    assert_eq!(life.state(), "ready", "it went on in between");
}

#[test]
fn what_is_not_ready_gets_no_traffic_and_runs_on() {
    let ready = Ask { rise: 1, fall: 2, interval: Duration::from_secs(1) };
    let mut life = Life::new(Rules { rise: 1, ready: Some(ready), ..RULES });
    life.run();
    assert_eq!(life.sleep().1, [Action::Check, Action::CheckReady]);
    life.step(Event::CheckGood);
    life.step(Event::ReadyBad("caches are cold".into()));
    assert_eq!(life.state(), "starting: caches are cold");
    assert_eq!(life.sleep(), (FIRST_CHECKS_EVERY, vec![Action::CheckReady]));
    life.step(Event::ReadyGood);
    assert_eq!(life.state(), "ready");
    for _ in 0..200 {
        let (_, actions) = life.sleep();
        assert!(!actions.is_empty());
        if actions.contains(&Action::Check) {
            assert_eq!(life.step(Event::CheckGood), []);
        }
        if actions.contains(&Action::CheckReady) {
            assert_eq!(life.step(Event::ReadyBad("no database".into())), []);
        }
    }
    assert_eq!(life.state(), "not ready: no database");
    assert_eq!(life.step(Event::Adopted), []);
    assert_eq!(life.state(), "ready", "what served before serves on");
}

#[test]
fn only_a_first_start_waits_for_others() {
    let mut life = Life::new(RULES);
    assert_eq!(life.step(Event::Held("database:orders".into())), []);
    assert_eq!(life.state(), "waits for database:orders");
    assert_eq!(life.step(Event::Replaced), []);
    assert_eq!(life.step(Event::Wanted), [Action::Start]);
    life.step(Event::Started);
    assert_eq!(life.step(Event::Held("database:orders".into())), []);
    life.step(crash());
    assert_eq!(life.step(Event::Held("database:orders".into())), []);
    assert_eq!(life.sleep().1, [Action::Start], "a crashed one does not wait again");
    let mut life = Life::new(RULES);
    life.step(Event::Held("cache".into()));
    life.step(Event::Unwanted);
    assert!(life.instance.is_stopped());
}
