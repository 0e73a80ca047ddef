//! Jobs in the hands of one leader, of two, and of nodes that die.

use std::time::Duration;

use model::system::Placement;

use super::*;

const MINUTE: i64 = 60_000_000;

/// A job with what is agreed on about it.
struct Life {
    job: Job,
    record: Option<JobRecord>,
    now: i64,
    able: Vec<NodeName>,
    lost: BTreeSet<NodeName>,
    standing: Standing,
}

impl Life {
    fn new(schedule: Option<&str>) -> Self {
        let job = Job {
            command: vec!["./job".to_owned()],
            env: Default::default(),
            placement: Placement::default(),
            schedule: schedule.map(|text| text.parse().unwrap()),
            timeout: Duration::from_secs(60),
            repeat_if_unknown: false,
            memory: None,
            user: None,
        };
        let able = ["a", "b", "c"].map(NodeName::from).to_vec();
        Self {
            job,
            record: None,
            now: 1_795_466_700_000_000,
            able,
            lost: BTreeSet::new(),
            standing: Standing::Wanted,
        }
    }

    fn decide(&self, record: Option<&JobRecord>, now_us: i64) -> Option<Decision> {
        let (able, lost, standing) = (&self.able, &self.lost, &self.standing);
        lead(&Question { job: &self.job, record, now_us, able, lost, standing })
    }

    /// Lets the leader decide once; what it says.
    fn lead(&mut self) -> Option<String> {
        let decision = self.decide(self.record.as_ref(), self.now)?;
        self.record = Some(decision.next);
        decision.because
    }

    fn pass(&mut self, minutes: i64) {
        self.now += minutes * MINUTE;
    }

    fn lose(&mut self, node: &str) {
        self.able.retain(|able| able.as_str() != node);
        self.lost.insert(node.into());
    }

    /// The node that has the run begins it; its number.
    fn claim(&mut self) -> u64 {
        let record = self.record.clone().unwrap();
        let node = record.open().unwrap().state.node().unwrap().clone();
        let (next, number) = claim(&record, &node, 1, self.now).unwrap();
        self.record = Some(next);
        number
    }

    fn end(&mut self, node: &str, outcome: &Outcome) -> bool {
        let record = self.record.clone().unwrap();
        let number = record.last().unwrap().number;
        let next = ended(&record, number, &node.into(), outcome, self.now);
        let said = next.is_some();
        self.record = next.or(Some(record));
        said
    }

    fn last(&self) -> String {
        self.record.as_ref().unwrap().last().unwrap().state.to_string()
    }
}

#[test]
fn a_new_job_is_not_run_for_the_past_and_then_once_for_each_due_time() {
    let mut life = Life::new(Some("every 5m"));
    assert_eq!(life.lead(), None);
    assert_eq!(life.lead(), None);
    for run in 1..4 {
        life.pass(5);
        let node = ["a", "b", "c"][run % 3];
        assert_eq!(life.lead(), Some(format!("run {run} begins on {node}: it was due")));
        assert_eq!(life.lead(), None);
        assert_eq!(life.claim(), run as u64);
        assert_eq!(life.lead(), None);
        assert!(life.end(node, &Outcome::Succeeded));
        assert_eq!(life.lead(), None, "this time is seen to");
    }
}

#[test]
fn times_that_pass_during_a_run_or_while_nothing_leads_count_as_one() {
    let mut life = Life::new(Some("every 5m"));
    life.lead();
    life.pass(5);
    life.lead();
    life.claim();
    life.pass(22);
    assert_eq!(life.lead(), None, "it never runs beside itself");
    life.end("b", &Outcome::Succeeded);
    assert_eq!(life.lead(), Some("run 2 begins on c: it was due".to_owned()));
    life.claim();
    life.end("c", &Outcome::Succeeded);
    assert_eq!(life.lead(), None);
}

#[test]
fn two_leaders_with_different_clocks_never_run_one_time_twice() {
    let mut life = Life::new(Some("every 5m"));
    life.lead();
    life.pass(5);
    // Both decide on the same record: only one of the commits can hold, and the other then sees it.
    let first = life.decide(life.record.as_ref(), life.now).unwrap().next;
    let second = life.decide(life.record.as_ref(), life.now + MINUTE).unwrap().next;
    assert_eq!(first, second);
    life.record = Some(first);
    life.claim();
    life.end("b", &Outcome::Succeeded);
    // A leader whose clock is an hour ahead runs a time that the next one must not run again.
    let now = life.now;
    life.now += 60 * MINUTE;
    life.lead();
    life.claim();
    life.end("c", &Outcome::Succeeded);
    let seen = life.record.clone().unwrap();
    life.now = now;
    for _ in 0..13 {
        assert_eq!(life.lead(), None);
        assert_eq!(life.record.as_ref(), Some(&seen));
        life.pass(5);
    }
    assert!(life.lead().is_some(), "after that hour it goes on");
}

