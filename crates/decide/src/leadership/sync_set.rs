//! Which standbys must confirm commits? Changed in two steps: the record names the new set and keeps the old ones for
//! revocations; they are dropped only when the primary has proved that the new one alone is in force.

use std::collections::BTreeSet;
use std::time::Duration;

use model::NodeName;
use model::leadership::{Leadership, SyncSet};
use model::status::{PrimaryFacts, StandbyLink, Tenure};

use super::{Memory, Question, listed, restart, word};
use crate::view::{Decision, MemberView, Reach};

/// A standby in the set that has not streamed for this long leaves it: with it in the set, a failover would need it.
const LINK_GRACE: Duration = Duration::from_millis(1000);

/// A standby in the set that has not flushed for this long although there is something to flush leaves it. Longer than
/// lines that lose a fifth of all packets often take to get one across: while another one confirms, nobody waits for it, and
/// alone the other one would have to be sure to.
const STALL_LIMIT_MS: u32 = 2500;

/// A standby enters the set only when less than this is missing, in bytes of log.
const CAUGHT_UP_BYTES: u64 = 1 << 20;

/// A change that is not proved within this time is looked at again: a member of the new set may have died meanwhile.
const CHANGE_PATIENCE: Duration = Duration::from_millis(1500);

/// Keeps the sync set and the lineage of a healthy leadership as they should be.
pub(super) fn maintain(
    question: &Question<'_>,
    record: &Leadership,
    primary: &NodeName,
    memory: &Memory,
) -> Decision<Leadership> {
    let Some((view, tenure)) = question.members.get(primary).and_then(|v| Some((v, v.tenure(record.term)?)))
    else {
        return Decision::wait(format!("{primary} is being promoted")).routine();
    };
    if let Some(next) = with_lineage(record, tenure) {
        return Decision::act(next, format!("{primary} writes timeline {}", tenure.timeline));
    }
    let Some(facts) = view.primary() else {
        return Decision::wait(format!("{primary} has not said yet who streams from it")).routine();
    };
    let desired = desired(question, record, primary, facts, memory);
    if !record.previous_sync.is_empty() {
        return finish_change(question, record, tenure, facts, desired, memory);
    }
    if desired == record.sync {
        return Decision::wait(format!("{primary} leads; {}", confirmed(&record.sync))).routine();
    }
    let because = reason(question, record, facts, &desired);
    Decision::act(change(record, desired, &because), because)
}

fn with_lineage(record: &Leadership, tenure: &Tenure) -> Option<Leadership> {
    let origin = tenure.origin();
    (record.lineage.last() != Some(&origin)).then(|| {
        let mut next = record.clone();
        next.lineage.retain(|known| known.timeline < origin.timeline);
        next.lineage.push(origin);
        next
    })
}

fn finish_change(
    question: &Question<'_>,
    record: &Leadership,
    tenure: &Tenure,
    facts: &PrimaryFacts,
    desired: SyncSet,
    memory: &Memory,
) -> Decision<Leadership> {
    if tenure.sync_applied == Some(record.sync_version) {
        let because = match record.sync.k {
            0 => "commits provably wait for no standby".to_owned(),
            _ => format!("commits are provably confirmed by {} alone", record.sync),
        };
        return Decision::act(
            Leadership { previous_sync: vec![], because: because.clone(), ..record.clone() },
            because,
        );
    }
    let patience_ends = memory.change_since.unwrap_or(question.now) + CHANGE_PATIENCE;
    let hopeless = record.sync.members.len() < usize::try_from(record.sync.k).unwrap_or(usize::MAX);
    if desired != record.sync && (hopeless || question.now >= patience_ends) {
        let because = reason(question, record, facts, &desired);
        return Decision::act(change(record, desired, &because), because);
    }
    Decision::wait_until(patience_ends, format!("waiting for proof that {}", confirmed(&record.sync)))
        .routine()
}

fn change(record: &Leadership, desired: SyncSet, because: &str) -> Leadership {
    let mut previous_sync = record.previous_sync.clone();
    // A set that nobody could satisfy never acknowledged anything: it protects nothing and is not kept.
    if record.sync.reports_needed().is_some()
        && !record.sync.members.is_empty()
        && !previous_sync.contains(&record.sync)
    {
        previous_sync.push(record.sync.clone());
    }
    let sync_version = record.sync_version + 1;
    Leadership { sync: desired, sync_version, previous_sync, because: because.to_owned(), ..record.clone() }
}

