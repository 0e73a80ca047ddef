//! Are writes to a database acknowledged now?

use std::collections::BTreeSet;

use model::leadership::{Leadership, Phase};
use model::routes::{DatabaseRouteState, RouteTarget};
use model::status::Server;
use model::system::{self, Role};
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
    let able: BTreeSet<NodeName> =
        view.members(database).iter().filter(|node| view.can_report(database, node)).cloned().collect();
    let holds = |node: &NodeName| node == former || record.sets().any(|set| set.members.contains(node));
    let away: Vec<&str> = view
        .members(database)
        .iter()
        .filter(|node| holds(node) && !able.contains(*node))
        .map(NodeName::as_str)
        .collect();
    let unblock = match (majority_missing(view), away.as_slice()) {
        (Some(missing), _) => Some(missing),
        (None, _) if record.is_revoked_by(&able) => None,
        (None, []) => None,
        (None, [one]) => Some(format!("start node {one}: what it holds decides who may lead")),
        (None, several) => {
            Some(format!("start node {}: what they hold decides who may lead", listed(several)))
        }
    };
    wait(because, unblock)
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
        (1, [one]) => format!("start node {one}: a majority of the voters decides again then"),
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
        let unblock = majority_missing(view).or_else(|| blocked_failover(view, database, primary));
        return wait(because, unblock);
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

/// Whom a failover from `primary` waits for.
fn blocked_failover(view: &View, database: &DatabaseName, primary: &NodeName) -> Option<String> {
    let record = view.record(database)?;
    let reporters = view.members(database).iter().filter(|node| view.can_report(database, node));
    let reporters = reporters.filter(|node| *node != primary).cloned().collect();
    if record.is_revoked_by(&reporters) {
        return None;
    }
    let missing: Vec<&str> = view
        .members(database)
        .iter()
        .filter(|node| *node == primary || record.sets().any(|set| set.members.contains(*node)))
        .filter(|node| !reporters.contains(*node))
        .map(NodeName::as_str)
        .collect();
    Some(format!(
        "start node {}: acknowledged writes may be there only; or accept their loss with `mainstay failover`",
        either(missing)
    ))
}

fn too_few_confirm(view: &View, database: &DatabaseName, primary: &NodeName, missing: usize) -> Writes {
    let others: Vec<&NodeName> = view.members(database).iter().filter(|node| *node != primary).collect();
    let idle = || others.iter().filter(|node| !view.streams(database, node));
    let why: Vec<String> = idle().map(|node| absence(view, node)).collect();
    let away: Vec<&str> =
        idle().filter(|node| view.heard(node) != Heard::Yes).map(|node| node.as_str()).collect();
    let because = match view.confirming(database).len() {
        0 => format!("no standby confirms them: {}", listed(why)),
        some => format!("{some} standbys confirm them and {missing} more must: {}", listed(why)),
    };
    let unblock = match away.as_slice() {
        [] => format!("see `mainstay why {database}` for what keeps the standbys"),
        [one] => format!("start node {one}: writes wait for it"),
        several if missing == 1 => {
            format!("start node {}: writes wait for one of them", either(several))
        }
        several => format!("start node {}: writes wait for {missing} of them", either(several)),
    };
    wait(because, Some(unblock))
}

/// Why a standby does not confirm, in a few words.
fn absence(view: &View, node: &NodeName) -> String {
    match view.heard(node) {
        Heard::Yes => format!("{node} does not receive log"),
        Heard::AgentGone => format!("{node}'s agent has ended"),
        Heard::Silent => format!("{node} is silent"),
        Heard::Never => format!("{node} has not been heard yet"),
        Heard::CutOff => format!("{node} is cut off"),
    }
}

/// Why no answering node's proxy leads to the primary, if that is so.
fn parked_everywhere(view: &View, database: &DatabaseName) -> Option<String> {
    let leads = |route: &system::Route| matches!(&route.target, system::RouteTarget::Database { database: of, role: Role::Primary } if of == database);
    let names: Vec<_> = view.system.routes.iter().filter(|(_, route)| leads(route)).map(|(n, _)| n).collect();
    let states = view
        .tables
        .iter()
        .filter(|(node, _)| view.is_here(node))
        .flat_map(|(_, table)| &table.routes)
        .filter(|route| names.contains(&&route.name))
        .filter_map(|route| match &route.target {
            RouteTarget::Database(target) => Some(&target.state),
            RouteTarget::Service(_) => None,
        });
    let mut because = None;
    for state in states {
        match state {
            DatabaseRouteState::Open { .. } | DatabaseRouteState::Draining { .. } => return None,
            DatabaseRouteState::Parked { because: why } => because = Some(why.clone()),
        }
    }
    because
}
