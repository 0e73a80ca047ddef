//! Each reason for which a run is red, on a forged run of `node-kill` that is green.

use std::collections::BTreeMap;

use model::postgres::Timeline;

use super::super::course::Deed;
use super::*;
use crate::drill::catalogue::drill;
use crate::drill::{Answer, Cast, Drill, Role, Server, Write, Writer};

/// Everything a verdict rests on, to be changed at will.
struct Forged {
    drill: &'static Drill,
    course: Course,
    watched: Vec<Watched>,
    history: History,
    copies: Vec<Copy>,
    unread: Vec<String>,
    workloads: Vec<Judged>,
    same_senders: usize,
}

fn at(ms: u64) -> Moment {
    Moment::from_millis(ms)
}

fn deed(what: &str, proof: &str) -> Deed {
    Deed { at: at(2000), what: what.to_owned(), proof: proof.to_owned() }
}

fn members() -> Vec<Member> {
    let member =
        |name: &str, last: u8| Member { node: name.into(), addresses: vec![([10, 0, 0, last], 5432).into()] };
    vec![member("a", 1), member("b", 2), member("c", 3)]
}

fn answers(member: &str, times: impl Iterator<Item = u64>) -> Vec<Answer> {
    times
        .map(|ms| Answer { member: member.into(), sent: at(ms), received: at(ms + 1), role: Role::Standby })
        .collect()
}

fn acknowledged(id: u64, ms: u64, timeline: u32, last: u8) -> Write {
    let server = Server { timeline: Timeline(timeline), address: [10, 0, 0, last].into(), port: 5432 };
    Write { id, by: Writer::Client, sent: at(ms), ended: at(ms), outcome: Outcome::Acknowledged(server) }
}

/// The primary's node a dies at 2000 ms, b acknowledges from 2700 ms, a is started at 5000 ms and whole at 7000 ms.
fn green() -> Forged {
    let before = (0..200).map(|n| acknowledged(n, n * 10, 1, 1));
    let after = (270..800).map(|n| acknowledged(n, n * 10, 2, 2));
    let writes: Vec<Write> = before.chain(after).collect();
    let rows: BTreeMap<u64, u64> = writes.iter().map(|write| (write.id, 1)).collect();
    let asked = || (0..8000).step_by(50);
    let awake = asked().filter(|ms| !(1990..5100).contains(ms));
    let answers = [answers("a", awake), answers("b", asked()), answers("c", asked())].concat();
    let watched = |ms: u64| Watched {
        at: at(ms),
        primary: Some(if ms < 2600 { "a" } else { "b" }.into()),
        missing: (2300..7000).contains(&ms).then(|| "a is dead".to_owned()),
        confirming: Some(vec!["b".into(), "c".into()]),
        answering: BTreeMap::new(),
    };
    Forged {
        drill: drill("node-kill"),
        course: Course {
            begun: at(2000),
            struck: at(2050),
            healing: at(5000),
            first: None,
            returned: at(5050),
            settled: at(7500),
            flows: true,
            reconnects: 1,
            deeds: vec![deed("take the power from a", "all 17 processes are dead")],
        },
        watched: (0..7500).step_by(50).map(watched).collect(),
        history: History { writes, answers },
        copies: ["the route", "member a"].map(|r| Copy { reader: r.to_owned(), rows: rows.clone() }).into(),
        unread: Vec::new(),
        workloads: Vec::new(),
        same_senders: 0,
    }
}

fn judged(forged: &Forged) -> Run {
    // Nothing is run on this runtime: only its handle is asked for.
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let cast = Cast { leader: Some("b".into()), run: 2, ..Cast::of("a", &["b", "c"]) };
    judge(&Case {
        plan: &forged.drill.plan(&cast),
        options: &Options::new(runtime.handle().clone(), tokio_postgres::Config::new()),
        primary: &"a".into(),
        members: &members(),
        course: &forged.course,
        watched: &forged.watched,
        history: &forged.history,
        copies: &forged.copies,
        unread: &forged.unread,
        workloads: &forged.workloads,
        same_senders: forged.same_senders,
    })
}

#[test]
fn what_was_to_end_must_have_ended() {
    let forged = |drill, same_senders, reconnects| {
        let green = green();
        Forged { drill, same_senders, course: Course { reconnects, ..green.course }, ..green }
    };
    let says = |forged: &Forged, words: &str| judged(forged).failures.iter().any(|why| why.contains(words));
    assert!(says(&forged(drill("replication-end"), 1, 0), "1 WAL senders of a are those of before"));
    assert!(!says(&forged(drill("replication-end"), 0, 0), "WAL senders"));
    assert!(says(&forged(drill("sessions-end"), 0, 0), "lived on: nobody ended it"));
    assert!(!says(&forged(drill("sessions-end"), 0, 1), "lived on"));
}

