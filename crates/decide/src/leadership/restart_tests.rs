//! Stories of restarts, one decision each. `a` leads, `b` and `c` confirm its commits.

use model::NodeName;
use model::leadership::{Leadership, Phase, Term, TimelineOrigin};
use model::postgres::{Lsn, Timeline};
use model::status::{PendingSetting, Server, SettingsState};

use super::*;
use crate::testkit::*;
use crate::view::MemberView;

/// `max_connections` from and to, and whether it is held.
fn connections(runs: u32, wanted: u32, held: bool) -> SettingsState {
    let pending = PendingSetting {
        name: "max_connections".into(),
        runs: runs.to_string(),
        wanted: Some(wanted.to_string()),
        held,
        lowers: wanted < runs,
    };
    SettingsState::Read { pending: vec![pending] }
}

const FRESH: SettingsState = SettingsState::Read { pending: vec![] };

fn view(states: [SettingsState; 3]) -> (Leadership, Members) {
    let mut record = led(5, "a", &["b", "c"]);
    record.lineage = vec![TimelineOrigin { timeline: Timeline(1), term: Term(5), begins: Lsn(0) }];
    let links = [("b", streams(100)), ("c", streams(100))];
    let mut members = members([
        ("a", alive(primary(5, 100, &links, 1))),
        ("b", alive(standby(5, 100))),
        ("c", alive(standby(5, 100))),
    ]);
    for (view, state) in members.values_mut().zip(states) {
        view.status.settings = state;
    }
    (record, members)
}

fn ask(record: &Leadership, members: &Members) -> Decision<Leadership> {
    ask_as(false, record, members)
}

fn ask_as(paused: bool, record: &Leadership, members: &Members) -> Decision<Leadership> {
    let question = Question { rules: &rules(), record: Some(record), members, paused, now: at(1000) };
    decide(&question, &mut Memory::default())
}

/// The turn that is given next.
fn turn(record: &Leadership, members: &Members) -> String {
    let decision = ask(record, members);
    let next = decision.action.unwrap_or_else(|| panic!("{}", decision.because));
    next.restart.map_or_else(|| panic!("no turn: {}", next.because), |turn| turn.to_string())
}

fn at_work(members: &mut Members, node: &str, change: impl FnOnce(&mut MemberView)) {
    change(members.get_mut(node).unwrap());
}

/// `node` has a new server, with the settings of the file.
fn restarted(members: &mut Members, node: &str) {
    at_work(members, node, |view| {
        view.status.settings = FRESH;
        match &mut view.status.server {
            Server::Standby(facts) => facts.started_us += 1,
            Server::Primary(facts) => facts.started_us += 1,
            Server::Unknown
            | Server::Empty
            | Server::Stopped { .. }
            | Server::Busy { .. }
            | Server::Sick { .. } => panic!("{node} has no server"),
        }
    });
}

fn given(record: &Leadership, members: &Members) -> Leadership {
    ask(record, members).action.unwrap()
}

#[test]
fn a_standby_leaves_the_sync_set_restarts_and_is_back_in_it_before_the_next() {
    let (record, mut members) = view([(); 3].map(|()| connections(100, 200, false)));
    assert_eq!(turn(&record, &members), "b restarts for max_connections (1 of 3)");
    let record = given(&record, &members);
    let left = given(&record, &members);
    assert_eq!(left.sync, any_one(&["c"]));
    assert_eq!(left.previous_sync, [any_one(&["b", "c"])]);
    let proved = Leadership { previous_sync: vec![], ..left };
    let waiting = ask(&proved, &members);
    assert_eq!(waiting.action, None);
    assert_eq!(
        waiting.because,
        "b restarts for max_connections (1 of 3): commits must be confirmed without it first"
    );
    at_work(&mut members, "b", |b| b.status.server = Server::Busy { doing: "restarting".into() });
    assert_eq!(ask(&proved, &members).action, None);
    at_work(&mut members, "b", |b| b.status = standby(5, 100));
    restarted(&mut members, "b");
    let back = given(&proved, &members);
    assert_eq!(back.sync, any_one(&["b", "c"]), "it confirms again before anything else restarts");
    let proved = Leadership { previous_sync: vec![], ..back };
    assert_eq!(turn(&proved, &members), "c restarts for max_connections (2 of 3)");
}

#[test]
fn the_primary_is_last_and_hands_over_to_a_standby_that_has_restarted() {
    let (record, mut members) = view([connections(100, 200, false), FRESH, FRESH]);
    assert_eq!(turn(&record, &members), "a restarts for max_connections (1 of 1)");
    let record = given(&record, &members);
    assert_eq!(ask(&record, &members).action, None, "its pages are not flushed yet");
    at_work(&mut members, "a", |a| a.status.flushed_for = Some(1));
    let next = given(&record, &members);
    assert_eq!(next.phase, Phase::HandingOver { from: "a".into(), to: "b".into() });
    assert_eq!(next.because, "a restarts for max_connections (1 of 1); b takes over meanwhile");
    assert_eq!(next.restart, record.restart, "it is a's turn until it is back");
}

