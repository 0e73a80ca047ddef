//! Stories of failovers, one decision each.

use model::leadership::{Forced, Phase, Term};
use model::status::{Holdings, MemberStatus, Report, Server};

use super::*;
use crate::testkit::*;
use crate::view::{MemberView, Reach};

fn ask(record: &Leadership, members: &Members, now_ms: u64) -> Decision<Leadership> {
    ask_with(&rules(), record, members, now_ms, &mut Memory::default())
}

fn ask_with(
    rules: &Rules,
    record: &Leadership,
    members: &Members,
    now_ms: u64,
    memory: &mut Memory,
) -> Decision<Leadership> {
    let question = Question { rules, record: Some(record), members, paused: false, now: at(now_ms) };
    decide(&question, memory)
}

fn healthy() -> (Leadership, Members) {
    let links = [("b", streams(100)), ("c", streams(100))];
    let mut record = led(5, "a", &["b", "c"]);
    let view = [
        ("a", alive(primary(5, 100, &links, 1))),
        ("b", alive(standby(5, 100))),
        ("c", alive(standby(5, 100))),
    ];
    record.lineage = vec![model::leadership::TimelineOrigin {
        timeline: model::postgres::Timeline(1),
        term: Term(5),
        begins: model::postgres::Lsn(0),
    }];
    (record, members(view))
}

fn stopped(mut view: MemberView) -> MemberView {
    view.status.server = Server::Stopped { because: "killed by signal 9".to_owned() };
    view
}

fn former(led: u64, term: u64) -> MemberView {
    let mut view = stopped(alive(primary(led, 100, &[], 1)));
    let holds = Holdings::Everything { led: Term(led), clean_end: None };
    view.status.report = Some(Report { term: Term(term), holds });
    view
}

#[test]
fn a_healthy_database_is_left_alone() {
    let (record, members) = healthy();
    let decision = ask(&record, &members, 1000);
    assert_eq!(decision.action, None);
    assert_eq!(decision.because, "a leads; commits are confirmed by b or c");
    assert!(decision.is_routine);
}

#[test]
fn a_dead_postmaster_is_a_fact_and_revoked_at_once() {
    let (record, mut members) = healthy();
    members.entry("a".into()).and_modify(|view| *view = stopped(view.clone()));
    let next = ask(&record, &members, 1000).action.unwrap();
    assert_eq!(
        (next.term, next.phase),
        (Term(6), Phase::Revoking { former: "a".into(), prefer: None, forced: None })
    );
    assert_eq!(next.because, "PostgreSQL on a is not running: killed by signal 9");
}

#[test]
fn a_silent_node_is_revoked_only_when_enough_standbys_can_report() {
    let (record, mut members) = healthy();
    members.get_mut("a").unwrap().reach = Reach::Dead { since: at(600) };
    assert!(ask(&record, &members, 1000).action.is_some());
    members.get_mut("c").unwrap().reach = Reach::Dead { since: at(600) };
    let decision = ask(&record, &members, 1000);
    assert_eq!(decision.action, None);
    assert!(
        decision.because.ends_with("no failover, because c may hold acknowledged writes and cannot be asked")
    );
}

#[test]
fn one_observer_alone_revokes_nobody() {
    let (record, mut members) = healthy();
    members.get_mut("a").unwrap().reach = Reach::Doubtful { since: at(600) };
    assert_eq!(ask(&record, &members, 1000).action, None);
}

#[test]
fn an_agent_that_ended_is_no_failover_while_replication_lives() {
    let (record, mut members) = healthy();
    members.get_mut("a").unwrap().reach = Reach::AgentGone { since: at(1000) };
    assert_eq!(ask(&record, &members, 1100).action, None);
    for name in ["b", "c"] {
        if let Server::Standby(facts) = &mut members.get_mut(name).unwrap().status.server {
            facts.streaming = false;
        }
    }
    let next = ask(&record, &members, 1100).action.unwrap();
    assert!(next.because.contains("no standby receives log"), "{}", next.because);
}

#[test]
fn nobody_is_elected_before_every_acknowledged_write_is_among_the_reports() {
    let record = revoking(6, "a", &["b", "c"]);
    let view = members([
        ("a", dead(primary(5, 100, &[], 1))),
        ("b", alive(reported(6, 90))),
        ("c", alive(standby(6, 100))),
    ]);
    let decision = ask(&record, &view, 1000);
    assert_eq!(decision.action, None);
    assert_eq!(
        decision.because,
        "nobody is promoted yet: c may hold acknowledged writes and has not reported"
    );
}

