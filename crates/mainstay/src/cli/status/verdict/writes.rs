//! Are writes to a database acknowledged now?

use std::collections::BTreeSet;

use model::leadership::{Leadership, Phase};
use model::status::Server;
use model::{DatabaseName, NodeName};
use serde::Serialize;

use crate::cli::columns::{either, listed};
use crate::cli::status::view::{Heard, View};

/// Whether writes flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub(crate) enum Writes {
    /// They are acknowledged.
    Flow,
    /// They are held for a moment, as asked for.
    Pause {
        /// What goes on.
        because: String,
    },
    /// They are not acknowledged.
    Wait {
        /// Why.
        because: String,
        /// What a person can do.
        unblock: Option<String>,
    },
}

impl Writes {
    /// Judges a database.
    pub(super) fn of(view: &View, database: &DatabaseName) -> Self {
        let Some(record) = view.record(database) else {
            return wait("it has not been created yet", absent(view, view.members(database)));
        };
        match &record.phase {
            Phase::Founding { by } => wait(format!("{by} is creating it"), None),
            Phase::Revoking { former, .. } => revoking(view, database, record, former),
            Phase::HandingOver { from, to } => {
                Self::Pause { because: format!("{from} is handing over to {to}") }
            }
            Phase::Led { primary } => led(view, database, primary),
        }
    }
}

fn wait(because: impl Into<String>, unblock: Option<String>) -> Writes {
    Writes::Wait { because: because.into(), unblock }
}

/// `start node a or b`, if any of them is away.
fn absent(view: &View, nodes: &[NodeName]) -> Option<String> {
    let away: Vec<&str> = nodes.iter().filter(|node| !view.is_here(node)).map(NodeName::as_str).collect();
    (!away.is_empty()).then(|| format!("start node {}", listed(away)))
}

fn revoking(view: &View, database: &DatabaseName, record: &Leadership, former: &NodeName) -> Writes {
    let because = format!("{former} is no primary any more and no other is elected yet");
    wait(because, majority_missing(view).or_else(|| missing_reports(view, database, record, former)))
}

/// Whose return would let a failover from `former` happen; `None` when nobody's is needed. Either reports of the sync set
/// prove that nothing is lost, or the former primary itself, which holds everything.
fn missing_reports(
    view: &View,
    database: &DatabaseName,
    record: &Leadership,
    former: &NodeName,
) -> Option<String> {
    let members = view.members(database);
    let able: BTreeSet<NodeName> =
        members.iter().filter(|node| *node != former && view.can_report(database, node)).cloned().collect();
    if record.is_revoked_by(&able) && !able.is_empty() {
        return None;
    }
    let suffices = |node: &NodeName| {
        let mut with = able.clone();
        with.insert(node.clone());
        node == former || record.is_revoked_by(&with)
    };
    let holds = |node: &NodeName| node == former || record.sets().any(|set| set.members.contains(node));
    let missing: Vec<&NodeName> =
        members.iter().filter(|node| holds(node) && !able.contains(*node)).collect();
    let alone: Vec<&NodeName> = missing.iter().copied().filter(|node| suffices(node)).collect();
    let accept = "or accept the loss of what is there only with `mainstay failover`";
    Some(match alone.as_slice() {
        [] => {
            let names = listed(missing.iter().map(|node| node.as_str()));
            format!("start nodes {names}: together they hold every acknowledged write; {accept}")
        }
        [one] => format!("start node {one}: acknowledged writes may be there only; {accept}"),
        several => {
            let names = either(several.iter().map(|node| node.as_str()));
            format!("start node {names}: any of them tells which writes were acknowledged; {accept}")
        }
    })
}

/// What to do when too few voters are there to decide anything.
pub(super) fn majority_missing(view: &View) -> Option<String> {
    let quorum = view.quorum()?;
    let here = view.voters_without(&Default::default());
    if here >= quorum {
        return None;
    }
    let away: Vec<&str> =
        view.system.voters().filter(|node| !view.is_here(node)).map(NodeName::as_str).collect();
    Some(match (quorum - here, away.as_slice()) {
        (1, several) => {
            format!("start node {}: a majority of the voters decides again then", either(several))
        }
        (needed, several) => {
            format!("start {needed} of the nodes {}: nothing can be decided before", several.join(", "))
        }
    })
}

fn led(view: &View, database: &DatabaseName, primary: &NodeName) -> Writes {
    if let Some(because) = primary_fails(view, database, primary) {
        let paused = view.overview.paused.is_some();
        let resume = || {
            paused.then(|| "`mainstay resume`: nothing fails over while the automation is paused".to_owned())
        };
        let missing = || missing_reports(view, database, view.record(database)?, primary);
        return wait(because, majority_missing(view).or_else(resume).or_else(missing));
    }
    let (needed, confirming) = (view.confirmations(database), view.confirming(database));
    if confirming.len() < needed {
        return too_few_confirm(view, database, primary, needed - confirming.len());
    }
    match parked_everywhere(view, database) {
        Some(because) => wait(format!("no route leads to {primary}: {because}"), None),
        None => Writes::Flow,
    }
}

