use std::collections::BTreeMap;
use std::time::Duration;

use model::jobs::{Cause, Ended};
use model::release::{Release, Rollout, Service, Strategy};
use model::system::Placement;

use super::*;

const BY: &str = "release 7 of web";

fn job() -> Job {
    Job {
        command: vec!["{release}/migrate".to_owned()],
        env: BTreeMap::new(),
        placement: Placement::default(),
        schedule: None,
        timeout: Duration::from_secs(60),
        repeat_if_unknown: false,
        memory: None,
        user: None,
    }
}

fn ended() -> Ended {
    Ended { node: "e1".into(), since_us: 1, until_us: 2 }
}

/// What the release waits for when its run is in this state.
fn told(state: RunState) -> Errand {
    let (record, _) = JobRecord::default().with(Cause::Asked { by: BY.to_owned() }, state);
    errand(&"migrate".into(), Some(&job()), Some(&record), BY)
}

fn failed(because: &str, last_lines: &[&str]) -> Errand {
    let last_lines = last_lines.iter().map(|line| (*line).to_owned()).collect();
    let run = Some(FailedRun { job: "migrate".into(), number: 1, last_lines });
    Errand::Failed { because: format!("run 1 of migrate {because}"), run }
}

#[test]
fn a_release_waits_for_its_run_and_says_how_it_failed() {
    let node = || "e1".into();
    let open = |text: &str| Errand::Open(format!("run 1 of migrate {text}"));
    assert_eq!(told(RunState::Waiting), open("waits for a node that may run it"));
    assert_eq!(told(RunState::Given { node: node() }), open("is about to begin on e1"));
    let running = RunState::Running { node: node(), incarnation: 1, since_us: 1 };
    assert_eq!(told(running), open("runs on e1"));
    assert_eq!(told(RunState::Succeeded(ended())), Errand::Done(1));
    let lines = vec!["altering orders".to_owned(), "no such column".to_owned()];
    let because = "ended with exit code 3".to_owned();
    assert_eq!(
        told(RunState::Failed { ended: ended(), because, last_lines: lines }),
        failed(
            "failed: it ended with exit code 3; it said last: no such column",
            &["altering orders", "no such column"]
        )
    );
    let because = "e1 was lost while it ran".to_owned();
    assert_eq!(
        told(RunState::Unknown { ended: ended(), because }),
        failed("has an unknown outcome: e1 was lost while it ran", &[])
    );
    let because = "no node began it within 120 s".to_owned();
    assert_eq!(
        told(RunState::Withdrawn { at_us: 1, because }),
        failed("never began: no node began it within 120 s", &[])
    );
}

#[test]
fn runs_of_others_are_not_taken_for_the_one_of_the_release() {
    let asked = |by: &str| Cause::Asked { by: by.to_owned() };
    let (record, _) = JobRecord::default().with(asked("release 6 of web"), RunState::Succeeded(ended()));
    let of = |record: &JobRecord| errand(&"migrate".into(), Some(&job()), Some(record), BY);
    assert_eq!(of(&record), Errand::Open("a run of migrate is asked for".to_owned()));
    let (record, _) = record.with(asked("an operator"), RunState::Waiting);
    let words =
        "run 2 of migrate waits for a node that may run it, and a job never runs beside itself".to_owned();
    assert_eq!(of(&record), Errand::Open(words));
    let gone = errand(&"migrate".into(), None, Some(&record), BY);
    assert!(matches!(gone, Errand::Failed { run: None, .. }), "{gone:?}");
}

#[test]
fn a_run_of_unknown_outcome_is_waited_for_where_it_may_be_repeated() {
    let because = "e1 was lost while it ran".to_owned();
    let unknown = RunState::Unknown { ended: ended(), because };
    let (record, _) = JobRecord::default().with(Cause::Asked { by: BY.to_owned() }, unknown);
    let job = Job { repeat_if_unknown: true, ..job() };
    let of = |record: &JobRecord| errand(&"migrate".into(), Some(&job), Some(record), BY);
    assert!(matches!(of(&record), Errand::Open(_)));
    let (record, _) = record.with(Cause::Repeat { of: 1 }, RunState::Succeeded(ended()));
    assert_eq!(of(&record), Errand::Done(2));
}

fn release(number: u64) -> Release {
    let digest = format!("{number:064}").try_into().unwrap();
    Release { number, digest, size: 1, from: String::new(), at_us: 0 }
}

#[test]
fn a_run_starts_from_the_release_that_needs_it_and_else_from_the_one_that_serves() {
    let text = "[system]\nname = \"x\"\n[nodes.a]\naddress = \"10.0.0.1\"\n[services.web]\ncommand = [\"{release}/web\"]\n\
                release.before = \"migrate\"\n[jobs.migrate]\ncommand = [\"{release}/migrate\"]\n";
    let system = model::system::parse("x.toml", text.as_bytes()).unwrap().system;
    let rollout = Rollout {
        release: release(7),
        strategy: Strategy::Rolling,
        bake_ms: 0,
        ready_within_ms: 0,
        sample: 0,
        instances: None,
        before: Some("migrate".into()),
        phase: Phase::Before,
        because: String::new(),
    };
    let service = Service { current: Some(release(6)), rollout: Some(rollout), history: vec![] };
    let mut releases = Releases::from([("web".into(), service)]);
    assert_eq!(needed(&releases), [(&"migrate".into(), BY.to_owned())]);
    let of = |releases: &Releases, by| artefact(releases, &system, &"migrate".into(), by).cloned();
    assert_eq!(of(&releases, Some(BY)), Some(release(7).digest));
    assert_eq!(of(&releases, Some("an operator")), Some(release(6).digest));
    assert_eq!(of(&releases, None), Some(release(6).digest));
    releases.get_mut("web").unwrap().rollout.as_mut().unwrap().phase = Phase::Step(0);
    assert!(needed(&releases).is_empty());
    assert_eq!(of(&Releases::new(), Some(BY)), None);
}