#[test]
fn a_clock_that_was_wrong_by_years_does_not_stop_a_job_for_years() {
    let mut life = Life::new(Some("daily 03:00"));
    life.lead();
    let now = life.now;
    life.pass(60 * 24 * 900);
    life.lead();
    life.claim();
    life.end("b", &Outcome::Succeeded);
    life.now = now;
    assert_eq!(life.lead().as_deref(), Some("times that a wrong clock took for past are still to come"));
    assert_eq!(life.lead(), None);
    life.pass(60 * 24);
    assert_eq!(life.lead().as_deref(), Some("run 2 begins on c: it was due"));
}

#[test]
fn a_run_that_has_not_begun_moves_and_one_that_has_becomes_unknown() {
    let mut life = Life::new(Some("every 5m"));
    life.lead();
    life.pass(5);
    life.lead();
    life.lose("b");
    assert_eq!(life.lead().as_deref(), Some("run 1 begins on c: b was lost before it began"));
    let late = life.record.clone().unwrap();
    assert_eq!(claim(&late, &"b".into(), 1, life.now), None, "b is too late");
    life.claim();
    life.lose("c");
    assert_eq!(life.lead().as_deref(), Some("nobody can tell how run 1 ended: c was lost while it ran"));
    assert_eq!(life.last(), "unknown outcome: c was lost while it ran");
    assert_eq!(life.lead(), None, "it is not repeated silently");
    life.pass(5);
    assert_eq!(life.lead().as_deref(), Some("run 2 begins on a: it was due"));
}

#[test]
fn what_may_be_repeated_is_and_not_for_ever() {
    let mut life = Life::new(None);
    life.job.repeat_if_unknown = true;
    let (record, number) = request(&"migrate".into(), None, "an operator", true).unwrap();
    assert_eq!(number, 1);
    life.record = record;
    let mut told = vec![];
    for _ in 0..20 {
        told.extend(life.lead());
        if matches!(
            life.record.as_ref().and_then(JobRecord::open),
            Some(Run { state: RunState::Given { .. }, .. })
        ) {
            life.claim();
            let node = life.record.as_ref().unwrap().last().unwrap().state.node().unwrap().to_string();
            life.end(&node, &Outcome::Unknown { because: "its agent ended".to_owned() });
        }
    }
    assert_eq!(
        told,
        [
            "run 1 begins on b: an operator asked for it",
            "run 2 begins on c: the outcome of run 1 is unknown",
            "run 3 begins on a: the outcome of run 2 is unknown",
            "run 4 begins on b: the outcome of run 3 is unknown",
        ]
    );
}

#[test]
fn a_node_that_was_taken_for_lost_may_still_tell_the_end() {
    let mut life = Life::new(None);
    life.record = request(&"migrate".into(), None, "an operator", true).unwrap().0;
    life.lead();
    life.claim();
    life.lose("b");
    life.lead();
    let failed = Outcome::Failed { because: "ended with exit code 3".to_owned(), last_lines: vec![] };
    assert!(!life.end("a", &failed), "it was not on a");
    assert!(!life.end("b", &Outcome::Unknown { because: "x".to_owned() }));
    assert!(life.end("b", &failed));
    assert_eq!(life.last(), "failed: ended with exit code 3");
    assert!(!life.end("b", &Outcome::Succeeded), "what is said is said");
}

#[test]
fn whoever_asks_twice_gets_one_run_unless_it_is_an_operator() {
    let name = JobName::from("migrate");
    let (record, number) = request(&name, None, "release 7 of web", false).unwrap();
    let record = record.unwrap();
    assert_eq!(request(&name, Some(&record), "release 7 of web", false), Ok((None, number)));
    let refused = request(&name, Some(&record), "an operator", true).unwrap_err();
    assert_eq!(refused.because, "run 1 of migrate waits for a node that may run it");
    let over = record.turned(1, RunState::Succeeded(Ended { node: "a".into(), since_us: 1, until_us: 2 }));
    assert_eq!(request(&name, Some(&over), "release 7 of web", false), Ok((None, 1)));
    assert_eq!(request(&name, Some(&over), "an operator", true).unwrap().1, 2);
    assert_eq!(request(&name, Some(&over), "release 8 of web", false).unwrap().1, 2);
}

