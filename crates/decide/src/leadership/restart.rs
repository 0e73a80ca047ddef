//! Whose turn is it to restart? Standbys go first, one at a time, each out of the sync set before it ends and back in it
//! before the next; the primary goes last, by a switchover to a standby that has restarted already.
//!
//! Nothing is remembered but the turn in the record: who still waits is what members say of themselves, so that any
//! leader can go on. What a standby must have as much of as its primary (`max_connections` ...) is lowered the other way
//! round: the primary restarts in place, because only a server that starts as a primary may have less than before, and
//! its standbys keep the old value until they have replayed that.

use model::NodeName;
use model::leadership::{Leadership, RestartTurn};
use model::status::{PendingSetting, SettingsState};

use super::request::{Refusal, can_take_over};
use super::{Question, hand_over, listed};
use crate::view::{Decision, MemberView};

/// What has to be done about restarts while `primary` leads; `None` when nothing is.
pub(super) fn decide(
    question: &Question<'_>,
    record: &Leadership,
    primary: &NodeName,
) -> Option<Decision<Leadership>> {
    let serves = question.members.get(primary)?;
    serves.tenure(record.term)?;
    serves.primary()?;
    match &record.restart {
        Some(turn) => Some(under_way(question, record, primary, turn)),
        None => next(question, record, primary, 0),
    }
}

/// Whether `node` must leave the sync set, because the server that runs there now has its turn to end.
pub(super) fn leaves(question: &Question<'_>, record: &Leadership, node: &NodeName) -> bool {
    let Some(turn) = record.restart.as_ref().filter(|turn| turn.member == *node) else { return false };
    let started = question.members.get(node).and_then(|view| view.status.server.started_us());
    started.is_none_or(|started| started == turn.server)
}

/// Whether the turn is over: another server than the one it named does the member's part.
pub(super) fn is_done(question: &Question<'_>, record: &Leadership, turn: &RestartTurn) -> bool {
    let Some(view) = question.members.get(&turn.member).filter(|view| view.is_present()) else {
        return false;
    };
    let anew = view.status.server.started_us().is_some_and(|started| started != turn.server);
    let asked = view.status.settings != SettingsState::Unread;
    let part = match record.primary() == Some(&turn.member) {
        true => view.primary().is_some() && view.tenure(record.term).is_some(),
        false => does_its_part(record, &turn.member, view),
    };
    anew && asked && part
}

fn does_its_part(record: &Leadership, node: &NodeName, view: &MemberView) -> bool {
    let confirms = record.sync.k == 0 || record.sync.members.contains(node);
    confirms && view.standby().is_some_and(|standby| standby.streaming)
}

fn under_way(
    question: &Question<'_>,
    record: &Leadership,
    primary: &NodeName,
    turn: &RestartTurn,
) -> Decision<Leadership> {
    let member = &turn.member;
    let Some(view) = question.members.get(member).filter(|view| view.is_present()) else {
        return close(record, format!("{member} was lost in its restart; the others go on without it"));
    };
    if is_done(question, record, turn) {
        let because = format!("{member} is back after its restart");
        return next(question, record, primary, turn.number).unwrap_or_else(|| close(record, because));
    }
    let waits = view.status.server.started_us() == Some(turn.server);
    if waits && question.paused {
        return Decision::wait(format!("{turn}: not while the automation is paused"));
    }
    if member == primary {
        return last(question, record, primary, turn, view);
    }
    if waits && !turn.forced && !can_be_spared(question, record, primary, member) {
        return close(record, spared_by_nobody(record, member, &turn.what_for));
    }
    let because = match (waits, view.standby()) {
        (true, _) => "commits must be confirmed without it first",
        (false, Some(standby)) if standby.streaming => {
            "it must confirm commits again before anything else restarts"
        }
        (false, _) => "it must stream again before anything else restarts",
    };
    Decision::wait(format!("{turn}: {because}"))
}