#[test]
fn less_than_before_is_for_the_primary_first_and_in_place() {
    let held = || connections(200, 100, true);
    let (record, mut members) = view([connections(200, 100, false), held(), held()]);
    assert_eq!(turn(&record, &members), "a restarts for max_connections (1 of 3)");
    let record = given(&record, &members);
    at_work(&mut members, "a", |a| a.status.flushed_for = Some(1));
    let next = given(&record, &members);
    assert_eq!(next.phase, Phase::HandingOver { from: "a".into(), to: "a".into() });
    assert!(next.because.contains("in place: a standby may not have less"), "{}", next.because);
    // It is back; its standbys have not replayed that yet, then they have.
    let record = Leadership { phase: record.phase.clone(), ..record };
    restarted(&mut members, "a");
    let waiting = ask(&record, &members);
    assert_eq!(waiting.action, None);
    assert_eq!(
        waiting.because,
        "b and c restart for new settings when they have replayed that a runs with less"
    );
    for node in ["b", "c"] {
        at_work(&mut members, node, |view| view.status.settings = connections(200, 100, false));
    }
    assert_eq!(turn(&record, &members), "b restarts for max_connections (2 of 3)");
}

#[test]
fn raised_and_lowered_at_once_standbys_raise_first() {
    let both = |held: bool| {
        let SettingsState::Read { mut pending } = connections(200, 100, held) else { panic!() };
        pending.push(PendingSetting {
            name: "max_wal_senders".into(),
            lowers: false,
            held: false,
            ..pending[0].clone()
        });
        SettingsState::Read { pending }
    };
    let (record, members) = view([both(false), both(true), both(true)]);
    assert_eq!(turn(&record, &members), "b restarts for max_wal_senders (1 of 3)");
}

#[test]
fn nobody_restarts_when_too_few_would_confirm_commits() {
    let (record, mut members) = view([FRESH, connections(100, 200, false), FRESH]);
    let record = Leadership { sync: any_one(&["b"]), ..record };
    at_work(&mut members, "c", |c| *c = dead(c.status.clone()));
    at_work(&mut members, "a", |a| {
        if let Server::Primary(facts) = &mut a.status.server {
            facts.standbys.remove("c");
        }
    });
    let decision = ask(&record, &members);
    assert_eq!(decision.action, None);
    assert_eq!(
        decision.because,
        "b cannot restart for max_connections: without it fewer than 1 standby would confirm commits, and writes would wait"
    );
    let question =
        Question { rules: &rules(), record: Some(&record), members: &members, paused: false, now: at(1000) };
    let refusal = restart(&question, &"b".into(), false).unwrap_err();
    assert_eq!(refusal.hint, "add --force to accept that writes wait until it is back");
    let forced = restart(&question, &"b".into(), true).unwrap();
    assert!(forced.restart.as_ref().is_some_and(|turn| turn.forced));
    assert_eq!(ask(&forced, &members).action, None, "it stays in the set: nobody else could be");
}

#[test]
fn nobody_restarts_beside_a_member_that_is_not_well_or_while_paused() {
    let (record, mut members) = view([FRESH, connections(100, 200, false), FRESH]);
    assert_eq!(ask_as(true, &record, &members).action, None);
    at_work(&mut members, "c", |c| c.status.server = Server::Busy { doing: "rejoining".into() });
    let decision = ask(&record, &members);
    assert_eq!(decision.action, None);
    assert_eq!(
        decision.because,
        "b restarts for new settings one at a time; c is not a standby that streams and confirms now"
    );
}

#[test]
fn a_member_that_is_lost_in_its_turn_does_not_hold_up_the_others() {
    let (record, mut members) = view([(); 3].map(|()| connections(100, 200, false)));
    let record = Leadership { sync: any_one(&["c"]), ..given(&record, &members) };
    at_work(&mut members, "b", |b| *b = dead(b.status.clone()));
    let next = given(&record, &members);
    assert_eq!(next.restart, None);
    assert_eq!(next.because, "b was lost in its restart; the others go on without it");
}

#[test]
fn a_primary_without_any_standby_restarts_in_place() {
    let mut status = primary(5, 100, &[], 1);
    status.settings = connections(100, 200, false);
    status.flushed_for = Some(1);
    let members = Members::from([(NodeName::from("a"), alive(status))]);
    let rules = Rules { members: vec!["a".into()], k: 0, lease: crate::view::LEASE };
    let (mut record, _) = view([FRESH, FRESH, FRESH]);
    record.sync = rules.sync_set([]);
    let question = |record| Question {
        rules: &rules,
        record: Some(record),
        members: &members,
        paused: false,
        now: at(1),
    };
    let turn = decide(&question(&record), &mut Memory::default()).action.unwrap();
    let next = decide(&question(&turn), &mut Memory::default()).action.unwrap();
    assert_eq!(next.phase, Phase::HandingOver { from: "a".into(), to: "a".into() });
    assert_eq!(
        next.because,
        "a restarts for max_connections (1 of 1) in place: there is no standby that could take over"
    );
}

#[test]
fn a_primary_that_handed_over_to_itself_leads_the_next_term() {
    use model::status::{Holdings, Report};
    let (record, mut members) = view([FRESH, FRESH, FRESH]);
    let phase = Phase::HandingOver { from: "a".into(), to: "a".into() };
    let record = Leadership { phase, ..record };
    assert_eq!(ask(&record, &members).action, None);
    at_work(&mut members, "a", |a| {
        a.status.server = Server::Stopped { because: "it was shut down".into() };
        let holds = Holdings::Everything { led: Term(5), clean_end: Some(position(1, 100)) };
        a.status.report = Some(Report { term: Term(6), holds });
    });
    let next = given(&record, &members);
    assert_eq!((next.term, next.phase), (Term(6), Phase::Led { primary: "a".into() }));
    assert_eq!(next.sync, any_one(&["b", "c"]));
}