#[test]
fn the_most_advanced_leads_and_the_old_set_stays_in_force() {
    let record = revoking(6, "a", &["b", "c"]);
    let view = members([
        ("a", dead(primary(5, 100, &[], 1))),
        ("b", alive(reported(6, 90))),
        ("c", alive(reported(6, 95))),
    ]);
    let next = ask(&record, &view, 1000).action.unwrap();
    assert_eq!(next.phase, Phase::Led { primary: "c".into() });
    assert_eq!((next.term, next.sync.clone()), (Term(6), any_one(&["b"])));
    assert_eq!(next.previous_sync, [any_one(&["b", "c"])]);
}

#[test]
fn the_most_advanced_is_waited_for_when_it_cannot_be_promoted() {
    let record = revoking(6, "a", &["b", "c"]);
    let view = members([
        ("a", dead(primary(5, 100, &[], 1))),
        ("b", alive(reported(6, 90))),
        ("c", dead(reported(6, 95))),
    ]);
    let decision = ask(&record, &view, 1000);
    assert_eq!(decision.action, None);
    assert!(decision.because.starts_with("c alone holds the log up to"), "{}", decision.because);
}

#[test]
fn a_former_primary_that_reports_holds_everything_but_standbys_that_are_there_go_first() {
    let record = revoking(6, "a", &["b", "c"]);
    let mut memory = Memory::default();
    let view = members([("a", former(5, 6)), ("b", alive(standby(6, 90))), ("c", dead(standby(5, 95)))]);
    let early = ask_with(&rules(), &record, &view, 1000, &mut memory);
    assert_eq!((early.action, early.wake_at), (None, Some(at(2500))));
    let late = ask_with(&rules(), &record, &view, 2500, &mut memory).action.unwrap();
    assert_eq!(late.phase, Phase::Led { primary: "a".into() });
}

/// What a leader remembers that saw a's postmaster end.
fn crashed() -> Memory {
    let (record, mut members) = healthy();
    members.entry("a".into()).and_modify(|view| *view = stopped(view.clone()));
    let mut memory = Memory::default();
    assert!(ask_with(&rules(), &record, &members, 900, &mut memory).action.is_some());
    memory
}

/// b is the only one in the set; c has been the primary before and is being rewound, unless it is said otherwise.
fn with_one_standby(a: &MemberView, c: Option<MemberView>) -> Members {
    let busy = Server::Busy { doing: "rejoining".to_owned() };
    let rejoining = alive(MemberStatus { server: busy, ..standby(6, 80) });
    members([("a", a.clone()), ("b", alive(reported(6, 90))), ("c", c.unwrap_or(rejoining))])
}

#[test]
fn a_crashed_primary_leads_again_when_nobody_else_could_confirm_for_its_last_standby() {
    let record = revoking(6, "a", &["b"]);
    let ask = |a: &MemberView, c, now, memory: &mut Memory| {
        ask_with(&rules(), &record, &with_one_standby(a, c), now, memory)
    };
    let next = ask(&former(5, 6), None, 1000, &mut crashed()).action.unwrap();
    assert_eq!((next.phase, next.sync), (Phase::Led { primary: "a".into() }, any_one(&["b"])));
    assert_eq!(next.previous_sync, [any_one(&["b"]), any_one(&["a"])], "nobody is elected without its word");
    assert!(next.because.contains("nobody would confirm"), "{}", next.because);
    // A third that is ahead cannot follow the standby either; one that is not can.
    let ahead = ask(&former(5, 6), Some(alive(standby(6, 95))), 1000, &mut crashed()).action.unwrap();
    assert_eq!(ahead.phase, Phase::Led { primary: "a".into() });
    let able = ask(&former(5, 6), Some(alive(standby(6, 80))), 1000, &mut crashed()).action.unwrap();
    assert_eq!(able.phase, Phase::Led { primary: "b".into() });
    // It has not reported yet, and soon will; but it is not waited for for ever.
    let (mut silent, mut memory) = (former(5, 6), crashed());
    silent.status.report = None;
    let early = ask(&silent, None, 1000, &mut memory);
    assert_eq!((early.action, early.wake_at), (None, Some(at(4000))));
    let late = ask(&silent, None, 4000, &mut memory).action.unwrap();
    assert_eq!(late.phase, Phase::Led { primary: "b".into() });
}