/// Changes the green run and demands that this sentence, and no other, says why it is red.
fn red(because: &str, change: impl FnOnce(&mut Forged)) {
    let mut forged = green();
    change(&mut forged);
    let run = judged(&forged);
    assert!(!run.passed && run.failures.len() == 1, "{because}: {:?}", run.failures);
    assert!(run.failures[0].contains(because), "{because}: {:?}", run.failures);
}

#[test]
fn a_good_run_is_green_and_measured() {
    let run = judged(&green());
    assert_eq!(run.failures, [""; 0]);
    assert_eq!((run.outage_ms, run.healing_ms), (Some(710.0), Some(10.0)));
    assert_eq!(run.redundancy_ms, Some(1950.0), "from the node's return at 5050 ms to 7000 ms");
    assert_eq!((run.acknowledged, run.errors, run.lost), (730, 0, 0));
    assert_eq!((run.primary_before.as_str(), run.primary_after.as_str()), ("a", "b"));
}

#[test]
fn writes_that_stand_still_too_long_are_red() {
    red("writes stood still for 2810 ms, more than 3 times the objective of 900 ms", |forged| {
        forged.history.writes.retain(|write| !(200..480).contains(&write.id));
        forged.copies.iter_mut().for_each(|copy| copy.rows.retain(|id, _| !(200..480).contains(id)));
    });
}

#[test]
fn writes_that_never_come_back_are_red() {
    let mut forged = green();
    forged.history.writes.retain(|write| write.id < 200);
    forged.copies.iter_mut().for_each(|copy| copy.rows.retain(|id, _| *id < 200));
    let run = judged(&forged);
    assert_eq!(run.outage_ms, None);
    assert_eq!(run.failures, ["no write was acknowledged after the fault"]);
}

#[test]
fn a_lost_write_is_red() {
    red("1 acknowledged writes are lost (150)", |forged| _ = forged.copies[1].rows.remove(&150));
}

/// A bank whose sum is not what it was.
fn broken_bank() -> Judged {
    let text = r#"{"bank":{"accounts":{"1":100,"2":100}}}
{"client":1,"from":1000,"is":"ok","until":1900,"do":{"read":{"1":100,"2":101}}}
"#;
    Judged::of(&::checker::file::History::parse(text).unwrap(), 0)
}

#[test]
fn a_workload_whose_claim_is_violated_is_red() {
    red("bank is violated: wrong sum", |run| run.workloads.push(broken_bank()));
}

#[test]
fn a_member_that_cannot_be_read_is_red() {
    red("member c could not be read", |forged| {
        forged.unread.push("member c could not be read: refused".to_owned())
    });
}

#[test]
fn what_the_system_should_have_done_and_did_not_is_red() {
    red("the system did not do what is expected within 60 s", |forged| forged.course.flows = false);
    red("a is still the primary", |forged| {
        forged.watched.iter_mut().for_each(|watched| watched.primary = Some("a".into()));
    });
    red("the system never said that its redundancy was gone", |forged| {
        forged.watched.iter_mut().for_each(|watched| watched.missing = None);
    });
    red("no full redundancy within 60 s: a is dead", |forged| {
        forged.watched.last_mut().unwrap().missing = Some("a is dead".to_owned());
    });
}

#[test]
fn a_fault_that_did_not_happen_is_red() {
    red("there is no evidence", |forged| forged.course.deeds = vec![deed("take the power from a", "")]);
    red("a answered 3 times while it should have been silent", |forged| {
        forged.history.answers.extend(answers("a", [3000, 3050, 3100].into_iter()));
    });
    red("the prober never reached c directly", |forged| {
        forged.history.answers.retain(|answer| answer.member.as_str() != "c" || answer.received > at(2000));
    });
}

#[test]
fn an_error_or_a_change_where_none_may_be_is_red() {
    let mut forged = green();
    forged.drill = drill("agent-kill");
    forged.history.writes[100].outcome = Outcome::Unknown("the connection was lost".to_owned());
    let failures = judged(&forged).failures;
    assert!(
        failures.iter().any(|f| f.contains("saw 1 errors") && f.contains("the connection was lost")),
        "{failures:?}"
    );
    assert!(failures.iter().any(|f| f.contains("the primary changed from a although")), "{failures:?}");
}

#[test]
fn a_new_primary_that_healing_disturbs_is_red() {
    red("taking the fault back moved the primary: c was one meanwhile, b is now", |forged| {
        forged.watched.iter_mut().filter(|watched| watched.at == at(5500)).for_each(|watched| {
            watched.primary = Some("c".into());
        });
    });
    red("taking the fault back demoted b for a moment: 2 leaderships acknowledged writes", |forged| {
        for write in forged.history.writes.iter_mut().filter(|write| write.ended >= at(6000)) {
            write.outcome = acknowledged(write.id, 0, 3, 2).outcome;
        }
    });
}