/// The primary's own turn: its pages are flushed while it serves, then it hands over.
fn last(
    question: &Question<'_>,
    record: &Leadership,
    primary: &NodeName,
    turn: &RestartTurn,
    view: &MemberView,
) -> Decision<Leadership> {
    if view.status.server.started_us() != Some(turn.server) {
        return Decision::wait(format!("{turn}: it has not said yet how it does"));
    }
    if view.status.flushed_for != Some(turn.server) {
        return Decision::wait(format!("{turn}: its dirty pages are flushed while it serves"));
    }
    let (to, because) = match (lowers(view), successor(question, record)) {
        (Some(name), _) => (
            primary,
            format!(
                "{turn} in place: a standby may not have less {name} than its primary, so the primary is first"
            ),
        ),
        (None, Some(node)) => (node, format!("{turn}; {node} takes over meanwhile")),
        (None, None) if is_alone(question) => {
            (primary, format!("{turn} in place: there is no standby that could take over"))
        }
        (None, None) if turn.forced => {
            (primary, format!("{turn} in place: no standby can take over, and an operator accepted that"))
        }
        (None, None) => {
            return close(record, format!("{primary} does not restart: no standby can take over"));
        }
    };
    Decision::act(hand_over::begin(record, primary, to, Some(turn.clone()), because.clone()), because)
}

/// The next turn of a row of which `done` are over; `None` when nobody waits for a restart.
fn next(
    question: &Question<'_>,
    record: &Leadership,
    primary: &NodeName,
    done: u32,
) -> Option<Decision<Leadership>> {
    let members = &question.rules.members;
    let waiting: Vec<&NodeName> = members.iter().filter(|node| !pending(question, node).is_empty()).collect();
    if waiting.is_empty() {
        return None;
    }
    let restart = if waiting.len() == 1 { "restarts" } else { "restart" };
    let who = format!("{} {restart} for new settings", listed(waiting.iter().copied()));
    if question.paused {
        return Some(Decision::wait(format!("{who} when the automation is not paused any more")));
    }
    if !record.previous_sync.is_empty() {
        return Some(Decision::wait(format!("{who} when the change of the sync set is proved")));
    }
    if let Some((node, why)) = unwell(question, record, primary) {
        return Some(Decision::wait(format!("{who} one at a time; {node} {why}")));
    }
    let of = done + u32::try_from(waiting.len()).unwrap_or(u32::MAX - done);
    let can_go = |node: &&&NodeName| pending(question, node).iter().any(|setting| !setting.held);
    let mut able = waiting.iter().filter(can_go);
    Some(match able.clone().find(|node| **node != primary) {
        Some(node) => standby(question, record, primary, node, (done + 1, of)),
        None if able.any(|node| *node == primary) => itself(question, record, primary, (done + 1, of)),
        None => Decision::wait(format!("{who} when they have replayed that {primary} runs with less")),
    })
}

fn standby(
    question: &Question<'_>,
    record: &Leadership,
    primary: &NodeName,
    node: &NodeName,
    (number, of): (u32, u32),
) -> Decision<Leadership> {
    let names = pending(question, node).iter().filter(|setting| !setting.held);
    let (what_for, changes) = in_words(names);
    if !can_be_spared(question, record, primary, node) {
        return Decision::wait(spared_by_nobody(record, node, &what_for));
    }
    let because = format!(
        "PostgreSQL reads {changes} only when it starts; the other standbys confirm commits meanwhile"
    );
    give(question, record, node, what_for, (number, of), because)
}

fn itself(
    question: &Question<'_>,
    record: &Leadership,
    primary: &NodeName,
    (number, of): (u32, u32),
) -> Decision<Leadership> {
    let (what_for, changes) = in_words(pending(question, primary));
    let lowers = question.members.get(primary).and_then(lowers).is_some();
    if !lowers && !is_alone(question) && successor(question, record).is_none() {
        return Decision::wait(format!("{primary} restarts {what_for} when a standby can take over"));
    }
    let because = format!(
        "PostgreSQL reads {changes} only when it starts, and no standby has to go before the primary"
    );
    give(question, record, primary, what_for, (number, of), because)
}

fn give(
    question: &Question<'_>,
    record: &Leadership,
    node: &NodeName,
    what_for: String,
    (number, of): (u32, u32),
    because: String,
) -> Decision<Leadership> {
    let Some(server) = question.members.get(node).and_then(|view| view.status.server.started_us()) else {
        return Decision::wait(format!("{node} restarts {what_for} when it answers"));
    };
    let turn = RestartTurn { member: node.clone(), server, what_for, number, of, forced: false };
    Decision::act(Leadership { restart: Some(turn), because: because.clone(), ..record.clone() }, because)
}

