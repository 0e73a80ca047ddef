//! What should the leadership record of a database be next? Asked by the elected leader on every change of what it knows;
//! the answer is committed by compare-and-set, so that two leaders cannot both be obeyed.

mod confirm;
mod elect;
mod found;
mod hand_over;
mod request;
mod restart;
mod suspect;
mod sync_set;

use std::collections::BTreeMap;
use std::time::Duration;

use model::NodeName;
use model::leadership::{Leadership, Phase, Term};
use model::status::Server;
use model::time::Moment;

use crate::view::{Decision, Members, Rules};

pub use request::{Refusal, force_failover, restart, switchover};

/// How long the promotion of an elected member may take before it is given up.
pub const PROMOTION_LIMIT: Duration = Duration::from_secs(10);

/// How long a switchover may take before it becomes a failover.
pub const HAND_OVER_LIMIT: Duration = Duration::from_secs(5);

/// What the leader remembers between two decisions. Volatile: a new leader starts afresh, which only makes it wait longer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    phase: Option<(Term, Phase)>,
    phase_since: Moment,
    change_since: Option<Moment>,
    link_lost: BTreeMap<NodeName, Moment>,
    /// Since when the primary has had a connection for log from each standby, whatever comes of it.
    linked_since: BTreeMap<NodeName, Moment>,
    /// Whether the primary's server had ended when it was heard of last while it led: nothing but that was wrong with it.
    crashed: bool,
    /// Since when the primary's agent has not said what its server does: it has just started.
    unknown_since: Option<Moment>,
}

/// Everything that is known when the question is asked.
pub struct Question<'a> {
    /// What the system file says.
    pub rules: &'a Rules,
    /// The record as last read or committed, if there is one.
    pub record: Option<&'a Leadership>,
    /// Every member.
    pub members: &'a Members,
    /// Whether an operator has paused the automation: no failover then.
    pub paused: bool,
    /// Now.
    pub now: Moment,
}

/// The next record, if it should change.
pub fn decide(question: &Question<'_>, memory: &mut Memory) -> Decision<Leadership> {
    let Some(record) = question.record else {
        return found::first_record(question);
    };
    memory.update(question, record);
    match &record.phase {
        Phase::Founding { by } => found::founding(question, record, by),
        Phase::Led { primary } => {
            if let Some(found) = suspect::fails(question, record, primary, memory) {
                return suspect::respond(question, record, primary, found);
            }
            let kept = sync_set::maintain(question, record, primary, memory);
            if kept.action.is_some() {
                return kept;
            }
            confirm::decide(question, record, primary, memory)
                .or_else(|| restart::decide(question, record, primary))
                .unwrap_or(kept)
        }
        Phase::Revoking { former, prefer, forced } => match forced {
            Some(forced) => elect::forced(question, record, forced),
            None => elect::elect(question, record, former, prefer.as_ref(), memory),
        },
        Phase::HandingOver { from, to } => hand_over::decide(question, record, from, to, memory.phase_since),
    }
}

impl Memory {
    fn update(&mut self, question: &Question<'_>, record: &Leadership) {
        let phase = Some((record.term, record.phase.clone()));
        if self.phase != phase {
            self.phase = phase;
            self.phase_since = question.now;
            self.link_lost.clear();
            self.linked_since.clear();
        }
        if record.previous_sync.is_empty() {
            self.change_since = None;
        } else {
            self.change_since.get_or_insert(question.now);
        }
        let view = record.primary().and_then(|primary| question.members.get(primary));
        match view.map(|view| &view.status.server) {
            Some(Server::Unknown) => _ = self.unknown_since.get_or_insert(question.now),
            Some(_) | None => self.unknown_since = None,
        }
        if record.primary().is_some() {
            self.crashed = view.is_some_and(|view| {
                view.is_present() && matches!(view.status.server, Server::Stopped { .. })
            });
        }
        let facts = view.and_then(|view| view.primary());
        for node in &question.rules.members {
            let link = facts.and_then(|facts| facts.standbys.get(node));
            let streams = link.is_some_and(|link| link.streaming);
            match link {
                Some(_) => _ = self.linked_since.entry(node.clone()).or_insert(question.now),
                None => _ = self.linked_since.remove(node),
            }
            if streams || facts.is_none() {
                self.link_lost.remove(node);
            } else {
                self.link_lost.entry(node.clone()).or_insert(question.now);
            }
        }
    }
}

/// A record that revokes `record`'s primary: nobody may write until the members have reported.
fn revoke(
    record: &Leadership,
    former: &NodeName,
    prefer: Option<&NodeName>,
    because: String,
) -> Decision<Leadership> {
    let next = Leadership {
        term: record.term.next(),
        phase: Phase::Revoking { former: former.clone(), prefer: prefer.cloned(), forced: None },
        restart: None,
        because: because.clone(),
        ..record.clone()
    };
    Decision::act(next, because)
}

/// A record that makes `primary` the primary of `term`, with the members of `followers` as its sync set. All sets before
/// stay in force for revocations until the new primary has proved its own.
fn lead(
    rules: &Rules,
    record: &Leadership,
    term: Term,
    primary: &NodeName,
    followers: impl IntoIterator<Item = NodeName>,
    because: String,
) -> Decision<Leadership> {
    let sync = rules.sync_set(followers.into_iter().filter(|node| node != primary));
    let mut previous_sync: Vec<_> = record.sets().filter(|set| set.k > 0).cloned().collect();
    previous_sync.sort_by(|a, b| a.members.cmp(&b.members));
    previous_sync.dedup();
    let next = Leadership {
        term,
        phase: Phase::Led { primary: primary.clone() },
        sync,
        sync_version: record.sync_version + 1,
        previous_sync,
        because: because.clone(),
        ..record.clone()
    };
    Decision::act(next, because)
}

/// `a, b and c`.
fn listed<'a>(names: impl IntoIterator<Item = &'a NodeName>) -> String {
    let names: Vec<&str> = names.into_iter().map(NodeName::as_str).collect();
    match names.as_slice() {
        [] => "nobody".to_owned(),
        [one] => (*one).to_owned(),
        [rest @ .., last] => format!("{} and {last}", rest.join(", ")),
    }
}

/// The word that fits so many names: `streams` or `stream`, `it` or `they`.
fn word<'a, T>(names: impl IntoIterator<Item = T>, one: &'a str, several: &'a str) -> &'a str {
    if names.into_iter().nth(1).is_some() { several } else { one }
}

#[cfg(test)]
mod restart_tests;
#[cfg(test)]
mod tests;