/// Why the primary of the record does not serve.
fn primary_fails(view: &View, database: &DatabaseName, primary: &NodeName) -> Option<String> {
    match view.heard(primary) {
        Heard::Silent => return Some(format!("its primary's node {primary} is silent")),
        Heard::CutOff => return Some(format!("its primary's node {primary} is cut off from the others")),
        Heard::Never => return Some(format!("its primary's node {primary} has not been heard yet")),
        // PostgreSQL may live on; replication and the gate tell.
        Heard::Yes | Heard::AgentGone => {}
    }
    if view.serving(database).is_some() {
        return None;
    }
    let server = view.member(database, primary).map(|member| &member.status.server);
    Some(match server {
        Some(Server::Sick { because, .. }) => format!("PostgreSQL on {primary} does not work: {because}"),
        Some(Server::Stopped { because }) => format!("PostgreSQL on {primary} is not running: {because}"),
        Some(Server::Empty) => format!("the data of {primary} is gone"),
        Some(Server::Busy { doing }) => format!("PostgreSQL on {primary} is busy: {doing}"),
        Some(Server::Standby(_) | Server::Primary(_)) => format!("{primary} is being promoted"),
        Some(Server::Unknown) | None => format!("nothing is known of PostgreSQL on {primary} yet"),
    })
}

fn too_few_confirm(view: &View, database: &DatabaseName, primary: &NodeName, missing: usize) -> Writes {
    let others = view.members(database).iter().filter(|node| *node != primary);
    let idle: Vec<&NodeName> = others.filter(|node| !view.streams(database, node)).collect();
    let why = absences(view, database, &idle);
    let because = match view.confirming(database).len() {
        0 => format!("no standby confirms them: {why}"),
        1 => format!("1 standby confirms them and {missing} more must: {why}"),
        some => format!("{some} standbys confirm them and {missing} more must: {why}"),
    };
    let (back, away): (Vec<&NodeName>, Vec<&NodeName>) = idle.iter().partition(|node| view.is_here(node));
    let unblock = match (back.as_slice(), away.as_slice()) {
        ([], []) => None,
        ([], [_]) => Some(format!("{}: writes wait for it", remedy(view, &away))),
        ([], _) if missing == 1 => Some(format!("{}: writes wait for one of them", remedy(view, &away))),
        ([], _) => Some(format!("{}: writes wait for {missing} of them", remedy(view, &away))),
        (back, []) => {
            let names = listed(back.iter().map(|node| node.as_str()));
            Some(format!("wait for {names}, or see `mainstay why {database}` if it takes long"))
        }
        (back, _) => {
            let names = either(back.iter().map(|node| node.as_str()));
            Some(format!("wait for {names} to come back, or {}", remedy(view, &away)))
        }
    };
    wait(because, unblock)
}

/// What brings nodes back that are away: `start node a or b`.
pub(super) fn remedy(view: &View, away: &[&NodeName]) -> String {
    let (cut, off): (Vec<&NodeName>, Vec<&NodeName>) =
        away.iter().partition(|node| view.heard(node) == Heard::CutOff);
    let names = |nodes: &[&NodeName]| either(nodes.iter().map(|node| node.as_str()));
    match (off.as_slice(), cut.as_slice()) {
        (off, []) => format!("start node {}", names(off)),
        ([], cut) => format!("repair the network of {}", names(cut)),
        (off, cut) => format!("start node {} or repair the network of {}", names(off), names(cut)),
    }
}

/// Why standbys do not confirm, in a few words; those with the same reason together.
fn absences(view: &View, database: &DatabaseName, nodes: &[&NodeName]) -> String {
    let mut reasons: Vec<(Vec<&str>, (&str, &str))> = vec![];
    for node in nodes {
        let why = absence(view, database, node);
        match reasons.iter_mut().find(|(_, known)| *known == why) {
            Some((nodes, _)) => nodes.push(node.as_str()),
            None => reasons.push((vec![node.as_str()], why)),
        }
    }
    let told = reasons.iter().map(|(nodes, (one, several))| {
        format!("{} {}", listed(nodes), if nodes.len() == 1 { one } else { several })
    });
    listed(told)
}

/// Why a standby does not confirm: for one, and for several.
fn absence<'v>(view: &'v View, database: &DatabaseName, node: &NodeName) -> (&'v str, &'v str) {
    let server = view.member(database, node).map(|member| &member.status.server);
    match (view.heard(node), server) {
        (Heard::AgentGone, _) => ("has no agent any more", "have no agents any more"),
        (Heard::Silent, _) => ("is silent", "are silent"),
        (Heard::Never, _) => ("has not been heard yet", "have not been heard yet"),
        (Heard::CutOff, _) => ("is cut off", "are cut off"),
        (Heard::Yes, Some(Server::Busy { doing })) if doing == "rejoining" => {
            ("is rejoining", "are rejoining")
        }
        (Heard::Yes, Some(Server::Busy { .. } | Server::Stopped { .. })) => {
            ("is coming back", "are coming back")
        }
        (Heard::Yes, Some(Server::Empty)) => ("has no data yet", "have no data yet"),
        (Heard::Yes, Some(Server::Sick { .. })) => ("is sick", "are sick"),
        (Heard::Yes, Some(Server::Standby(_) | Server::Primary(_) | Server::Unknown) | None) => {
            ("does not receive log", "do not receive log")
        }
    }
}

/// Why no answering node's proxy leads to the primary, if that is so.
fn parked_everywhere(view: &View, database: &DatabaseName) -> Option<String> {
    let parked = view.parked(database);
    let open = view.tables.iter().filter(|(node, table)| view.is_here(node) && !table.routes.is_empty());
    let (_, because) = parked.first()?;
    (parked.len() == open.count()).then(|| because.clone())
}