/// An operator asked for it.
pub(super) fn asked_for(
    question: &Question<'_>,
    record: &Leadership,
    primary: &NodeName,
    node: &NodeName,
    server: i64,
    forced: bool,
) -> Result<Leadership, Refusal> {
    let what_for = "because an operator asked for it".to_owned();
    if node == primary {
        let could = lowers_or_alone(question, primary) || successor(question, record).is_some();
        if !could && !forced {
            return Err(Refusal::new(
                format!("no standby can take over, so clients would wait while {node} restarts in place"),
                "add --force to accept that, or see `mainstay status` for what is wrong with the standbys",
            ));
        }
    } else if !forced && !can_be_spared(question, record, primary, node) {
        return Err(Refusal::new(
            spared_by_nobody(record, node, &what_for),
            "add --force to accept that writes wait until it is back",
        ));
    }
    let turn = RestartTurn { member: node.clone(), server, what_for, number: 1, of: 1, forced };
    let because = format!("an operator asked for a restart of {node}");
    Ok(Leadership { restart: Some(turn), because, ..record.clone() })
}

fn close(record: &Leadership, because: String) -> Decision<Leadership> {
    Decision::act(Leadership { restart: None, because: because.clone(), ..record.clone() }, because)
}

fn pending<'a>(question: &'a Question<'_>, node: &NodeName) -> &'a [PendingSetting] {
    let view = question.members.get(node).filter(|view| view.is_present());
    view.map_or(&[], |view| view.status.settings.pending())
}

/// A member that is here and not well: nobody restarts beside it.
fn unwell<'a>(
    question: &'a Question<'_>,
    record: &Leadership,
    primary: &NodeName,
) -> Option<(&'a NodeName, &'static str)> {
    question.rules.members.iter().find_map(|node| {
        let view = question.members.get(node).filter(|view| view.is_present())?;
        if node != primary && !does_its_part(record, node, view) {
            return Some((node, "is not a standby that streams and confirms now"));
        }
        (view.status.settings == SettingsState::Unread)
            .then_some((node, "has not been asked for its settings yet"))
    })
}

/// Whether enough others confirm commits.
fn can_be_spared(question: &Question<'_>, record: &Leadership, primary: &NodeName, node: &NodeName) -> bool {
    let Some(facts) = question.members.get(primary).and_then(MemberView::primary) else { return false };
    let confirms = |other: &&NodeName| {
        *other != node
            && facts.standbys.get(*other).is_some_and(|link| link.streaming && link.stalled_ms == 0)
    };
    let others = record.sync.members.iter().filter(confirms).count();
    others >= usize::try_from(record.sync.k).unwrap_or(usize::MAX)
}

fn spared_by_nobody(record: &Leadership, node: &NodeName, what_for: &str) -> String {
    format!(
        "{node} cannot restart {what_for}: without it fewer than {} standby would confirm commits, and writes would wait",
        record.sync.k
    )
}

/// The standby to take over: one that does not have to restart itself.
fn successor<'a>(question: &'a Question<'_>, record: &Leadership) -> Option<&'a NodeName> {
    let fresh = |node: &&NodeName| pending(question, node).iter().all(|setting| setting.held);
    question.rules.members.iter().filter(|node| can_take_over(question, record, node)).find(fresh)
}

fn lowers(view: &MemberView) -> Option<&str> {
    view.status.settings.pending().iter().find(|setting| setting.lowers).map(|setting| setting.name.as_str())
}

fn is_alone(question: &Question<'_>) -> bool {
    question.rules.members.len() == 1
}

fn lowers_or_alone(question: &Question<'_>, primary: &NodeName) -> bool {
    is_alone(question) || question.members.get(primary).and_then(lowers).is_some()
}

/// `for max_connections`, and `max_connections (100, then 200)`.
fn in_words<'a>(settings: impl IntoIterator<Item = &'a PendingSetting>) -> (String, String) {
    let (mut names, mut changes) = (vec![], vec![]);
    for PendingSetting { name, runs, wanted, .. } in settings {
        names.push(name.as_str());
        changes.push(match wanted {
            Some(wanted) => format!("{name} ({runs}, then {wanted})"),
            None => format!("{name} ({runs}, then PostgreSQL's own)"),
        });
    }
    (format!("for {}", names.join(", ")), changes.join(", "))
}