#[test]
fn a_former_primary_that_did_more_than_crash_makes_way() {
    let record = revoking(6, "a", &["b"]);
    let b_leads = |a: &MemberView, memory: &mut Memory| {
        let next = ask_with(&rules(), &record, &with_one_standby(a, None), 1000, memory).action.unwrap();
        assert_eq!(next.phase, Phase::Led { primary: "b".into() });
    };
    // It was fenced, because its writes hung.
    b_leads(&former(5, 6), &mut Memory::default());
    // It ended before it led.
    b_leads(&former(4, 6), &mut crashed());
    b_leads(&dead(former(5, 6).status), &mut crashed());
    let mut ill = former(5, 6);
    ill.status.trouble = Some("its disk is full".to_owned());
    b_leads(&ill, &mut crashed());
}

#[test]
fn a_primary_of_an_older_term_does_not_stand_for_the_last_one() {
    let record = revoking(7, "a", &["b", "c"]);
    let view = members([("a", former(5, 7)), ("b", dead(standby(6, 90))), ("c", dead(standby(6, 95)))]);
    assert_eq!(ask(&record, &view, 99_000).action, None);
}

#[test]
fn the_old_set_is_dropped_only_on_proof_of_this_version() {
    let (mut record, mut members) = healthy();
    record.previous_sync = vec![any_one(&["b"])];
    record.sync_version = 2;
    assert_eq!(ask(&record, &members, 1000).action, None);
    members.get_mut("a").unwrap().status.tenure.as_mut().unwrap().sync_applied = Some(2);
    let next = ask(&record, &members, 1000).action.unwrap();
    assert_eq!((next.sync, next.previous_sync), (any_one(&["b", "c"]), vec![]));
}

#[test]
fn a_standby_that_stops_flushing_leaves_the_set_unless_it_is_the_last() {
    let (mut record, _) = healthy();
    let mut full = streams(50);
    full.stalled_ms = 2700;
    let view = |links: &[(&str, model::status::StandbyLink)]| {
        members([
            ("a", alive(primary(5, 100, links, 1))),
            ("b", alive(standby(5, 50))),
            ("c", alive(standby(5, 100))),
        ])
    };
    let next = ask(&record, &view(&[("b", full.clone()), ("c", streams(100))]), 1000).action.unwrap();
    assert_eq!((next.sync, next.previous_sync), (any_one(&["c"]), vec![any_one(&["b", "c"])]));
    assert_eq!(next.because, "b left the sync set: it has flushed nothing for 2700 ms");
    record.sync = any_one(&["b"]);
    let decision = ask(&record, &view(&[("b", full)]), 1000);
    assert_eq!(decision.action, None, "{}", decision.because);
}

#[test]
fn a_change_of_the_sync_set_says_who_came_and_who_went_and_why() {
    let (mut record, mut members) = healthy();
    record.sync = any_one(&["b"]);
    let next = ask(&record, &members, 1000).action.unwrap();
    assert_eq!(next.because, "c joined the sync set: it streams and is caught up");

    record.sync = any_one(&[]);
    let next = ask(&record, &members, 1000).action.unwrap();
    assert_eq!(next.because, "b and c joined the sync set: they stream and are caught up");

    record.sync = any_one(&["b", "c"]);
    members.get_mut("a").unwrap().status = primary(5, 100, &[("b", streams(100))], 1);
    let mut memory = Memory::default();
    assert_eq!(ask_with(&rules(), &record, &members, 1000, &mut memory).action, None);
    let next = ask_with(&rules(), &record, &members, 2000, &mut memory).action.unwrap();
    assert_eq!(next.because, "c left the sync set: its stream ended");
}