#[test]
fn a_rejoin_that_takes_too_long_is_red() {
    red("full redundancy took 11950 ms, more than 10000 ms", |forged| {
        forged.drill = drill("rejoin");
        forged.course.settled = at(18_000);
        // The victim of an even run is a standby, and the primary stays.
        forged.watched = (0..18_000)
            .step_by(50)
            .map(|ms| Watched {
                at: at(ms),
                primary: Some("a".into()),
                missing: (2300..17_000).contains(&ms).then(|| "b is dead".to_owned()),
                confirming: None,
                answering: BTreeMap::new(),
            })
            .collect();
        forged.history.writes = (0..1850).map(|n| acknowledged(n, n * 10, 1, 1)).collect();
        let rows: BTreeMap<u64, u64> = forged.history.writes.iter().map(|write| (write.id, 1)).collect();
        forged.copies.iter_mut().for_each(|copy| copy.rows.clone_from(&rows));
        let silent = |ms: u64| (1990..5100).contains(&ms);
        let asked = || (0..18_000).step_by(50);
        forged.history.answers =
            [answers("a", asked()), answers("b", asked().filter(|ms| !silent(*ms))), answers("c", asked())]
                .concat();
    });
}

/// Both standbys b and c die at 2000 ms; b is started at 5000 ms, its agent answers at 5500 ms, writes flow from 6000 ms.
fn waiting() -> Forged {
    let mut forged = green();
    forged.drill = drill("both-standbys-kill");
    forged.course.first = Some("b".into());
    forged.course.deeds.push(deed(
        "ask for the status",
        "writes to orders wait: no standby confirms them: b and c are silent; start node b or c",
    ));
    let before = (0..200).map(|n| acknowledged(n, n * 10, 1, 1));
    let after = (600..800).map(|n| acknowledged(n, n * 10, 1, 1));
    forged.history.writes = before.chain(after).collect();
    let rows: BTreeMap<u64, u64> = forged.history.writes.iter().map(|write| (write.id, 1)).collect();
    forged.copies.iter_mut().for_each(|copy| copy.rows.clone_from(&rows));
    let asked = || (0..8000).step_by(50);
    let awake = || asked().filter(|ms| !(1990..5700).contains(ms));
    forged.history.answers = [answers("a", asked()), answers("b", awake()), answers("c", awake())].concat();
    for watched in &mut forged.watched {
        watched.primary = Some("a".into());
        if watched.at >= at(5500) {
            watched.answering = [("b".into(), 1)].into();
        }
    }
    forged
}

/// Changes the waiting run and demands that this sentence, and no other, says why it is red.
fn red_waiting(because: &str, change: impl FnOnce(&mut Forged)) {
    let mut forged = waiting();
    change(&mut forged);
    let failures = judged(&forged).failures;
    assert!(failures.len() == 1 && failures[0].contains(because), "{because}: {failures:?}");
}

#[test]
fn writes_that_wait_as_they_must_are_green_and_timed_from_the_return() {
    let run = judged(&waiting());
    assert_eq!(run.failures, [""; 0]);
    assert_eq!((run.flowing_ms, run.flowing_from_start_ms), (Some(500.0), Some(1000.0)));
}

#[test]
fn writes_that_do_not_wait_or_wait_too_long_are_red() {
    red_waiting("1 writes were acknowledged while nobody could confirm them", |forged| {
        forged.history.writes.push(acknowledged(5000, 3000, 1, 1));
        forged.copies.iter_mut().for_each(|copy| _ = copy.rows.insert(5000, 1));
    });
    red_waiting("writes flowed 2000.1 ms after the return, later than 2000 ms", |forged| {
        forged.history.writes.retain(|write| write.id < 200 || write.id >= 750);
        forged.copies.iter_mut().for_each(|copy| copy.rows.retain(|id, _| *id < 200 || *id >= 750));
        forged.history.writes.iter_mut().filter(|write| write.id == 750).for_each(|write| {
            write.ended = Moment::from_micros(7_500_100);
        });
    });
}

#[test]
fn where_nothing_is_promised_meanwhile_writes_may_go_on_but_must_flow_soon_after_the_end() {
    let about_writes = |forged: &Forged| -> Vec<String> {
        judged(forged).failures.into_iter().filter(|why| !why.contains("links were good")).collect()
    };
    let mut forged = waiting();
    forged.drill = drill("network-very-lossy");
    forged.history.writes.push(acknowledged(5000, 3000, 1, 1));
    forged.copies.iter_mut().for_each(|copy| _ = copy.rows.insert(5000, 1));
    assert_eq!(about_writes(&forged), [""; 0]);
    forged.history.writes.retain(|write| write.ended < at(6000));
    let failures = about_writes(&forged);
    assert!(failures.iter().any(|why| why.contains("did not flow again after the return")), "{failures:?}");
}