/// By whom commits are confirmed, as a clause.
fn confirmed(set: &SyncSet) -> String {
    match set.k {
        0 => "commits wait for no standby".to_owned(),
        1 if set.members.is_empty() => "commits wait until a standby streams".to_owned(),
        k if set.members.len() < usize::try_from(k).unwrap_or(usize::MAX) => {
            format!("commits wait until {k} standbys stream")
        }
        _ => format!("commits are confirmed by {set}"),
    }
}

/// What changes, and why: who left the set and what is wrong with it, who joined it.
fn reason(question: &Question<'_>, record: &Leadership, facts: &PrimaryFacts, desired: &SyncSet) -> String {
    let gone = record.sync.members.difference(&desired.members);
    let mut told: Vec<String> =
        gone.map(|node| format!("{node} left the sync set: {}", fault(question, node, facts))).collect();
    let new: Vec<_> = desired.members.difference(&record.sync.members).collect();
    if !new.is_empty() {
        let (stream, are) = (word(&new, "it streams", "they stream"), word(&new, "is", "are"));
        told.push(format!("{} joined the sync set: {stream} and {are} caught up", listed(new)));
    }
    if told.is_empty() {
        told.push(format!("the system file changed how many standbys confirm a commit to {}", desired.k));
    }
    told.join("; ")
}

/// Why a standby does not stay in the set.
fn fault(question: &Question<'_>, node: &NodeName, facts: &PrimaryFacts) -> String {
    let view = question.members.get(node);
    match (view.map(|view| view.reach), facts.standbys.get(node)) {
        (None, _) => "it is no member any more".to_owned(),
        (Some(Reach::Dead { .. }), _) => "its node is silent".to_owned(),
        (Some(_), Some(link)) if link.stalled_ms >= STALL_LIMIT_MS => {
            format!("it has flushed nothing for {} ms", link.stalled_ms)
        }
        (Some(_), Some(link)) if !link.streaming => "it is catching up".to_owned(),
        (Some(_), Some(_)) => "it is not needed".to_owned(),
        (Some(_), None) => "its stream ended".to_owned(),
    }
}

pub(super) fn desired(
    question: &Question<'_>,
    record: &Leadership,
    primary: &NodeName,
    facts: &PrimaryFacts,
    memory: &Memory,
) -> SyncSet {
    let others = question.rules.members.iter().filter(|node| *node != primary);
    let healthy: BTreeSet<NodeName> = others
        .filter(|node| {
            let link = facts.standbys.get(*node);
            if restart::leaves(question, record, node) {
                false
            } else if record.sync.members.contains(*node) {
                may_stay(question, node, link, memory)
            } else {
                may_enter(question, node, link, facts)
            }
        })
        .cloned()
        .collect();
    // Never fewer than k: a set that cannot be satisfied blocks writes either way, and this one may come back.
    if healthy.len() < usize::try_from(question.rules.k).unwrap_or(usize::MAX) {
        return record.sync.clone();
    }
    question.rules.sync_set(healthy)
}

fn may_stay(question: &Question<'_>, node: &NodeName, link: Option<&StandbyLink>, memory: &Memory) -> bool {
    let lost_for = memory.link_lost.get(node).map_or(Duration::ZERO, |since| question.now.since(*since));
    let dead = question.members.get(node).is_none_or(|view| matches!(view.reach, Reach::Dead { .. }));
    let stalled = link.is_some_and(|link| link.stalled_ms >= STALL_LIMIT_MS);
    // With little space it still confirms, and soon will not; a failover would not want it either.
    let full = question.members.get(node).is_some_and(|view| view.status.disk.is_some());
    !(full || stalled || lost_for >= LINK_GRACE || (dead && link.is_none_or(|link| !link.streaming)))
}

fn may_enter(
    question: &Question<'_>,
    node: &NodeName,
    link: Option<&StandbyLink>,
    facts: &PrimaryFacts,
) -> bool {
    let missing = |link: &StandbyLink| facts.position.lsn.0.saturating_sub(link.flushed.0);
    let well =
        |view: &MemberView| view.is_present() && view.status.trouble.is_none() && view.standby().is_some();
    question.members.get(node).is_some_and(well)
        && link.is_some_and(|link| link.streaming && link.stalled_ms == 0 && missing(link) <= CAUGHT_UP_BYTES)
}
