//! Does the primary still do its work? Facts from its own agent count at once, silence must be agreed.

use std::collections::BTreeSet;
use std::time::Duration;

use model::NodeName;
use model::leadership::Leadership;
use model::status::Server;
use model::time::Moment;

use super::{Memory, PROMOTION_LIMIT, Question, listed, revoke};
use crate::view::{Decision, MemberView, Reach};

/// How long the primary's agent may be gone, with replication alive, before its gate has surely closed and nothing is won
/// by waiting.
const AGENT_GRACE: Duration = Duration::from_millis(2500);

/// What is wrong with the primary.
pub(super) struct Failure {
    /// One sentence.
    because: String,
    /// Whether it serves nobody anyway, so that revoking it costs nothing even if nobody can be elected soon.
    serves_nobody: bool,
}

/// What is wrong with `primary`, if anything.
pub(super) fn fails(
    question: &Question<'_>,
    record: &Leadership,
    primary: &NodeName,
    memory: &Memory,
) -> Option<Failure> {
    let view = question.members.get(primary)?;
    match view.reach {
        Reach::Dead { since } => Some(Failure {
            because: format!(
                "{primary} has been silent on every line for {} ms",
                question.now.since(since).as_millis()
            ),
            serves_nobody: false,
        }),
        Reach::AgentGone { since } => agent_gone(question, record, primary, since),
        Reach::Alive | Reach::Doubtful { .. } => server_fails(question, record, primary, view, memory),
        Reach::NeverHeard => None,
    }
}

/// The agent ended and said so by closing its connections. PostgreSQL may be healthy: replication tells.
fn agent_gone(
    question: &Question<'_>,
    record: &Leadership,
    primary: &NodeName,
    since: Moment,
) -> Option<Failure> {
    let gone_for = question.now.since(since);
    let watchers: Vec<bool> = record
        .sync
        .members
        .iter()
        .filter_map(|node| question.members.get(node))
        .filter(|view| view.is_present())
        .filter_map(|view| view.standby().map(|standby| standby.streaming))
        .collect();
    let replication_lost = !watchers.is_empty() && watchers.iter().all(|streaming| !streaming);
    let because = if replication_lost {
        format!("{primary} closed its agent's connections, and no standby receives log from it any more")
    } else if gone_for >= AGENT_GRACE {
        format!("{primary}'s agent has been gone for {} ms, so its gate is closed", gone_for.as_millis())
    } else {
        return None;
    };
    Some(Failure { because, serves_nobody: false })
}

fn server_fails(
    question: &Question<'_>,
    record: &Leadership,
    primary: &NodeName,
    view: &MemberView,
    memory: &Memory,
) -> Option<Failure> {
    let late = question.now.since(memory.phase_since) >= PROMOTION_LIMIT;
    let tenured = view.tenure(record.term).is_some();
    let failure = |because, serves_nobody| Some(Failure { because, serves_nobody });
    match &view.status.server {
        Server::Primary(_) if tenured => disk_fails(question, record, primary, view),
        Server::Primary(_) if !late => None,
        Server::Stopped { because } if tenured || view.status.led == Some(record.term) || late => {
            failure(format!("PostgreSQL on {primary} is not running: {because}"), true)
        }
        Server::Sick { because, .. } => {
            failure(format!("PostgreSQL on {primary} does not work: {because}"), false)
        }
        Server::Empty => failure(format!("the data of {primary} is gone"), true),
        Server::Standby(_) if tenured => {
            failure(format!("PostgreSQL on {primary} came back as a standby"), true)
        }
        Server::Unknown => {
            memory.unknown_since.filter(|since| question.now.since(*since) >= AGENT_GRACE).map(|_| Failure {
                because: format!("the agent of {primary} cannot say what its PostgreSQL does"),
                serves_nobody: false,
            })
        }
        Server::Busy { .. } | Server::Standby(_) | Server::Stopped { .. } | Server::Primary(_) => {
            late.then(|| Failure {
                because: format!("{primary} was not promoted within {} s", PROMOTION_LIMIT.as_secs()),
                serves_nobody: true,
            })
        }
    }
}

/// A volume that fills up or does not answer: writes may still succeed, and soon will not. It counts only when another
/// member can take over: a primary on a full disk is better than none.
fn disk_fails(
    question: &Question<'_>,
    record: &Leadership,
    primary: &NodeName,
    view: &MemberView,
) -> Option<Failure> {
    let disk = view.status.disk.as_ref().filter(|_| !question.paused)?;
    let able = able(question, primary);
    (!able.is_empty() && record.is_revoked_by(&able))
        .then(|| Failure { because: format!("{primary} cannot go on writing: {disk}"), serves_nobody: false })
}

/// Who can take part in a revocation.
pub(super) fn able(question: &Question<'_>, primary: &NodeName) -> BTreeSet<NodeName> {
    let others = question.members.iter().filter(|(node, view)| *node != primary && can_report(view));
    others.map(|(node, _)| node.clone()).collect()
}

/// Revoke, if that can help.
pub(super) fn respond(
    question: &Question<'_>,
    record: &Leadership,
    primary: &NodeName,
    failure: Failure,
) -> Decision<Leadership> {
    let Failure { because, serves_nobody } = failure;
    if question.paused {
        return Decision::wait(format!(
            "{because}; no failover, because an operator has paused the automation"
        ));
    }
    let able = able(question, primary);
    if serves_nobody || (!able.is_empty() && record.is_revoked_by(&able)) {
        return revoke(record, primary, None, because);
    }
    let missing: BTreeSet<&NodeName> = record
        .sets()
        .flat_map(|set| &set.members)
        .filter(|node| *node != primary && !able.contains(*node))
        .collect();
    if missing.is_empty() {
        return Decision::wait(format!(
            "{because}; no failover, because only {primary} holds the acknowledged writes"
        ));
    }
    Decision::wait(format!(
        "{because}; no failover, because {} may hold acknowledged writes and cannot be asked",
        listed(missing)
    ))
}

/// Whether a member can take part in a revocation: it is there, and it has data that it can read.
fn can_report(view: &MemberView) -> bool {
    view.is_present()
        && match view.status.server {
            Server::Standby(_) | Server::Stopped { .. } | Server::Primary(_) => view.status.trouble.is_none(),
            Server::Busy { .. } | Server::Unknown | Server::Empty | Server::Sick { .. } => false,
        }
}
