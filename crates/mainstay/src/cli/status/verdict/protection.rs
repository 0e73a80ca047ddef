//! What else may fail? For every loss of one node, of two, of a site: would writes go on?

use std::collections::{BTreeMap, BTreeSet};

use model::leadership::Phase;
use model::system::{Durability, duration};
use model::{DatabaseName, NodeName};
use serde::Serialize;

use super::Writes;
use crate::cli::columns::{either, listed};
use crate::cli::status::view::View;

/// Losses of more nodes at once than this are not looked at.
const DEEPEST: usize = 3;

/// In systems with more nodes than this, only losses of one and two nodes are looked at.
const MANY_NODES: usize = 12;

/// What else may fail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Protection {
    /// Any so many nodes may be lost, and writes flow again without help.
    pub(crate) survives_nodes: usize,
    /// What the loss of each node would do.
    pub(crate) loss_of: BTreeMap<NodeName, Effect>,
    /// All of it in words, the most important first. Never empty.
    pub(crate) sentences: Vec<String>,
}

/// What a loss would do to writes, the mildest first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case", tag = "effect")]
pub(crate) enum Effect {
    /// Writes would go on.
    GoOn,
    /// Another member would take over in about a second.
    FailOver,
    /// Writes would go on, but nothing could be repaired any more.
    Unrepaired,
    /// Writes would wait.
    Wait {
        /// For what.
        because: String,
    },
}

type Loss = BTreeSet<NodeName>;

impl Protection {
    /// Looks at every loss.
    pub(super) fn of(view: &View, writes: &BTreeMap<DatabaseName, Writes>) -> Self {
        let flowing: Vec<&DatabaseName> = view
            .system
            .databases
            .keys()
            .filter(|name| !matches!(writes.get(*name), Some(Writes::Wait { .. })))
            .collect();
        let here: Vec<NodeName> =
            view.system.nodes.keys().filter(|node| view.is_here(node)).cloned().collect();
        let effect = |loss: &Loss| effect(view, &flowing, loss);
        let loss_of = here.iter().map(|node| (node.clone(), effect(&Loss::from([node.clone()])))).collect();
        let waits = |loss: &Loss| matches!(effect(loss), Effect::Wait { .. });
        let (survives_nodes, fatal) = smallest_fatal(&here, waits);
        let mut sentences = Vec::new();
        if flowing.is_empty() && !view.system.databases.is_empty() {
            sentences.push("writes wait already; see above what would help".to_owned());
        } else {
            sentences.push(nodes_in_words(survives_nodes, &fatal, effect));
            sentences.extend(sites_in_words(view, effect));
            sentences.extend(unrepaired(&loss_of).filter(|_| view.decides_without(&Loss::new())));
        }
        sentences.extend(view.system.databases.keys().map(|name| copies(view, name)));
        sentences.extend(view.system.services.keys().filter_map(|name| lone_instances(view, name)));
        Self { survives_nodes, loss_of, sentences }
    }
}

impl Protection {
    /// The sentence for a system in which nothing is wrong.
    pub(super) fn all_works(&self) -> String {
        let first = self.sentences.first().map_or("", String::as_str);
        match (self.survives_nodes, first.split_once("; ")) {
            (0, _) | (_, None) => format!("everything works; {first}"),
            (_, Some((survived, _))) => format!("everything works, and {survived}"),
        }
    }
}

// ---- one loss ----

fn effect(view: &View, databases: &[&DatabaseName], loss: &Loss) -> Effect {
    let each = databases.iter().map(|database| effect_on(view, database, loss));
    let nothing = if view.decides_without(loss) { Effect::GoOn } else { Effect::Unrepaired };
    each.chain([nothing]).max().unwrap_or(Effect::GoOn)
}

