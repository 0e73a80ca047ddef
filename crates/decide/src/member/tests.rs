use std::collections::BTreeMap;

use model::postgres::{Lsn, Timeline, WalPosition};
use model::status::Report;

use super::*;
use crate::testkit::{at, led, position, primary, standby};

/// What `own`, a standby of term 2 on node c, does next when `theirs` is what b said last and b leads term 2.
fn next(own: &MemberStatus, theirs: MemberStatus, tainted_by: Option<Term>) -> Option<Action> {
    let record = led(2, "b", &["a", "c"]);
    let question = Question {
        me: &"c".into(),
        record: Some(&record),
        own,
        others: &BTreeMap::from([("b".into(), theirs)]),
        history: History { system_identifier: Some(1), tainted_by },
        unstreamed_since: None,
        paused: false,
        now: at(1000),
    };
    decide(&question).action
}

/// A standby at `lsn` that has promised term 2 and follows nobody.
fn detached(lsn: u64) -> MemberStatus {
    let mut status = standby(2, lsn);
    if let Server::Standby(facts) = &mut status.server {
        facts.follows = Term(0);
        facts.streaming = false;
    }
    status
}

fn follows_b() -> Option<Action> {
    Some(Action::Follow { primary: "b".into(), term: Term(2) })
}

#[test]
fn a_standby_connects_to_the_elected_member_before_it_is_promoted() {
    assert_eq!(next(&detached(100), detached(100), None), follows_b());
    assert_eq!(next(&detached(90), detached(100), None), follows_b(), "it lacks some log, which it will get");
}

#[test]
fn a_standby_that_holds_more_than_the_elected_member_waits_for_the_new_timeline() {
    assert_eq!(next(&detached(101), detached(100), None), None);
}

#[test]
fn a_copy_that_was_a_primary_waits_until_it_can_be_compared() {
    assert_eq!(next(&detached(90), detached(100), Some(Term(1))), None);
}

#[test]
fn who_follows_already_is_not_told_again() {
    assert_eq!(next(&standby(2, 90), detached(100), None), None);
    assert_eq!(next(&standby(2, 90), primary(2, 100, &[], 1), None), None);
}

/// A stopped primary of term 1 whose log ends at 100 on timeline 1, and which has promised term 2.
fn handed_over(clean_end: Option<WalPosition>) -> MemberStatus {
    MemberStatus {
        promised: Term(2),
        led: Some(Term(1)),
        server: Server::Stopped { because: "it was shut down".to_owned() },
        report: Some(Report { term: Term(2), holds: Holdings::Everything { led: Term(1), clean_end } }),
        ..MemberStatus::unknown()
    }
}

/// The primary of term 2, whose timeline 2 begins at `begins`.
fn began_at(begins: u64) -> MemberStatus {
    let mut status = primary(2, 200, &[], 1);
    if let Some(tenure) = &mut status.tenure {
        tenure.timeline = Timeline(2);
        tenure.begins = Lsn(begins);
    }
    status
}

#[test]
fn a_primary_that_handed_over_follows_without_a_rewind() {
    let end = Some(position(1, 100));
    assert_eq!(next(&handed_over(end), began_at(130), Some(Term(1))), follows_b());
}

#[test]
fn a_primary_whose_last_word_did_not_arrive_is_rewound() {
    let is_rewound = |action| matches!(action, Some(Action::Rejoin { .. }));
    let end = Some(position(1, 100));
    assert!(
        is_rewound(next(&handed_over(end), began_at(100), Some(Term(1)))),
        "the new timeline began before it"
    );
    assert!(
        is_rewound(next(&handed_over(None), began_at(130), Some(Term(1)))),
        "it did not shut down cleanly"
    );
    assert!(is_rewound(next(&handed_over(end), began_at(130), Some(Term(0)))), "of an earlier term");
}