#[test]
fn sentences_fit_one_name_and_several() {
    let (mut record, mut members) = healthy();
    record.sync = any_one(&[]);
    members.get_mut("b").unwrap().status = MemberStatus::unknown();
    members.get_mut("c").unwrap().status = MemberStatus::unknown();
    let decision = ask(&record, &members, 1000);
    assert_eq!(decision.because, "a leads; commits wait until a standby streams");

    let record = revoking(6, "a", &["b", "c"]);
    let both = crate::testkit::members([
        ("a", dead(primary(5, 100, &[], 1))),
        ("b", alive(standby(6, 100))),
        ("c", dead(standby(5, 100))),
    ]);
    assert_eq!(
        ask(&record, &both, 1000).because,
        "nobody is promoted yet: b and c may hold acknowledged writes and have not reported"
    );
    let mut one = both;
    one.insert("b".into(), alive(reported(6, 100)));
    assert_eq!(
        ask(&record, &one, 1000).because,
        "nobody is promoted yet: c may hold acknowledged writes and has not reported"
    );
    let record = revoking(6, "a", &[]);
    let mut memory = Memory::default();
    let decision = ask_with(&Rules { k: 1, ..rules() }, &record, &one, 1000, &mut memory);
    assert_eq!(
        decision.because,
        "nobody is promoted yet: only a holds the acknowledged writes, and it has not reported"
    );
}

#[test]
fn an_asynchronous_failover_waits_for_the_old_lease() {
    let rules = Rules { k: 0, ..rules() };
    let mut record = revoking(6, "a", &[]);
    record.sync.k = 0;
    let view = members([
        ("a", dead(primary(5, 100, &[], 1))),
        ("b", alive(reported(6, 90))),
        ("c", alive(reported(6, 95))),
    ]);
    let mut memory = Memory::default();
    assert_eq!(ask_with(&rules, &record, &view, 1000, &mut memory).wake_at, Some(at(3040)));
    let next = ask_with(&rules, &record, &view, 3040, &mut memory).action.unwrap();
    assert_eq!(next.phase, Phase::Led { primary: "c".into() });
}

#[test]
fn a_switchover_refused_for_a_standby_that_connects_anew_may_be_granted_in_a_moment() {
    let (record, healthy) = healthy();
    let rules = rules();
    let ask = |members: &Members, to: Option<&str>| {
        let question = Question { rules: &rules, record: Some(&record), members, paused: false, now: at(0) };
        super::switchover(&question, to.map(NodeName::new).as_ref())
    };
    assert!(ask(&healthy, None).is_ok());
    let mut apart = healthy.clone();
    for node in ["b", "c"] {
        let mut status = standby(5, 100);
        if let Server::Standby(server) = &mut status.server {
            server.streaming = false;
        }
        apart.insert(node.into(), alive(status));
    }
    let refused = ask(&apart, None).unwrap_err();
    assert!(refused.passing && refused.because == "no standby is caught up", "{refused:?}");
    assert!(ask(&apart, Some("b")).unwrap_err().passing);
    assert!(!ask(&healthy, Some("a")).unwrap_err().passing, "it will not be another one by waiting");
    assert!(!ask(&healthy, Some("z")).unwrap_err().passing, "nor a member");
}

#[test]
fn an_operator_may_accept_the_loss_but_not_from_a_working_primary() {
    let (record, members) = healthy();
    let rules = rules();
    let question =
        Question { rules: &rules, record: Some(&record), members: &members, paused: false, now: at(0) };
    assert!(
        force_failover(&question, &"b".into(), "why not")
            .unwrap_err()
            .hint
            .starts_with("mainstay switchover")
    );
    let forced = Forced { candidate: "b".into(), statement: "c burnt down".to_owned() };
    let record = crate::testkit::record(
        7,
        Phase::Revoking { former: "a".into(), prefer: None, forced: Some(forced) },
        &["b", "c"],
    );
    let view = crate::testkit::members([
        ("a", dead(primary(5, 100, &[], 1))),
        ("b", alive(reported(7, 90))),
        ("c", dead(standby(5, 95))),
    ]);
    let next = ask(&record, &view, 1000).action.unwrap();
    assert_eq!((next.phase, next.previous_sync), (Phase::Led { primary: "b".into() }, vec![]));
}