fn effect_on(view: &View, database: &DatabaseName, loss: &Loss) -> Effect {
    let Some(record) = view.record(database) else { return Effect::GoOn };
    let primary = match &record.phase {
        Phase::Led { primary } => primary,
        Phase::HandingOver { to, .. } => to,
        Phase::Founding { by } => by,
        Phase::Revoking { former, .. } => former,
    };
    if loss.contains(primary) {
        return without_primary(view, database, primary, loss);
    }
    let left = |node: &&NodeName| !loss.contains(*node);
    let confirming = view.confirming(database).iter().filter(left).count();
    // Others may only be taken into the sync set while something can be decided.
    let others = view.members(database).iter().filter(|n| *n != primary).filter(left);
    let streaming = others.filter(|node| view.streams(database, node)).count();
    let able = if view.decides_without(loss) { streaming.max(confirming) } else { confirming };
    if able >= view.confirmations(database) {
        return Effect::GoOn;
    }
    wait(format!("{} of {database} would confirm writes", standbys(able)))
}

fn without_primary(view: &View, database: &DatabaseName, primary: &NodeName, loss: &Loss) -> Effect {
    let Some(record) = view.record(database) else { return Effect::GoOn };
    if !view.decides_without(loss) {
        let voters = view.system.voters().count();
        return wait(format!(
            "no failover of {database} could be decided by {} of {voters} voters",
            view.voters_without(loss)
        ));
    }
    let left = view.members(database).iter().filter(|node| *node != primary && !loss.contains(*node));
    let reporters: BTreeSet<NodeName> =
        left.filter(|node| view.can_report(database, node)).cloned().collect();
    if reporters.is_empty() {
        return wait(format!("no member of {database} could take over"));
    }
    if !record.is_revoked_by(&reporters) {
        return wait(format!("nobody left surely holds every acknowledged write of {database}"));
    }
    let needed = view.confirmations(database);
    if reporters.len() - 1 < needed {
        let able = standbys(reporters.len() - 1);
        return wait(format!("after the failover {able} of {database} would confirm writes"));
    }
    Effect::FailOver
}

fn wait(because: String) -> Effect {
    Effect::Wait { because }
}

fn standbys(count: usize) -> String {
    match count {
        0 => "no standby".to_owned(),
        1 => "only 1 standby".to_owned(),
        more => format!("only {more} standbys"),
    }
}

// ---- all losses ----

/// How many nodes may be lost at least, and the smallest losses that are too much.
fn smallest_fatal(here: &[NodeName], waits: impl Fn(&Loss) -> bool) -> (usize, Vec<Loss>) {
    let deepest = if here.len() > MANY_NODES { DEEPEST - 1 } else { DEEPEST };
    for size in 1..=deepest.min(here.len()) {
        let fatal: Vec<Loss> = choices(here, size).into_iter().filter(|loss| waits(loss)).collect();
        if !fatal.is_empty() {
            return (size - 1, fatal);
        }
    }
    (deepest.min(here.len()), vec![])
}

/// Every choice of `size` of `nodes`.
fn choices(nodes: &[NodeName], size: usize) -> Vec<Loss> {
    match (size, nodes) {
        (0, _) => vec![Loss::new()],
        (_, []) => vec![],
        (size, [first, rest @ ..]) => {
            let with = choices(rest, size - 1).into_iter().map(|mut loss| {
                loss.insert(first.clone());
                loss
            });
            with.chain(choices(rest, size)).collect()
        }
    }
}

// ---- in words ----

fn nodes_in_words(survives: usize, fatal: &[Loss], effect: impl Fn(&Loss) -> Effect) -> String {
    let survived = match survives {
        0 => None,
        1 => Some("any one node may be lost".to_owned()),
        more => Some(format!("any {} nodes may be lost", number(more))),
    };
    let union: BTreeSet<&str> = fatal.iter().flatten().map(NodeName::as_str).collect();
    let size = survives + 1;
    let all = binomial(union.len(), size) == fatal.len();
    let names = union.iter().copied().collect::<Vec<_>>().join(", ");
    match (survived, fatal) {
        (None, []) => "no node is there to be lost".to_owned(),
        (Some(survived), []) => format!("{survived}, and writes go on"),
        (None, losses) => {
            format!("writes would wait if {} were lost: {}", single(losses), first_reason(losses, effect))
        }
        (Some(survived), _) if all && union.len() > size => {
            format!("{survived}; writes would wait if {} of {names} were lost", number(size))
        }
        (Some(survived), [one]) => {
            format!("{survived}; writes would wait if {} were lost at once", listed(name(one)))
        }
        (Some(survived), several) => {
            let some: Vec<String> = several.iter().take(3).map(|loss| listed(name(loss))).collect();
            let more = if several.len() > 3 { ", or in other cases" } else { "" };
            format!("{survived}; writes would wait if {}{more} were lost at once", some.join(", or "))
        }
    }
}

