//! Who becomes the primary? Asked while members report what they hold.
//!
//! Two proofs that nobody can acknowledge a write under a lower term any more, and that every acknowledged write is among
//! the reports: reports of `|S| - k + 1` members of every sync set in force, or the report of the former primary itself,
//! stopped, which holds everything it ever acknowledged.

use std::collections::BTreeSet;
use std::time::Duration;

use model::NodeName;
use model::leadership::{Forced, Leadership, SyncSet, Term};
use model::postgres::WalPosition;
use model::status::{Holdings, Report, Server};
use model::time::Moment;

use super::{Memory, Question, lead, listed, word};
use crate::view::{Decision, MemberView};

/// How long standbys that are there are waited for before a former primary that has reported is restarted in place: a
/// running standby is promoted faster than a crashed primary recovers.
const STANDBY_GRACE: Duration = Duration::from_millis(1500);

/// How long a former primary that is there is waited for where the only standby would have nobody to confirm its commits: a
/// rejoin, which would have to be waited for else, takes longer.
const RETURN_GRACE: Duration = Duration::from_secs(3);

/// How far clocks of two nodes may run apart, as a part of the time waited.
const DRIFT_PARTS: u32 = 50;

/// Commits a primary when the reports allow it.
pub(super) fn elect(
    question: &Question<'_>,
    record: &Leadership,
    former: &NodeName,
    prefer: Option<&NodeName>,
    memory: &Memory,
) -> Decision<Leadership> {
    let since = memory.phase_since;
    if let Some(waiting) = old_lease_runs(question, former, record, since) {
        return waiting;
    }
    let standbys = standby_reports(question, record);
    let reporters: BTreeSet<NodeName> = standbys.iter().map(|(node, _)| (*node).clone()).collect();
    if !standbys.is_empty() && record.is_revoked_by(&reporters) {
        if memory.crashed
            && let Some(in_place) = in_place(question, record, former, &standbys, since)
        {
            return in_place;
        }
        return most_advanced(question, record, &standbys, former, prefer);
    }
    let missing = missing(question, record, former, &reporters);
    if former_holds_everything(question, record, former) {
        let (here, _): (Vec<_>, Vec<_>) = missing.iter().partition(|node| is_present(question, node));
        let grace_ends = since + STANDBY_GRACE;
        if !here.is_empty() && question.now < grace_ends {
            return Decision::wait_until(grace_ends, format!("waiting for {} to report", listed(here)));
        }
        let because = format!(
            "{former} has stopped and holds everything it acknowledged; too few standbys have reported"
        );
        return lead(question.rules, record, record.term, former, followers(question, record), because);
    }
    if missing.is_empty() {
        return Decision::wait(format!(
            "nobody is promoted yet: only {former} holds the acknowledged writes, and it has not reported"
        ));
    }
    let have = word(&missing, "has", "have");
    Decision::wait(format!(
        "nobody is promoted yet: {} may hold acknowledged writes and {have} not reported",
        listed(missing)
    ))
}

/// With the last standby promoted nobody would confirm its commits until the former primary has been rewound or copied,
/// which takes as long as the network is slow. Restarted where it is, a former primary that has merely crashed has that
/// standby. Only who led the very term before is given this chance: a server that crashes again before it leads makes way.
fn in_place(
    question: &Question<'_>,
    record: &Leadership,
    former: &NodeName,
    reports: &[(&NodeName, WalPosition)],
    since: Moment,
) -> Option<Decision<Leadership>> {
    let best = reports.iter().map(|report| report.1).max()?;
    let others = question.members.iter().filter(|(node, _)| *node != former);
    let standbys = others.filter(|(_, view)| can_follow(view, record.term, best)).count();
    let needed = usize::try_from(question.rules.k).unwrap_or(usize::MAX);
    if standbys != needed || needed == 0 || !may_return(question, record, former) {
        return None;
    }
    if former_holds_everything(question, record, former) {
        let because = format!(
            "{former} has stopped and holds everything it acknowledged; without it nobody would confirm what a standby \
             acknowledges"
        );
        let followers = followers(question, record);
        let mut decision = lead(question.rules, record, record.term, former, followers, because);
        // Until it has proved its set nobody may be elected without its report: whoever follows it already holds its new
        // timeline, and another promotion would make a timeline of the same number.
        if let Some(next) = &mut decision.action {
            next.previous_sync.push(SyncSet { k: 1, members: [former.clone()].into() });
        }
        return Some(decision);
    }
    let grace_ends = since + RETURN_GRACE;
    let wait = || Decision::wait_until(grace_ends, format!("waiting for {former} to report"));
    (question.now < grace_ends).then(wait)
}

/// Whether a standby can follow whoever holds the log up to `best`, or is that one: it is there, and not ahead of it.
fn can_follow(view: &MemberView, term: Term, best: WalPosition) -> bool {
    let Some(facts) = view.standby() else { return false };
    let position = match report_of(view, term).map(|report| &report.holds) {
        Some(Holdings::Upto(position)) => *position,
        Some(Holdings::Everything { .. }) | None => facts.position,
    };
    view.is_present() && view.status.trouble.is_none() && position <= best
}

