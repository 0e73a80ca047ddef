//! A promotion that does not end as it should: how long the gate stays open, and what becomes of the copy.

use super::*;
use crate::testkit::standby;
use crate::view::LEASE;

/// What the last command says of the gate, if one does.
fn gate(commands: Vec<Command>) -> Option<Option<Moment>> {
    let of = |command| if let Command::Gate { until, .. } = command { Some(until) } else { None };
    commands.into_iter().filter_map(of).next_back()
}

fn heartbeat(sequence: u64, promised: u64) -> Input {
    let heartbeat = Heartbeat {
        incarnation: 1,
        sequence,
        echo: Some((1, 1)),
        promises: [(orders(), Term(promised))].into(),
        status_version: 1,
    };
    Input::Message { from: "c".into(), message: PeerMessage::Heartbeat(heartbeat) }
}

/// Node b, a standby that has reported for term 2 and was heard by c when it sent its first heartbeat, at 0 ms.
fn standby_that_has_reported() -> Agent {
    let mut agent = Agent::new("b".into(), system(), 0, 1);
    let durable = Durable { promised: Term(2), ..Durable::default() };
    let observed = Input::Observed {
        database: orders(),
        asked: at(0),
        server: standby(2, 100).server,
        system_identifier: Some(1),
        trouble: None,
    };
    for input in [
        Input::StoreLoaded,
        Input::Recovered { database: orders(), durable },
        record(1, revoking(2, "a", &["b", "c"])),
        observed,
    ] {
        agent.handle(input, at(0));
    }
    agent.handle(heartbeat(1, 2), at(10));
    agent
}

#[test]
fn a_member_that_is_being_promoted_is_open_no_longer_than_it_provably_leads() {
    let mut agent = standby_that_has_reported();
    let detached = Outcome::Detached(Term(2), crate::testkit::position(1, 100));
    let kept =
        gate(agent.handle(Input::Done { database: orders(), outcome: detached, server: None }, at(1500)));
    assert_eq!(kept, Some(Some(at(1500) + LEASE)), "as a standby it can be reached without any proof");
    let commands = agent.handle(record(2, led(2, "b", &["c"])), at(1510));
    assert!(matches!(actions(commands.clone())[..], [Action::Promote { .. }]));
    assert_eq!(gate(commands), Some(Some(at(0) + LEASE)), "c's word was asked for at 0 ms");
}

#[test]
fn a_machine_that_stood_still_during_its_promotion_does_not_open_its_gate_again() {
    let mut agent = standby_that_has_reported();
    let detached = Outcome::Detached(Term(2), crate::testkit::position(1, 100));
    agent.handle(Input::Done { database: orders(), outcome: detached, server: None }, at(20));
    agent.handle(record(2, led(2, "b", &["c"])), at(30));
    // PostgreSQL left recovery meanwhile, others have gone on to another term, and nobody has told this agent yet.
    assert_eq!(gate(agent.handle(Input::Tick, at(10_000))), Some(None));
}

#[test]
fn a_member_whose_promotion_was_overtaken_does_not_follow_as_it_is() {
    let mut agent = standby_that_has_reported();
    let done = |outcome, server| Input::Done { database: orders(), outcome, server };
    let detached = Outcome::Detached(Term(2), crate::testkit::position(1, 100));
    agent.handle(done(detached, None), at(20));
    agent.handle(record(2, led(2, "b", &["c"])), at(30));
    let fenced = actions(agent.handle(record(3, revoking(3, "b", &["c"])), at(40)));
    assert!(matches!(fenced[..], [Action::Fence { .. }]));
    // It had left recovery: its log may go on where nobody else's does.
    let stopped = || Some(Server::Stopped { because: "fenced".to_owned() });
    assert_eq!(actions(agent.handle(done(Outcome::Fenced, stopped()), at(50))), [Action::Promise(Term(3))]);
    let reports = actions(agent.handle(done(Outcome::Promised(Term(3)), stopped()), at(60)));
    assert_eq!(reports, [Action::ReportStopped { term: Term(3), led: Term(2) }]);
    let reported = Outcome::Stopped { term: Term(3), led: Term(2), clean_end: None };
    agent.handle(done(reported, None), at(70));
    agent.handle(record(4, led(3, "c", &[])), at(80));
    let begun =
        actions(agent.handle(said("c", status_of("c", 1, crate::testkit::primary(3, 100, &[], 1))), at(90)));
    assert!(matches!(&begun[..], [Action::Clone { .. }]), "nobody knows which timeline it made: {begun:?}");
}
