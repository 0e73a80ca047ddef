//! Do commits get their confirmations? A primary whose log does not arrive anywhere, although its heartbeats do (a hole in
//! the path for long packets, a sender that hangs), is the one that cannot send: another member takes its place.
//!
//! A standby that stops flushing leaves the sync set ([`super::sync_set`]). Only when no member of the set flushes anything, and no other standby could take their places, is the fault taken for the primary's. It may still be
//! elsewhere: so the leadership is handed on only where the others can confirm each other's commits without the former
//! primary, and each time in a row that it is, the next primary is given longer.

use std::time::Duration;

use model::NodeName;
use model::leadership::Leadership;
use model::status::PrimaryFacts;
use model::time::Moment;

use super::suspect::able;
use super::{Memory, Question, listed, revoke, sync_set, word};
use crate::view::{Decision, MemberView};

/// A member of the set that has flushed nothing for this long, although there is something to flush and it streams, does
/// not get the log. Sooner than one that stalls alone leaves the set: where all do, to remove one would help nobody.
const STUCK_AFTER: Duration = Duration::from_millis(1500);

/// How long the primary of a leadership that began because commits waited is left alone.
const FIRST_REST: Duration = Duration::from_secs(10);
/// So many times as long each time in a row.
const REST_GROWS: u32 = 4;
/// The most times that it grows.
const GROWS_MOST: u32 = 3;

/// A primary that had no such trouble so long after its election has shown that the change helped: the next time counts as
/// the first again.
const CALM: Duration = Duration::from_secs(5);

/// Hands the leadership on when commits wait for nobody's fault but the primary's; says why not where it waits.
pub(super) fn decide(
    question: &Question<'_>,
    record: &Leadership,
    primary: &NodeName,
    memory: &Memory,
) -> Option<Decision<Leadership>> {
    let view = question.members.get(primary)?;
    view.tenure(record.term)?;
    let Some(stuck) = stuck(question, record, view, memory) else {
        return calm(question, record, memory);
    };
    let (who, have) = (listed(&record.sync.members), word(&record.sync.members, "has", "have"));
    let because = format!(
        "commits on {primary} wait: {who} {have} flushed nothing of its log for {} ms, although all are heard",
        stuck.as_millis()
    );
    if question.paused {
        return Some(Decision::wait(format!(
            "{because}; no failover, because an operator has paused the automation"
        )));
    }
    let rest = rest(record.handed_on);
    let rests_until = memory.phase_since + rest;
    if question.now < rests_until {
        let because = format!(
            "{because}; the primary before had the same trouble, so no failover for it for {} s",
            rest.as_secs()
        );
        return Some(Decision::wait_until(rests_until, because));
    }
    let mut revoked = revoke(record, primary, None, because);
    if let Some(next) = &mut revoked.action {
        next.handed_on += 1;
    }
    Some(revoked)
}

/// How long a primary is left alone after so many leaderships in a row that ended because commits waited.
fn rest(handed_on: u32) -> Duration {
    match handed_on {
        0 => Duration::ZERO,
        times => FIRST_REST * REST_GROWS.pow((times - 1).min(GROWS_MOST)),
    }
}

/// For how long no member of the set has flushed anything although commits wait, if another member could do better.
fn stuck(
    question: &Question<'_>,
    record: &Leadership,
    view: &MemberView,
    memory: &Memory,
) -> Option<Duration> {
    let facts = view.primary().filter(|facts| facts.waiting_commits > 0 && record.sync.k > 0)?;
    let primary = record.primary()?;
    let able = able(question, primary);
    let k = usize::try_from(record.sync.k).unwrap_or(usize::MAX);
    // Whoever leads next needs as many others, and a fault between two nodes is not cured by exchanging their parts.
    if able.len() <= k || !record.is_revoked_by(&able) || !record.sync.members.is_subset(&able) {
        return None;
    }
    if sync_set::desired(question, record, primary, facts, memory) != record.sync {
        return None;
    }
    let times = record.sync.members.iter().map(|node| stuck_for(node, facts, memory, question.now));
    times.collect::<Option<Vec<_>>>()?.into_iter().min().filter(|time| *time >= STUCK_AFTER)
}

/// For how long a standby has had a stream and flushed nothing of what there was. One that has just connected, or catches up,
/// is given time; one without a stream may have a reason of its own.
fn stuck_for(node: &NodeName, facts: &PrimaryFacts, memory: &Memory, now: Moment) -> Option<Duration> {
    let stalled = Duration::from_millis(u64::from(facts.standbys.get(node)?.stalled_ms));
    let linked = now.since(*memory.linked_since.get(node)?);
    Some(stalled.min(linked))
}

/// When the change has helped, what happened before does not count any more. That is no news.
fn calm(question: &Question<'_>, record: &Leadership, memory: &Memory) -> Option<Decision<Leadership>> {
    let since = question.now.since(memory.phase_since);
    (record.handed_on > 0 && since >= CALM).then(|| {
        Decision::act(Leadership { handed_on: 0, ..record.clone() }, record.because.clone()).routine()
    })
}

#[cfg(test)]
mod tests {
    use model::leadership::{Phase, Term};
    use model::status::{Server, StandbyLink};

    use super::*;
    use crate::leadership::decide;
    use crate::testkit::*;
    use crate::view::{Members, Reach};

    fn stalls(ms: u32) -> StandbyLink {
        StandbyLink { stalled_ms: ms, ..streams(50) }
    }

