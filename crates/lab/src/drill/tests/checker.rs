//! Every kind of corruption of a good history is found, and nothing in a good one is.

use std::time::Duration;

use model::postgres::Timeline;
use model::time::Moment;

use crate::drill::{
    Answer, Copy, Findings, History, Member, Outcome, Role, Server, Window, Write, WriteId, Writer, check,
    longest_gap,
};

const LEASE: Duration = Duration::from_secs(2);

/// The first acknowledgement of the new primary in [`good`], in milliseconds.
const TAKEN_OVER: u64 = 900;

fn at(ms: u64) -> Moment {
    Moment::from_millis(ms)
}

fn server(timeline: u32, last: u8) -> Server {
    Server { timeline: Timeline(timeline), address: [10, 0, 0, last].into(), port: 5432 }
}

fn members() -> Vec<Member> {
    let member = |name: &str, last: u8| Member {
        node: name.into(),
        addresses: vec![([10, 0, 0, last], 5432).into(), ([10, 9, 0, last], 5432).into()],
    };
    vec![member("a", 1), member("b", 2), member("c", 3)]
}

fn write(id: WriteId, by: Writer, ms: u64, outcome: Outcome) -> Write {
    Write { id, by, sent: at(ms), ended: at(ms + 3), outcome }
}

/// A failover from a to b: 40 writes before, one unknown, one failed, 40 after; the prober writes too. All copies hold
/// what was acknowledged and the unknown one.
fn good() -> (History, Vec<Copy>) {
    let mut history = History::default();
    for id in 1..=40 {
        let outcome = Outcome::Acknowledged(if id <= 20 { server(1, 1) } else { server(2, 2) });
        let ms = if id <= 20 { id * 10 } else { TAKEN_OVER - 3 + (id - 21) * 10 };
        history.writes.push(write(id, Writer::Client, ms, outcome.clone()));
        history.writes.push(write(id + 100, Writer::Prober, ms + 1, outcome));
    }
    history.writes.push(write(41, Writer::Client, 205, Outcome::Unknown("connection lost".to_owned())));
    history.writes.push(write(42, Writer::Client, 210, Outcome::Failed("no connection".to_owned())));
    for ms in (0..400).step_by(50) {
        let answer = |member: &str, ms, role| Answer {
            member: member.into(),
            sent: at(ms),
            received: at(ms + 1),
            role,
        };
        history.answers.push(answer("a", ms, Role::Primary(Timeline(1))));
        history.answers.push(answer("b", ms, Role::Standby));
        history.answers.push(answer("b", TAKEN_OVER + ms, Role::Primary(Timeline(2))));
    }
    let rows = history.writes.iter().filter(|write| write.id != 42).map(|write| (write.id, 1));
    let copy = |reader: &str| Copy { reader: reader.to_owned(), rows: rows.clone().collect() };
    let copies = ["the route", "member a", "member b", "member c"].map(copy).into();
    (history, copies)
}

fn judged(history: &History, copies: &[Copy]) -> Findings {
    check(history, copies, &members(), LEASE)
}

/// Applies a change to a good history and returns what the checker makes of it.
fn after(change: impl FnOnce(&mut History, &mut Vec<Copy>)) -> Findings {
    let (mut history, mut copies) = good();
    change(&mut history, &mut copies);
    judged(&history, &copies)
}

fn acknowledged() -> Vec<WriteId> {
    good().0.writes.iter().filter(|write| write.server().is_some()).map(|write| write.id).collect()
}

#[test]
fn a_good_history_is_left_alone() {
    let (history, copies) = good();
    let findings = judged(&history, &copies);
    assert_eq!(findings.broken(), [""; 0]);
    assert_eq!((findings.acknowledged, findings.failed, findings.unknown, findings.direct), (40, 1, 1, 40));
    assert_eq!(findings.errors(), 2);
}

#[test]
fn the_order_in_which_writes_are_told_does_not_matter() {
    let turned = after(|history, _| history.writes.reverse());
    assert_eq!(turned, after(|_, _| {}));
}

#[test]
fn every_acknowledged_write_that_any_copy_lacks_is_lost() {
    for id in acknowledged() {
        for copy in 0..4 {
            let findings = after(|_, copies| _ = copies[copy].rows.remove(&id));
            assert_eq!(findings.lost, [id].into(), "write {id} removed from copy {copy}");
            assert_eq!(findings.broken().len(), 1);
        }
    }
}

#[test]
fn every_write_that_is_there_twice_is_found() {
    for id in acknowledged().into_iter().chain([41]) {
        let findings = after(|_, copies| _ = copies[2].rows.insert(id, 2));
        assert_eq!(findings.doubled, [id].into());
        assert_eq!(findings.broken().len(), 1);
    }
}