/// Whether a former primary can lead again: it led the term before, its agent is there, and nothing ails it.
fn may_return(question: &Question<'_>, record: &Leadership, former: &NodeName) -> bool {
    question.members.get(former).filter(|view| view.is_present()).is_some_and(|view| {
        let led_last = view.status.led.is_some_and(|led| led.next() == record.term);
        let stopped = matches!(view.status.server, Server::Stopped { .. });
        led_last && stopped && view.status.trouble.is_none()
    })
}

/// `async` durability has no revocation by promises: the former primary may acknowledge alone until its lease has ended.
fn old_lease_runs(
    question: &Question<'_>,
    former: &NodeName,
    record: &Leadership,
    since: Moment,
) -> Option<Decision<Leadership>> {
    let fenced = report_of(question.members.get(former)?, record.term).is_some();
    let ends = since + question.rules.lease + question.rules.lease / DRIFT_PARTS;
    (question.rules.k == 0 && !fenced && question.now < ends)
        .then(|| Decision::wait_until(ends, format!("waiting until the lease of {former} has surely ended")))
}

fn report_of(view: &MemberView, term: Term) -> Option<&Report> {
    view.status.report.as_ref().filter(|report| report.term == term)
}

/// Reports of standbys that were entitled to acknowledge; others may hold a history of their own.
fn standby_reports<'a>(question: &'a Question<'_>, record: &Leadership) -> Vec<(&'a NodeName, WalPosition)> {
    let entitled =
        |node: &NodeName| question.rules.k == 0 || record.sets().any(|set| set.members.contains(node));
    question
        .members
        .iter()
        .filter(|(node, _)| entitled(node))
        .filter_map(|(node, view)| match report_of(view, record.term)?.holds {
            Holdings::Upto(position) => Some((node, position)),
            Holdings::Everything { .. } => None,
        })
        .collect()
}

fn is_present(question: &Question<'_>, node: &NodeName) -> bool {
    question.members.get(node).is_some_and(MemberView::is_present)
}

fn former_holds_everything(question: &Question<'_>, record: &Leadership, former: &NodeName) -> bool {
    let Some(view) = question.members.get(former).filter(|view| view.is_present()) else { return false };
    match report_of(view, record.term).map(|report| &report.holds) {
        Some(Holdings::Everything { led, .. }) => led.next() == record.term,
        Some(Holdings::Upto(_)) | None => false,
    }
}

fn missing<'a>(
    question: &'a Question<'_>,
    record: &'a Leadership,
    former: &'a NodeName,
    reporters: &BTreeSet<NodeName>,
) -> BTreeSet<&'a NodeName> {
    let of_sets = record.sets().flat_map(|set| &set.members);
    let all = of_sets.chain(if question.rules.k == 0 { question.rules.members.as_slice() } else { &[] });
    all.filter(|node| *node != former && !reporters.contains(*node)).collect()
}

/// Members that can follow a new primary at once.
fn followers(question: &Question<'_>, record: &Leadership) -> Vec<NodeName> {
    let reports = standby_reports(question, record);
    reports.into_iter().filter(|(node, _)| is_present(question, node)).map(|(node, _)| node.clone()).collect()
}

fn most_advanced(
    question: &Question<'_>,
    record: &Leadership,
    reports: &[(&NodeName, WalPosition)],
    former: &NodeName,
    prefer: Option<&NodeName>,
) -> Decision<Leadership> {
    let Some(best) = reports.iter().map(|(_, position)| *position).max() else {
        return Decision::wait("no member has reported");
    };
    let rank = |node: &NodeName| question.rules.members.iter().position(|member| member == node);
    let candidate = reports
        .iter()
        .filter(|(node, position)| *position == best && is_fit(question, node))
        .min_by_key(|(node, _)| (Some(*node) != prefer, rank(node)));
    match candidate {
        Some((node, _)) => {
            let mut because = format!("{node} holds the log up to {best}, no reporting member holds more");
            if question.rules.k == 0 {
                because +=
                    &format!("; what {former} acknowledged beyond that is lost, as async durability permits");
            }
            lead(question.rules, record, record.term, node, followers(question, record), because)
        }
        None => {
            let holders: Vec<&NodeName> =
                reports.iter().filter(|(_, position)| *position == best).map(|(node, _)| *node).collect();
            let hold = word(&holders, "holds", "hold");
            Decision::wait(format!(
                "{} alone {hold} the log up to {best} and cannot be promoted now",
                listed(holders)
            ))
        }
    }
}

fn is_fit(question: &Question<'_>, node: &NodeName) -> bool {
    question.members.get(node).is_some_and(|view| view.is_present() && view.status.trouble.is_none())
}

/// An operator accepted the loss: the candidate leads as soon as it has promised and reported, whatever others hold.
pub(super) fn forced(question: &Question<'_>, record: &Leadership, forced: &Forced) -> Decision<Leadership> {
    let candidate = &forced.candidate;
    let reported = question.members.get(candidate).and_then(|view| report_of(view, record.term));
    if reported.is_none() {
        return Decision::wait(format!(
            "waiting for {candidate} to report before it is promoted as the operator demands"
        ));
    }
    let because = format!("an operator promoted {candidate} and accepted the loss: {}", forced.statement);
    let mut decision = lead(question.rules, record, record.term, candidate, [], because);
    if let Some(next) = &mut decision.action {
        next.previous_sync.clear();
    }
    decision
}
