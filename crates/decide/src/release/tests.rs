use model::release::{Digest, Release};

use super::*;

fn release(number: u64) -> Release {
    let digest = Digest::try_from(format!("{number:064}")).unwrap();
    Release { number, digest, size: 1, from: "./build".to_owned(), at_us: 0 }
}

/// Release 1 serves, release 2 takes over.
fn service(strategy: Strategy, phase: Phase) -> Service {
    let rollout = Rollout {
        release: release(2),
        strategy,
        bake_ms: 6_000,
        ready_within_ms: 30_000,
        sample: 100,
        instances: None,
        before: None,
        phase,
        because: String::new(),
    };
    Service { current: Some(release(1)), rollout: Some(rollout), history: vec![] }
}

fn tally(good: u64, bad: u64, taken_us: u64) -> Tally {
    let mut tally = Tally::default();
    (0..good).for_each(|_| tally.good(taken_us));
    (0..bad).for_each(|_| tally.bad());
    tally
}

/// Everything as it should be, in a step that has lasted long enough.
struct Case {
    service: Service,
    unstaged: Vec<NodeName>,
    news: News,
    obeyed: bool,
    waited: u64,
    baked: u64,
    old: Tally,
    earlier: Tally,
    new: Tally,
    errand: Option<Errand>,
}

impl Case {
    fn new(strategy: Strategy, phase: Phase) -> Self {
        let service = service(strategy, phase);
        let ready = step(service.rollout.as_ref().unwrap(), 3).map_or(0, |step| step.new);
        let news = News { ready, any: true, ..News::default() };
        let (old, new) = (tally(900, 0, 5_000), tally(300, 0, 5_000));
        let earlier = old.clone();
        Self {
            service,
            unstaged: vec![],
            news,
            obeyed: true,
            waited: 7,
            baked: 6,
            old,
            earlier,
            new,
            errand: None,
        }
    }

    fn decided(&self) -> Decision {
        let question = Question {
            service: &self.service,
            instances: 3,
            unstaged: &self.unstaged,
            news: &self.news,
            obeyed: self.obeyed,
            waited: Duration::from_secs(self.waited),
            baked: Duration::from_secs(self.baked),
            old: &self.old,
            earlier: &self.earlier,
            new: &self.new,
            errand: self.errand.as_ref(),
        };
        decide(&question).unwrap()
    }

    /// The phase it comes to, or what ended it, or `-` when it waits.
    fn outcome(&self) -> String {
        match self.decided() {
            Decision::Wait(_) => "-".to_owned(),
            Decision::Next(next) => {
                match (&next.rollout, next.current.as_ref().map(|release| release.number)) {
                    (Some(rollout), _) => format!("{:?}: {}", rollout.phase, rollout.because),
                    (None, Some(2)) => "serves".to_owned(),
                    (None, _) => format!("taken back: {}", next.history[0].because),
                }
            }
        }
    }
}

#[test]
fn the_steps_of_each_strategy() {
    let shown = |strategy: &Strategy, instances| -> Vec<String> {
        let step = |step: Step| format!("{}+{} {:?}", step.new, step.old, step.share);
        steps(strategy, instances).into_iter().map(step).collect()
    };
    assert_eq!(shown(&Strategy::Rolling, 3), ["1+3 None", "2+2 None", "3+1 None"]);
    assert_eq!(shown(&Strategy::Rolling, 1), ["1+1 None"]);
    assert_eq!(shown(&Strategy::Rolling, 10), ["3+10 None", "6+7 None", "9+4 None", "10+1 None"]);
    let canary = Strategy::Canary(vec![10, 50]);
    assert_eq!(shown(&canary, 3), ["1+3 Some(100)", "2+3 Some(500)", "3+3 Some(1000)"]);
    assert_eq!(shown(&Strategy::BlueGreen, 3), ["3+3 Some(0)", "3+3 Some(1000)"]);
}

#[test]
fn nothing_changes_before_every_node_has_the_artefact() {
    let mut case = Case::new(Strategy::Rolling, Phase::Staging);
    assert_eq!(case.outcome(), "Step(0): every node has the artefact");
    case.unstaged = vec!["w1".into()];
    assert_eq!(case.outcome(), "-");
    case.waited = 120;
    assert_eq!(case.outcome(), "taken back: w1 did not get the artefact within 120 s");
}

#[test]
fn a_release_that_needs_a_job_begins_when_its_run_has_succeeded_and_else_not_at_all() {
    let mut case = Case::new(Strategy::Rolling, Phase::Staging);
    case.service.rollout.as_mut().unwrap().before = Some("migrate".into());
    assert_eq!(case.outcome(), "Before: every node has the artefact, and a job must run first");
    let mut case = Case::new(Strategy::Rolling, Phase::Before);
    case.errand = Some(Errand::Open("run 3 of migrate runs on e1".to_owned()));
    case.waited = 100_000;
    assert_eq!(case.decided(), Decision::Wait("run 3 of migrate runs on e1".to_owned()));
    case.errand = Some(Errand::Done(3));
    assert_eq!(case.outcome(), "Step(0): run 3 of its job succeeded");
    let run = FailedRun { job: "migrate".into(), number: 3, last_lines: vec!["no column".to_owned()] };
    case.errand =
        Some(Errand::Failed { because: "run 3 of migrate failed".to_owned(), run: Some(run.clone()) });
    let Decision::Next(next) = case.decided() else { panic!("it waits") };
    assert_eq!((next.current.clone(), next.rollout.clone()), (case.service.current.clone(), None));
    assert_eq!(next.history[0].failed_run.as_ref(), Some(&run));
    assert_eq!(case.outcome(), "taken back: run 3 of migrate failed");
}