    /// `a` leads, its commits wait, and these are its links.
    fn waiting(links: &[(&str, StandbyLink)]) -> Members {
        let mut status = primary(5, 100, links, 1);
        if let Server::Primary(facts) = &mut status.server {
            facts.waiting_commits = 3;
        }
        members([("a", alive(status)), ("b", alive(standby(5, 50))), ("c", alive(standby(5, 50)))])
    }

    fn record() -> Leadership {
        let mut record = led(5, "a", &["b", "c"]);
        record.lineage = vec![model::leadership::TimelineOrigin {
            timeline: model::postgres::Timeline(1),
            term: Term(5),
            begins: model::postgres::Lsn(0),
        }];
        record
    }

    /// What a leader decides that has seen the same since 1 s.
    fn ask(record: &Leadership, members: &Members, now_ms: u64) -> Decision<Leadership> {
        ask_paused(record, members, now_ms, false)
    }

    fn ask_paused(record: &Leadership, members: &Members, now_ms: u64, paused: bool) -> Decision<Leadership> {
        let (rules, mut memory) = (rules(), Memory::default());
        let question =
            |now_ms| Question { rules: &rules, record: Some(record), members, paused, now: at(now_ms) };
        let early = decide(&question(1000), &mut memory);
        assert_eq!(early.action.filter(|next| next.term > record.term), None);
        decide(&question(now_ms), &mut memory)
    }

    #[test]
    fn a_primary_whose_log_arrives_nowhere_hands_on() {
        let (record, members) = (record(), waiting(&[("b", stalls(1600)), ("c", stalls(1700))]));
        let next = ask(&record, &members, 2600).action.unwrap();
        assert_eq!((next.term, next.handed_on), (Term(6), 1));
        assert_eq!(next.phase, Phase::Revoking { former: "a".into(), prefer: None, forced: None });
        assert_eq!(
            next.because,
            "commits on a wait: b and c have flushed nothing of its log for 1600 ms, although all are heard"
        );
        let paused = ask_paused(&record, &members, 2600, true);
        assert_eq!(paused.action, None);
        assert!(paused.because.contains("an operator has paused"), "{}", paused.because);
    }

    #[test]
    fn one_that_confirms_or_has_just_connected_or_nobody_who_waits_is_enough_to_stay() {
        let record = record();
        // b is taken out of the set first.
        let one = ask(&record, &waiting(&[("b", stalls(2600)), ("c", streams(100))]), 2600).action.unwrap();
        assert_eq!((one.term, one.sync), (Term(5), any_one(&["c"])));
        let stays = |members: &Members, now_ms| {
            let decision = ask(&record, members, now_ms);
            assert_eq!(decision.action.filter(|next| next.term > record.term), None, "{}", decision.because);
        };
        let both = [("b", stalls(1600)), ("c", stalls(1600))];
        stays(&waiting(&[("b", stalls(1600)), ("c", stalls(900))]), 2600);
        stays(&waiting(&both), 2400); // They have been connected for 1.4 s.
        let mut idle = waiting(&both);
        if let Server::Primary(facts) = &mut idle.get_mut("a").unwrap().status.server {
            facts.waiting_commits = 0;
        }
        stays(&idle, 2600);
    }

    #[test]
    fn where_standbys_are_gone_waiting_is_right() {
        let record = record();
        let gone = |reach| {
            let mut members = waiting(&[("b", stalls(1600)), ("c", stalls(1600))]);
            members.get_mut("c").unwrap().reach = reach;
            ask(&record, &members, 2600)
        };
        let alone = Leadership { sync: any_one(&["b"]), ..record.clone() };
        for reach in [Reach::Dead { since: at(0) }, Reach::AgentGone { since: at(0) }, Reach::NeverHeard] {
            assert_eq!(gone(reach).action.filter(|next| next.term > record.term), None);
            // Of two members that are left, neither confirms more when they exchange their parts.
            let mut members = waiting(&[("b", stalls(1600))]);
            members.get_mut("c").unwrap().reach = reach;
            assert_eq!(ask(&alone, &members, 2600).action, None);
        }
        // Both are there, and their streams have ended: they may have been restarted.
        assert_eq!(ask(&record, &waiting(&[]), 9000).action.filter(|next| next.term > record.term), None);
    }

    #[test]
    fn the_next_primary_with_the_same_trouble_is_given_longer_each_time() {
        let members = waiting(&[("b", stalls(1600)), ("c", stalls(1700))]);
        for (times, rest_s) in [(1, 10), (2, 40), (3, 160), (4, 640), (9, 640)] {
            let again = Leadership { handed_on: times, ..record() };
            let waits = ask(&again, &members, 900 + 1000 * rest_s);
            assert_eq!((waits.action, waits.wake_at), (None, Some(at(1000 + 1000 * rest_s))));
            assert!(waits.because.contains(&format!("for {rest_s} s")), "{}", waits.because);
            let next = ask(&again, &members, 1000 + 1000 * rest_s).action.unwrap();
            assert_eq!((next.term, next.handed_on), (Term(6), times + 1));
        }
    }

    #[test]
    fn a_primary_without_such_trouble_has_ended_the_row() {
        let members = waiting(&[("b", streams(100)), ("c", streams(100))]);
        let before = Leadership { handed_on: 1, because: "b and c confirm".into(), ..record() };
        assert_eq!(ask(&before, &members, 5_900).action, None);
        let next = ask(&before, &members, 6_000);
        assert_eq!(next.action, Some(Leadership { handed_on: 0, ..before.clone() }), "and that is no news");
    }
}