#[test]
fn a_status_that_does_not_say_what_would_help_is_red() {
    red_waiting("the status does not say \"start node\"", |forged| {
        forged.course.deeds[1] = deed("ask for the status", "no standby confirms them");
    });
}

#[test]
fn a_victim_that_stays_in_the_sync_set_is_red() {
    let mut forged = waiting();
    forged.drill = drill("disk-full-standby");
    let failures = judged(&forged).failures;
    assert!(failures.iter().any(|f| f.contains("the sync set never shrank")), "{failures:?}");
    for watched in forged.watched.iter_mut().filter(|watched| watched.at >= at(3000)) {
        watched.confirming = Some(vec!["c".into()]);
    }
    let run = judged(&forged);
    assert_eq!(run.left_set_ms, Some(1000.0));
    assert!(!run.failures.iter().any(|f| f.contains("sync set")), "{:?}", run.failures);
}

#[test]
fn a_control_that_finds_no_loss_is_red_and_one_that_finds_it_is_not() {
    let mut forged = green();
    forged.drill = drill("async-loss");
    let failures = judged(&forged).failures;
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert!(failures[0].contains("the check found nothing where there must be something"), "{failures:?}");
    _ = forged.copies[1].rows.remove(&150);
    assert_eq!(judged(&forged).failures, [""; 0]);
}

#[test]
fn a_connection_that_should_have_lived_on_is_red() {
    let mut forged = waiting();
    forged.drill = drill("proxy-agent-cut");
    let failures = judged(&forged).failures;
    assert!(failures.iter().any(|f| f.contains("had to connect anew 1 times")), "{failures:?}");
}

#[test]
fn an_agent_that_only_seems_to_be_killed_or_stopped_is_red() {
    let seen = |drill: &'static Drill, during: Option<u64>, after: u64| {
        let mut forged = green();
        forged.drill = drill;
        for watched in &mut forged.watched {
            let run = if watched.at < at(2050) { Some(1) } else { during };
            let run = if watched.at >= at(5000) { Some(after) } else { run };
            watched.answering = run.map(|run| ("a".into(), run)).into_iter().collect();
            watched.answering.extend(run.map(|run| ("b".into(), run)));
            watched.answering.extend(run.map(|run| ("c".into(), run)));
        }
        let told = |failure: &&String| failure.contains("the agent of");
        judged(&forged).failures.iter().filter(told).cloned().collect::<Vec<_>>()
    };
    assert_eq!(seen(drill("agent-kill"), None, 2), [""; 0]);
    assert_eq!(
        seen(drill("agent-kill"), Some(1), 1),
        ["the agent of a is the one it was before: nobody killed it"]
    );
    assert_eq!(seen(drill("coordination-quorum-loss"), None, 1), [""; 0]);
    assert_eq!(
        seen(drill("coordination-quorum-loss"), Some(1), 1)[0],
        "the agent of b answered all the time: nobody stopped it"
    );
}

/// What the verdict says of the links of a node whose answers between the fault and its end took so long, and came so often.
fn of_links(name: &str, took: u64, every: usize) -> Vec<String> {
    let mut forged = green();
    forged.drill = drill(name);
    let asked = (0..8000).step_by(50).filter(|ms| !(2000..5000).contains(ms));
    let answers = asked.chain((2050..4900).step_by(every)).map(|ms| Answer {
        member: "a".into(),
        sent: at(ms),
        received: at(ms + if (2000..5000).contains(&ms) { took } else { 1 }),
        role: Role::Standby,
    });
    forged.history.answers.retain(|answer| answer.member != "a".into());
    forged.history.answers.extend(answers);
    let said = judged(&forged).failures;
    said.into_iter().filter(|why| why.contains("links were good") || why.contains("nobody cut")).collect()
}

#[test]
fn a_slow_or_flapping_node_that_answers_as_ever_is_red() {
    assert_eq!(of_links("primary-slow", 55, 50), [""; 0]);
    let fast = of_links("primary-slow", 2, 50);
    assert!(matches!(fast.as_slice(), [why] if why.contains("took 38 ms or more")), "{fast:?}");
    assert_eq!(of_links("primary-flapping", 2, 400), [""; 0]);
    let steady = of_links("primary-flapping", 2, 50);
    assert!(
        matches!(steady.as_slice(), [why] if why.contains("a was never silent for longer than")),
        "{steady:?}"
    );
}