#[test]
fn an_unknown_write_may_be_there_or_not() {
    let gone = after(|_, copies| {
        for copy in copies {
            copy.rows.remove(&41);
        }
    });
    assert_eq!(gone.broken(), [""; 0]);
}

#[test]
fn a_failed_write_that_is_there_is_found() {
    let findings = after(|_, copies| _ = copies[0].rows.insert(42, 1));
    assert_eq!(findings.risen, [42].into());
    assert_eq!(findings.broken().len(), 1);
}

#[test]
fn a_row_that_nobody_wrote_is_found() {
    let findings = after(|_, copies| _ = copies[3].rows.insert(7000, 1));
    assert_eq!(findings.foreign, [7000].into());
    assert_eq!(findings.broken().len(), 1);
}

#[test]
fn a_former_primary_that_acknowledges_once_more_is_found() {
    for ms in TAKEN_OVER + 1..TAKEN_OVER + 180 {
        let findings = after(|history, copies| {
            let outcome = Outcome::Acknowledged(server(1, 1));
            history.writes.push(write(500, Writer::Prober, ms, outcome));
            copies.iter_mut().for_each(|copy| _ = copy.rows.insert(500, 1));
        });
        assert_eq!(findings.overlaps.len(), 1, "acknowledged at {ms} ms");
        assert_eq!(findings.overlaps[0].one.member, "a");
        assert_eq!(findings.overlaps[0].other.member, "b");
        assert_eq!(findings.broken().len(), 1);
    }
}

#[test]
fn two_members_on_one_timeline_are_told_apart() {
    for id in 22..=39 {
        let findings = after(|history, _| {
            let write = history.writes.iter_mut().find(|write| write.id == id).unwrap();
            write.outcome = Outcome::Acknowledged(server(2, 3));
        });
        assert_eq!(findings.overlaps.len(), 1, "write {id} acknowledged by c");
    }
}

#[test]
fn an_acknowledgement_that_arrives_late_is_no_second_primary() {
    let findings = after(|history, _| {
        let last = history.writes.iter_mut().find(|write| write.id == 20).unwrap();
        last.ended = at(5000); // given before the fault, delivered when the node thawed
    });
    assert_eq!(findings.broken(), [""; 0]);
}

#[test]
fn a_member_reached_over_another_line_is_the_same_member() {
    let findings = after(|history, _| {
        for write in history.writes.iter_mut().filter(|write| write.id <= 20 && write.id % 2 == 0) {
            let mut other_line = server(1, 1);
            other_line.address = [10, 9, 0, 1].into();
            write.outcome = Outcome::Acknowledged(other_line);
        }
    });
    assert_eq!(findings.broken(), [""; 0]);
}

#[test]
fn a_former_primary_may_answer_until_its_lease_ends_and_not_after() {
    let lease_ends = TAKEN_OVER + 2000;
    for (ms, late) in [(TAKEN_OVER + 10, 0), (lease_ends, 0), (lease_ends + 1, 1), (9000, 1)] {
        let findings = after(|history, _| {
            let role = Role::Primary(Timeline(1));
            let answer =
                |sent, received| Answer { member: "a".into(), sent: at(sent), received: at(received), role };
            history.answers.extend([answer(ms, ms + 5), answer(300, 9000)]);
        });
        assert_eq!(
            findings.late_reads, late,
            "asked at {ms} ms; one that was asked before may arrive at any time"
        );
        assert_eq!(findings.broken().len() as u64, late);
    }
}

#[test]
fn a_member_that_is_primary_again_on_a_newer_timeline_is_not_late() {
    let findings = after(|history, _| {
        let role = Role::Primary(Timeline(3));
        history.answers.push(Answer { member: "a".into(), sent: at(9000), received: at(9001), role });
    });
    assert_eq!(findings.broken(), [""; 0]);
}

#[test]
fn an_outage_runs_from_the_last_acknowledgement_before_to_the_first_after() {
    let (history, _) = good();
    let gap = |from, until| longest_gap(&history, Window { from: at(from), until: at(until) });
    // The last acknowledgement before arrived at 203 ms.
    let outage = Some(Duration::from_millis(TAKEN_OVER - 203));
    assert_eq!(gap(204, 1000), outage);
    assert_eq!(gap(150, 1000), outage, "the fault begins to work later than it was done");
    assert_eq!(gap(500, 600), outage, "a gap that only touches the window counts whole");
    assert_eq!(gap(950, 1000), Some(Duration::from_millis(10)));
    assert_eq!(gap(204, 2000), None, "no acknowledgement after the window: it has no end");
    assert_eq!(longest_gap(&History::default(), Window { from: at(1), until: at(2) }), None);
}
