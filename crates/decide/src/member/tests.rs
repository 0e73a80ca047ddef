use std::collections::BTreeMap;

use model::leadership::{Leadership, Phase};
use model::postgres::{Lsn, Timeline, WalPosition};
use model::status::Report;

use super::*;
use crate::testkit::{at, led, position, primary, revoking, standby};

/// What `own`, a standby of term 2 on node c, does next when `theirs` is what b said last and b leads term 2.
fn next(own: &MemberStatus, theirs: MemberStatus, tainted_by: Option<Term>) -> Option<Action> {
    let (record, leads) = (led(2, "b", &["a", "c"]), "b".into());
    let question = Question {
        me: &"c".into(),
        record: Some(&record),
        own,
        others: &BTreeMap::from([(&leads, &theirs)]),
        history: History {
            system_identifier: Some(1),
            tainted_by,
            follows: Term(1),
            taken_from: Some(Term(2)),
        },
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
        tenure: primary(1, 100, &[], 1).tenure,
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
    let earlier = next(&handed_over(end), began_at(130), Some(Term(0)));
    assert!(
        matches!(earlier, Some(Action::Clone { .. })),
        "nobody knows which timeline it made: {earlier:?}"
    );
}

#[test]
fn a_standby_that_does_not_answer_is_told_who_leads_now() {
    let mut sick = standby(2, 90);
    sick.server = Server::Sick { primary: false, because: "it does not answer: starting up".to_owned() };
    let leads = || primary(2, 100, &[], 1);
    assert_eq!(next(&sick, leads(), None), follows_b(), "it waits for log of the primary of term 1");
    assert_eq!(next(&sick, leads(), Some(Term(1))), None, "it may hold log that nobody else has");
}

/// What b, a standby of a's term 1 that hands over to it, does when `theirs` is what a said last.
fn next_of_successor(own: &MemberStatus, theirs: MemberStatus) -> Option<Action> {
    let phase = Phase::HandingOver { from: "a".into(), to: "b".into() };
    let (record, hands_over) = (Leadership { phase, ..led(1, "a", &["b", "c"]) }, "a".into());
    let question = Question {
        me: &"b".into(),
        record: Some(&record),
        own,
        others: &BTreeMap::from([(&hands_over, &theirs)]),
        history: History {
            system_identifier: Some(1),
            tainted_by: None,
            follows: Term(1),
            taken_from: Some(Term(2)),
        },
        unstreamed_since: None,
        paused: false,
        now: at(1000),
    };
    decide(&question).action
}

#[test]
fn a_successor_reads_the_log_to_its_end_once_the_primary_has_shut_down() {
    let streaming = standby(1, 100);
    assert_eq!(next_of_successor(&streaming, primary(1, 100, &[], 1)), None);
    assert_eq!(next_of_successor(&streaming, handed_over(None)), None, "not cleanly: the leader revokes");
    let ended = handed_over(Some(position(1, 100)));
    assert_eq!(next_of_successor(&streaming, ended.clone()), Some(Action::Detach { term: Term(1) }));
    let mut detached = streaming;
    if let Server::Standby(facts) = &mut detached.server {
        facts.follows = Term(0);
    }
    assert_eq!(next_of_successor(&detached, ended), None, "once is enough");
}

#[test]
fn a_former_primary_that_was_elected_again_but_never_promoted_still_holds_everything() {
    let mut own = MemberStatus { promised: Term(3), led: Some(Term(1)), ..MemberStatus::unknown() };
    own.server = Server::Stopped { because: "it was not shut down cleanly".to_owned() };
    let mut started = own.clone();
    started.server = standby(3, 100).server;
    let does = |own: &MemberStatus, former: &str, tainted_by: Option<Term>| {
        let record = revoking(3, former, &["b", "c"]);
        let question = Question {
            me: &"a".into(),
            record: Some(&record),
            own,
            others: &BTreeMap::new(),
            history: History {
                system_identifier: Some(1),
                tainted_by,
                follows: Term(0),
                taken_from: Some(Term(2)),
            },
            unstreamed_since: None,
            paused: false,
            now: at(1000),
        };
        decide(&question).action
    };
    let reports = |former: &str, tainted_by: Option<Term>| {
        matches!(does(&own, former, tainted_by), Some(Action::ReportStopped { .. }))
    };
    assert!(
        reports("a", Some(Term(1))),
        "the primary of term 1, elected for term 2, ended before its promotion"
    );
    assert!(!reports("b", Some(Term(1))), "another member led since");
    assert!(!reports("a", None), "it has rejoined somebody since: it reports as a standby");
    let stops = |former, tainted_by| matches!(does(&started, former, tainted_by), Some(Action::Fence { .. }));
    assert!(stops("a", Some(Term(1))), "as a standby that started for its promotion it could not say so");
    assert!(!stops("b", Some(Term(1))) && !stops("a", None));
}
