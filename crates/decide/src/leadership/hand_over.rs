//! Is the switchover done? The old primary shuts down cleanly, the new one holds its last word, then the term changes.

use model::NodeName;
use model::leadership::{Leadership, Phase, RestartTurn, Term};
use model::postgres::WalPosition;
use model::status::{Holdings, Server};
use model::time::Moment;

use super::{HAND_OVER_LIMIT, Question, lead, revoke};
use crate::view::{Decision, MemberView, Reach};

/// Completes the switchover, turns it into a failover, or waits.
pub(super) fn decide(
    question: &Question<'_>,
    record: &Leadership,
    from: &NodeName,
    to: &NodeName,
    since: Moment,
) -> Decision<Leadership> {
    let deadline = since + HAND_OVER_LIMIT;
    let (old, new) = (question.members.get(from), question.members.get(to));
    if let Some(end) = old.and_then(|view| clean_end(view, record)) {
        if from == to {
            let because = format!("{from} has shut down cleanly and starts again as the primary");
            let followers = record.sync.members.iter().filter(|node| is_present(question, node)).cloned();
            return lead(question.rules, record, record.term.next(), to, followers, because);
        }
        if new.is_some_and(|view| holds(view, end)) {
            let because = format!("{from} has shut down cleanly and {to} holds its log to the end, {end}");
            let followers = record.sync.members.iter().filter(|node| is_present(question, node)).cloned();
            return lead(question.rules, record, record.term.next(), to, followers, because);
        }
        if question.now < deadline && !new.is_some_and(has_detached) {
            return Decision::wait_until(
                deadline,
                format!("waiting for {to} to receive the log up to {end}"),
            );
        }
    }
    let lacks_the_end = |end| new.is_some_and(|view| has_detached(view) && !holds(view, end));
    let trouble = if old.and_then(|view| clean_end(view, record)).is_some_and(lacks_the_end) {
        Some(format!("{to} has not received the end of the log of {from}"))
    } else if question.now >= deadline {
        Some(format!("the switchover from {from} to {to} took longer than {} s", HAND_OVER_LIMIT.as_secs()))
    } else if matches!(old.map(|view| view.reach), Some(Reach::Dead { .. })) {
        Some(format!("{from} died during the switchover to {to}"))
    } else if !is_present(question, to) {
        Some(format!("{to} died during the switchover"))
    } else {
        old.and_then(|view| died(view, record, from))
    };
    match trouble {
        Some(because) => revoke(record, from, Some(to), because),
        None => Decision::wait_until(deadline, format!("{from} is handing over to {to}")),
    }
}

fn is_present(question: &Question<'_>, node: &NodeName) -> bool {
    question.members.get(node).is_some_and(MemberView::is_present)
}

/// Where the old primary's log ends, once it has promised the next term and shut down cleanly.
fn clean_end(view: &MemberView, record: &Leadership) -> Option<WalPosition> {
    let report = view.status.report.as_ref().filter(|report| report.term == record.term.next())?;
    match report.holds {
        Holdings::Everything { led, clean_end } => clean_end.filter(|_| led == record.term),
        Holdings::Upto(_) => None,
    }
}

/// Whether the new primary has flushed the shutdown checkpoint, which begins at `end`.
fn holds(view: &MemberView, end: WalPosition) -> bool {
    view.standby()
        .is_some_and(|standby| standby.position.timeline == end.timeline && standby.position.lsn > end.lsn)
}

/// Whether it receives nothing any more (see [`crate::member`]).
fn has_detached(view: &MemberView) -> bool {
    view.standby().is_some_and(|standby| standby.follows == Term(0))
}

fn died(view: &MemberView, record: &Leadership, from: &NodeName) -> Option<String> {
    let unclean = view.status.report.as_ref().is_some_and(|report| report.term > record.term);
    match &view.status.server {
        Server::Stopped { because } if unclean => {
            Some(format!("{from} did not shut down cleanly: {because}"))
        }
        Server::Empty => Some(format!("the data of {from} is gone")),
        // A server that shuts down answers nobody any more: that is no death. One that hangs meets the deadline.
        Server::Sick { .. }
        | Server::Stopped { .. }
        | Server::Unknown
        | Server::Busy { .. }
        | Server::Standby(_)
        | Server::Primary(_) => None,
    }
}

/// A record that begins a switchover; to itself, when the primary restarts in place.
pub(super) fn begin(
    record: &Leadership,
    from: &NodeName,
    to: &NodeName,
    restart: Option<RestartTurn>,
    because: String,
) -> Leadership {
    let phase = Phase::HandingOver { from: from.clone(), to: to.clone() };
    Leadership { phase, restart, because, ..record.clone() }
}