#[test]
fn a_switchover_waits_for_the_last_word_of_the_old_primary() {
    let phase = Phase::HandingOver { from: "a".into(), to: "b".into() };
    let record = crate::testkit::record(5, phase, &["b", "c"]);
    let mut old = stopped(alive(primary(5, 100, &[], 1)));
    let holds = Holdings::Everything { led: Term(5), clean_end: Some(position(1, 110)) };
    old.status.report = Some(Report { term: Term(6), holds });
    let view =
        |lsn| members([("a", old.clone()), ("b", alive(standby(5, lsn))), ("c", alive(standby(5, 90)))]);
    assert_eq!(ask(&record, &view(105), 1000).action, None);
    let next = ask(&record, &view(118), 1000).action.unwrap();
    assert_eq!((next.term, next.phase), (Term(6), Phase::Led { primary: "b".into() }));
    assert_eq!((next.sync, next.previous_sync), (any_one(&["c"]), vec![any_one(&["b", "c"])]));
}

#[test]
fn a_successor_that_receives_nothing_any_more_and_lacks_the_end_is_not_waited_for() {
    let phase = Phase::HandingOver { from: "a".into(), to: "b".into() };
    let record = crate::testkit::record(5, phase, &["b", "c"]);
    let mut old = stopped(alive(primary(5, 100, &[], 1)));
    let holds = Holdings::Everything { led: Term(5), clean_end: Some(position(1, 110)) };
    old.status.report = Some(Report { term: Term(6), holds });
    let mut short = standby(5, 105);
    if let Server::Standby(facts) = &mut short.server {
        facts.follows = Term(0);
    }
    let view = members([("a", old), ("b", alive(short)), ("c", alive(standby(5, 90)))]);
    let next = ask(&record, &view, 1000).action.unwrap();
    assert_eq!(next.phase, Phase::Revoking { former: "a".into(), prefer: Some("b".into()), forced: None });
}

#[test]
fn a_server_that_answers_nobody_while_it_shuts_down_is_waited_for() {
    let phase = Phase::HandingOver { from: "a".into(), to: "b".into() };
    let record = crate::testkit::record(5, phase, &["b", "c"]);
    let mut old = alive(primary(5, 100, &[], 1));
    old.status.server = Server::Sick { primary: true, because: "it does not answer".to_owned() };
    let view = members([("a", old), ("b", alive(standby(5, 100))), ("c", alive(standby(5, 90)))]);
    let mut memory = Memory::default();
    assert_eq!(ask_with(&rules(), &record, &view, 1000, &mut memory).action, None);
    let late = ask_with(&rules(), &record, &view, 6000, &mut memory).action.unwrap();
    assert_eq!(late.phase, Phase::Revoking { former: "a".into(), prefer: Some("b".into()), forced: None });
}

#[test]
fn an_agent_that_has_just_started_is_given_time_to_look_at_its_server() {
    let (record, mut members) = healthy();
    let mut memory = Memory::default();
    assert_eq!(ask_with(&rules(), &record, &members, 1000, &mut memory).action, None);
    members.get_mut("a").unwrap().status = model::status::MemberStatus::unknown();
    assert_eq!(ask_with(&rules(), &record, &members, 60_000, &mut memory).action, None);
    assert_eq!(ask_with(&rules(), &record, &members, 62_000, &mut memory).action, None);
    assert!(ask_with(&rules(), &record, &members, 62_500, &mut memory).action.is_some());
}

#[test]
fn a_primary_whose_disk_is_full_hands_on_to_a_standby_that_has_space() {
    let (record, mut members) = healthy();
    let full = || Some("only 3 MB are left on the database's volume".to_owned());
    members.get_mut("a").unwrap().status.disk = full();
    let next = ask(&record, &members, 1000).action.unwrap();
    assert_eq!((next.term, next.primary()), (Term(6), None));
    assert_eq!(next.because, "a cannot go on writing: only 3 MB are left on the database's volume");
    for name in ["b", "c"] {
        let status = &mut members.get_mut(name).unwrap().status;
        (status.disk, status.trouble) = (full(), full());
    }
    assert_eq!(ask(&record, &members, 1000).action, None, "a full primary is better than none");
}

#[test]
fn a_standby_whose_disk_is_full_leaves_the_set_before_it_blocks_writes() {
    let (record, mut members) = healthy();
    let full = Some("only 3 MB are left on the database's volume".to_owned());
    members.get_mut("b").unwrap().status.disk = full.clone();
    assert_eq!(ask(&record, &members, 1000).action.unwrap().sync, any_one(&["c"]));
    members.get_mut("c").unwrap().status.disk = full;
    assert_eq!(ask(&record, &members, 1000).action, None, "one of them must confirm, full or not");
}