#[test]
fn without_a_node_a_run_waits() {
    let mut life = Life::new(None);
    life.record = request(&"migrate".into(), None, "an operator", true).unwrap().0;
    let able = std::mem::take(&mut life.able);
    assert_eq!(life.lead(), None);
    assert_eq!(life.last(), "waits for a node that may run it");
    life.able = able;
    assert!(life.lead().is_some());
    assert_eq!(life.last(), "is about to begin on b");
}

#[test]
fn a_schedule_that_is_new_or_changes_is_not_run_for_the_past() {
    let mut life = Life::new(None);
    life.record = request(&"report".into(), None, "an operator", true).unwrap().0;
    life.lead();
    life.claim();
    life.end("b", &Outcome::Succeeded);
    life.pass(60 * 24 * 30);
    for schedule in ["daily 03:00", "hourly", "every 1m", "weekly sunday 03:00"] {
        life.job.schedule = Some(schedule.parse().unwrap());
        assert_eq!(life.lead(), None, "{schedule}");
        assert_eq!(life.decide(life.record.as_ref(), life.now), None, "{schedule}");
    }
    life.pass(60 * 24 * 7);
    assert_eq!(life.lead().as_deref(), Some("run 2 begins on c: it was due"));
}

/// A run that release 7 of web needs, asked for and not begun.
fn asked_for_by_a_release() -> Life {
    let mut life = Life::new(None);
    let (next, _) = request(&"migrate".into(), None, "release 7 of web", false).unwrap();
    life.record = next;
    life
}

#[test]
fn a_run_that_a_release_needs_begins_only_while_the_release_waits_for_it() {
    let mut life = asked_for_by_a_release();
    let waiting = BTreeSet::from(["release 7 of web".to_owned()]);
    let stands = |life: &Life, waiting: &BTreeSet<String>, seconds| {
        standing(life.record.as_ref().unwrap(), waiting, Duration::from_secs(seconds))
    };
    assert_eq!(stands(&life, &waiting, 119), Standing::Wanted);
    let late = Standing::Withdrawn("no node began it within 120 s".to_owned());
    assert_eq!(stands(&life, &waiting, 120), late);
    let others = BTreeSet::from(["release 8 of web".to_owned()]);
    assert_eq!(stands(&life, &others, 4), Standing::Unclear, "this leader may not have heard of it yet");
    let gone = Standing::Withdrawn("release 7 of web does not wait for it any more".to_owned());
    assert_eq!(stands(&life, &others, 5), gone);

    life.standing = Standing::Unclear;
    assert_eq!(life.lead(), None);
    life.standing = gone;
    let told = "run 1 never began: release 7 of web does not wait for it any more";
    assert_eq!(life.lead().as_deref(), Some(told));
    assert_eq!(life.last(), "never began: release 7 of web does not wait for it any more");
    assert_eq!(claim(life.record.as_ref().unwrap(), &"a".into(), 1, 0), None);
    let again = request(&"migrate".into(), life.record.as_ref(), "release 7 of web", false).unwrap();
    assert_eq!(again, (None, 1), "the same release gets no second run");
}

#[test]
fn a_run_that_has_begun_is_never_withdrawn_and_a_node_that_claims_one_at_that_moment_wins_or_loses() {
    let mut life = asked_for_by_a_release();
    life.lead();
    let given = life.record.clone().unwrap();
    let node = given.open().unwrap().state.node().unwrap().clone();
    life.standing = Standing::Withdrawn("it is late".to_owned());
    let withdrawn = life.decide(Some(&given), life.now).unwrap().next;
    let (claimed, _) = claim(&given, &node, 1, life.now).unwrap();
    // Both replace the same revision, so one of them is committed; each is the end of the other.
    assert_eq!(claim(&withdrawn, &node, 1, life.now), None);
    assert_eq!(life.decide(Some(&claimed), life.now), None);
}

#[test]
fn a_run_that_nobody_waits_for_is_not_repeated() {
    let mut life = asked_for_by_a_release();
    life.job.repeat_if_unknown = true;
    life.lead();
    life.claim();
    let node = life.record.as_ref().unwrap().last().unwrap().state.node().unwrap().to_string();
    life.lose(&node);
    assert!(life.lead().unwrap().contains("nobody can tell"));
    life.standing = Standing::Unclear;
    assert_eq!(life.lead(), None);
    life.standing = Standing::Wanted;
    assert!(life.lead().unwrap().contains("the outcome of run 1 is unknown"));
    let record = life.record.as_ref().unwrap();
    assert_eq!(asked_by(record, record.last().unwrap()), Some("release 7 of web"));
}