#[test]
fn a_good_release_goes_from_step_to_step_and_serves() {
    let first = Case::new(Strategy::Rolling, Phase::Step(0));
    assert!(first.outcome().starts_with("Step(1): step 1 went well"), "{}", first.outcome());
    assert_eq!(Case::new(Strategy::Rolling, Phase::Step(2)).outcome(), "serves");
    let mut early = Case::new(Strategy::Rolling, Phase::Step(0));
    early.baked = 5;
    assert_eq!(early.outcome(), "-");
    let mut unheard = Case::new(Strategy::Rolling, Phase::Step(2));
    unheard.obeyed = false;
    assert_eq!(unheard.outcome(), "-", "a proxy may still send requests elsewhere");
}

#[test]
fn a_release_that_does_not_get_ready_or_ends_is_taken_back() {
    let mut never = Case::new(Strategy::Rolling, Phase::Step(0));
    (never.news.ready, never.waited) = (0, 29);
    assert_eq!(never.outcome(), "-");
    never.waited = 30;
    assert_eq!(never.outcome(), "RollingBack: only 0 of 1 new instances were ready after 30 s");
    let mut crashed = Case::new(Strategy::BlueGreen, Phase::Step(1));
    crashed.news.ended = vec!["web-4@e1".to_owned()];
    assert_eq!(crashed.outcome(), "RollingBack: web-4@e1 ended by itself");
    let mut sick = Case::new(Strategy::BlueGreen, Phase::Step(0));
    sick.news.sick = vec!["web-4@e1".to_owned()];
    assert_eq!(sick.outcome(), "RollingBack: web-4@e1 was ready and is not any more");
}

#[test]
fn a_release_that_fails_requests_is_taken_back_before_its_time_is_over() {
    let mut case = Case::new(Strategy::Canary(vec![10, 50]), Phase::Step(0));
    (case.baked, case.new) = (1, tally(95, 5, 5_000));
    assert_eq!(
        case.outcome(),
        "RollingBack: 5 of 100 requests failed on the new release, 0 of 900 on the old one"
    );
    case.old = tally(850, 50, 5_000);
    assert_eq!(case.outcome(), "-", "the old one fails as many: it is not the release");
    (case.old, case.new) = (tally(900, 0, 5_000), tally(96, 4, 5_000));
    assert_eq!(case.outcome(), "-", "four failures may be one hiccup");
}

#[test]
fn a_release_that_is_much_slower_is_taken_back() {
    let mut case = Case::new(Strategy::Canary(vec![10, 50]), Phase::Step(0));
    case.new = tally(100, 0, 25_000);
    assert!(case.outcome().starts_with("RollingBack: the middle request takes"), "{}", case.outcome());
    case.new = tally(99, 0, 25_000);
    assert_eq!(case.outcome(), "-", "too few to tell");
    (case.old, case.new) = (tally(900, 0, 300), tally(300, 0, 1_500));
    assert!(case.outcome().starts_with("Step(1)"), "a scheduler does as much to quick answers");
}

#[test]
fn a_canary_waits_for_requests_to_compare_but_not_for_ever() {
    let mut case = Case::new(Strategy::Canary(vec![10]), Phase::Step(0));
    case.new = tally(20, 0, 5_000);
    assert_eq!(case.outcome(), "-");
    case.baked = 30;
    assert!(case.outcome().starts_with("Step(1)"));
    (case.old, case.new, case.baked) = (Tally::default(), Tally::default(), 6);
    assert!(case.outcome().starts_with("Step(1)"), "without any request there is nothing to wait for");
}

#[test]
fn a_rollback_is_over_when_no_new_instance_is_left() {
    let mut case = Case::new(Strategy::Rolling, Phase::RollingBack);
    case.service.rollout.as_mut().unwrap().because = "slow".to_owned();
    assert_eq!(case.outcome(), "-");
    case.news = News::default();
    assert_eq!(case.outcome(), "taken back: slow");
    case.service.current = None;
    assert_eq!(case.outcome(), "taken back: slow", "also the first release of a service");
}

/// Two releases that are the same, with up to a tenth of all requests failing: fewer than one of 125 is accused.
#[test]
fn a_release_like_the_one_before_is_not_accused() {
    let mut state = 11_u64;
    let mut draw = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut accused = 0;
    for _ in 0..5_000 {
        let failing = draw(100);
        let mut play = |requests: u64| {
            let bad = (0..requests).filter(|_| draw(1000) < failing).count() as u64;
            tally(requests - bad, bad, 5_000)
        };
        let (old, new) = (play(900), play(100));
        accused += u32::from((fails(&old, &new, 100).or(slower(&old, &new, 100))).is_some());
    }
    assert!(accused < 40, "{accused} of 5000");
}

#[test]
fn a_release_that_serves_alone_is_not_slow_because_the_moment_before_was_calm() {
    let mut case = Case::new(Strategy::BlueGreen, Phase::Step(1));
    (case.old, case.earlier) = (tally(150, 0, 5_800), tally(600, 0, 11_600));
    case.new = tally(300, 0, 16_400);
    assert_eq!(case.outcome(), "serves");
    case.new = tally(300, 0, 60_000);
    let outcome = case.outcome();
    assert!(outcome.starts_with("RollingBack: the middle request takes"), "{outcome}");
    case.baked = 2;
    assert_eq!(case.outcome(), "-", "it has half of its time to come to speed");
    case.new = tally(270, 30, 60_000);
    assert!(case.outcome().starts_with("RollingBack: 30 of 300 requests failed"), "{}", case.outcome());
}
