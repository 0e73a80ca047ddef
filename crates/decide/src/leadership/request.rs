//! May the operator have that? Requests are checked against what is known and answered with a record or a refusal.

use model::NodeName;
use model::leadership::{Forced, Leadership, Phase};

use super::{Question, hand_over, listed, restart as restarts};
use crate::view::{MemberView, Reach};

/// Why a request is refused, and what would help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// One sentence.
    pub because: String,
    /// What the operator can do.
    pub hint: String,
    /// It may be otherwise in a moment, without anybody's doing.
    pub passing: bool,
}

impl Refusal {
    /// One that stands until something is done.
    pub fn new(because: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { because: because.into(), hint: hint.into(), passing: false }
    }
}

fn refuse<T>(because: impl Into<String>, hint: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::new(because, hint))
}

fn not_yet<T>(because: impl Into<String>, hint: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { passing: true, ..Refusal::new(because, hint) })
}

/// A record that begins a switchover to `to`, or to the best standby.
pub fn switchover(question: &Question<'_>, to: Option<&NodeName>) -> Result<Leadership, Refusal> {
    let settled = question.record.and_then(|record| match &record.phase {
        Phase::Led { primary } => Some((record, primary)),
        Phase::Founding { .. } | Phase::Revoking { .. } | Phase::HandingOver { .. } => None,
    });
    let Some((record, primary)) = settled else {
        return not_yet("the database has no settled primary now", "wait until `mainstay status` shows one");
    };
    if to == Some(primary) {
        return refuse(format!("{primary} is the primary already"), "name another member with --to");
    }
    if question.members.get(primary).is_none_or(|view| view.tenure(record.term).is_none()) {
        return not_yet(format!("{primary} is still being promoted"), "try again in a moment");
    }
    let able: Vec<&NodeName> =
        question.rules.members.iter().filter(|node| can_take_over(question, record, node)).collect();
    match to {
        Some(node) if !question.rules.members.contains(node) => refuse(
            format!("{node} is not a member"),
            format!("members are {}", listed(&question.rules.members)),
        ),
        Some(node) if !able.contains(&node) => not_yet(
            format!("{node} is not a caught-up standby that confirms commits"),
            format!("members that could take over now: {}", listed(able)),
        ),
        Some(node) => Ok(asked_for(record, primary, node)),
        None => match able.first() {
            Some(node) => Ok(asked_for(record, primary, node)),
            None => not_yet("no standby is caught up", "see `mainstay status` for what is wrong with them"),
        },
    }
}

fn asked_for(record: &Leadership, from: &NodeName, to: &NodeName) -> Leadership {
    let because = format!("an operator asked for a switchover from {from} to {to}");
    hand_over::begin(record, from, to, None, because)
}

pub(super) fn can_take_over(question: &Question<'_>, record: &Leadership, node: &NodeName) -> bool {
    let confirms = record.sync.k == 0 || record.sync.members.contains(node);
    confirms && record.primary() != Some(node) && question.members.get(node).is_some_and(is_ready)
}

fn is_ready(view: &MemberView) -> bool {
    view.is_present()
        && view.status.trouble.is_none()
        && view.standby().is_some_and(|standby| standby.streaming)
}

/// A record that gives `node` its turn to restart. Refused where writes would have to wait meanwhile, unless `force`d.
pub fn restart(question: &Question<'_>, node: &NodeName, force: bool) -> Result<Leadership, Refusal> {
    let settled = question.record.and_then(|record| match &record.phase {
        Phase::Led { primary } => Some((record, primary)),
        Phase::Founding { .. } | Phase::Revoking { .. } | Phase::HandingOver { .. } => None,
    });
    let Some((record, primary)) = settled else {
        return refuse("the database has no settled primary now", "wait until `mainstay status` shows one");
    };
    if !question.rules.members.contains(node) {
        return refuse(
            format!("{node} is not a member"),
            format!("members are {}", listed(&question.rules.members)),
        );
    }
    if question.paused {
        return refuse(
            "nothing restarts while the automation is paused",
            "`mainstay resume` ends the pause; then ask again",
        );
    }
    if let Some(turn) = record.restart.as_ref().filter(|turn| !restarts::is_done(question, record, turn)) {
        return refuse(
            format!("{turn}, and one restarts at a time"),
            "`mainstay status --watch` shows when it is back; then ask again",
        );
    }
    let server = question.members.get(node).filter(|view| view.is_present());
    let Some(server) = server.and_then(|view| view.status.server.started_us()) else {
        return refuse(
            format!("PostgreSQL on {node} does not run, or does not answer"),
            "`mainstay status` shows what it does; it starts by itself when it can",
        );
    };
    restarts::asked_for(question, record, primary, node, server, force)
}

/// A record that promotes `to` whatever may be lost. Refused while a safe way exists.
pub fn force_failover(
    question: &Question<'_>,
    to: &NodeName,
    statement: &str,
) -> Result<Leadership, Refusal> {
    let Some(record) = question.record else {
        return refuse("the database was never created", "there is nothing to fail over");
    };
    if !question.rules.members.contains(to) {
        return refuse(
            format!("{to} is not a member"),
            format!("members are {}", listed(&question.rules.members)),
        );
    }
    if !question.members.get(to).is_some_and(MemberView::is_present) {
        return refuse(format!("{to} cannot be reached"), "start its node first, or name another member");
    }
    let former = match &record.phase {
        Phase::Led { primary: node }
        | Phase::HandingOver { from: node, .. }
        | Phase::Founding { by: node } => node,
        Phase::Revoking { former, .. } => former,
    };
    let healthy = question
        .members
        .get(former)
        .is_some_and(|view| view.reach == Reach::Alive && view.primary().is_some());
    if healthy && record.primary() == Some(former) {
        return refuse(
            format!("{former} leads and works; forcing would lose writes for nothing"),
            format!("mainstay switchover DATABASE --to {to}"),
        );
    }
    let forced = Forced { candidate: to.clone(), statement: statement.to_owned() };
    Ok(Leadership {
        term: record.term.next(),
        phase: Phase::Revoking { former: former.clone(), prefer: None, forced: Some(forced) },
        restart: None,
        because: format!("an operator forces a failover to {to}: {statement}"),
        ..record.clone()
    })
}