fn name(loss: &Loss) -> Vec<&str> {
    loss.iter().map(NodeName::as_str).collect()
}

/// The nodes none of which may be lost: `e1 or w1`.
fn single(losses: &[Loss]) -> String {
    either(losses.iter().flatten().map(NodeName::as_str))
}

fn first_reason(losses: &[Loss], effect: impl Fn(&Loss) -> Effect) -> String {
    losses
        .iter()
        .find_map(|loss| match effect(loss) {
            Effect::Wait { because } => Some(because),
            Effect::GoOn | Effect::FailOver | Effect::Unrepaired => None,
        })
        .unwrap_or_default()
}

fn number(count: usize) -> String {
    match count {
        1 => "one".to_owned(),
        2 => "two".to_owned(),
        3 => "three".to_owned(),
        more => more.to_string(),
    }
}

fn binomial(of: usize, choose: usize) -> usize {
    (0..choose).fold(1, |product, i| product * of.saturating_sub(i) / (i + 1))
}

/// Sites of several nodes: what the loss of a whole one would do.
fn sites_in_words(view: &View, effect: impl Fn(&Loss) -> Effect) -> Vec<String> {
    let mut sites: BTreeMap<&str, Loss> = BTreeMap::new();
    for (name, node) in view.system.nodes.iter().filter(|(name, _)| view.is_here(name)) {
        sites.entry(node.site.as_str()).or_default().insert(name.clone());
    }
    if sites.len() < 2 || sites.values().all(|loss| loss.len() < 2) {
        return vec![];
    }
    let fatal: Vec<String> = sites
        .iter()
        .filter_map(|(site, loss)| match effect(loss) {
            Effect::Wait { because } => {
                Some(format!("writes would wait if site {site} were lost: {because}"))
            }
            Effect::GoOn | Effect::FailOver | Effect::Unrepaired => None,
        })
        .collect();
    if fatal.is_empty() { vec!["any one site may be lost".to_owned()] } else { fatal }
}

fn unrepaired(loss_of: &BTreeMap<NodeName, Effect>) -> Option<String> {
    let nodes = loss_of.iter().filter(|(_, effect)| **effect == Effect::Unrepaired);
    let nodes: Vec<&str> = nodes.map(|(node, _)| node.as_str()).collect();
    (!nodes.is_empty()).then(|| {
        let names = either(nodes);
        format!("if {names} were lost, writes would go on but nothing could be repaired: too few voters would be left")
    })
}

/// On how many nodes an acknowledged write lies.
fn copies(view: &View, database: &DatabaseName) -> String {
    let Some(config) = view.system.databases.get(database) else { return String::new() };
    match (config.durability, view.confirmations(database)) {
        (Durability::Async { max_loss }, _) => format!(
            "a failover of {database} may lose the newest acknowledged writes (up to {} of them)",
            duration::format(max_loss)
        ),
        (Durability::ZeroLoss, k) => {
            let (nodes, may) = (k + 1, if k == 1 { "one".to_owned() } else { k.to_string() });
            format!(
                "each acknowledged write of {database} is on at least {nodes} nodes: any {may} may burn down without losing it"
            )
        }
    }
}

/// A service all of whose ready instances are on one node.
fn lone_instances(view: &View, service: &model::ServiceName) -> Option<String> {
    let nodes: BTreeSet<NodeName> = view.ready(service).into_iter().map(|instance| instance.node).collect();
    let lone = nodes.iter().next().filter(|_| nodes.len() == 1)?;
    Some(format!("{service} would be away for some seconds if {lone} were lost: all its instances are there"))
}
