//! On which node does each instance of a service run? Even over sites, then over nodes; an instance that runs stays.
//!
//! An instance that is wanted no more is replaced before it goes: its replacement is ready first, then it is *leaving*
//! (no proxy gives it new requests), and it is ended when every proxy has acknowledged that and no request is left.

use std::collections::{BTreeMap, BTreeSet};

use model::release::Digest;
use model::{NodeName, ServiceName, SiteName};
use serde::{Deserialize, Serialize};

/// Where one instance runs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Placed {
    /// The node.
    pub node: NodeName,
    /// Its port there.
    pub port: u16,
    /// The generation of the system file up to which a running instance is replaced when it was started with something
    /// else: its turn.
    #[serde(default)]
    pub renew: u64,
    /// Whether it gets no new requests, because it is to end.
    #[serde(default)]
    pub leaving: bool,
    /// The release it runs from; `None` where the service has none.
    #[serde(default)]
    pub release: Option<Origin>,
    /// While a release takes over: the part of all requests, of a thousand, that all instances with such a part get
    /// together; 0 keeps it running without any.
    #[serde(default)]
    pub share: Option<u16>,
}

/// Which release an instance runs from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Origin {
    /// Its number.
    pub number: u64,
    /// Its artefact.
    pub digest: Digest,
}

/// All instances of all services: coordination key `placement`. The index of an instance is its number, from 1.
pub type Placement = BTreeMap<ServiceName, BTreeMap<u32, Placed>>;

/// One service to place.
pub struct Wish<'a> {
    /// Its name.
    pub service: &'a ServiceName,
    /// What shall run; several groups while a release takes over.
    pub groups: Vec<Group>,
    /// How many must be ready before one that serves may go.
    pub need: u32,
    /// The release whose instances get no requests from now on, whatever else is ready.
    pub expelled: Option<u64>,
    /// Nodes that may run it, with their sites; not those that are lost or drained.
    pub allowed: Vec<(&'a NodeName, &'a SiteName)>,
    /// Ports that may be used.
    pub ports: Vec<u16>,
}

/// Instances of one release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Which one.
    pub release: Option<Origin>,
    /// How many.
    pub instances: u32,
    /// See [`Placed::share`].
    pub share: Option<u16>,
}

/// One instance of a service as its node describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Whether it takes requests.
    pub ready: bool,
    /// Whether it runs with what an older file said.
    pub outdated: bool,
    /// Whether its process has ended by itself.
    pub gone: bool,
}

/// What is known of the instances.
pub struct Facts<'a> {
    /// Nodes whose instances are gone for good.
    pub lost: &'a BTreeSet<NodeName>,
    /// How an instance does; `None` when it does not run, or its node is not heard.
    pub copy: &'a dyn Fn(&ServiceName, u32, &NodeName) -> Option<Copy>,
    /// Whether a process of ours still has a port of a node: one that is ending would answer for its successor.
    pub is_held: &'a dyn Fn(&NodeName, u16) -> bool,
    /// Whether no proxy gives a leaving instance requests any more, and none is under way.
    pub is_idle: &'a dyn Fn(&ServiceName, u32, &Placed) -> bool,
}

type Instances = BTreeMap<u32, Placed>;

/// Places all wishes. Instances that `current` has on a usable node stay; those on lost nodes start elsewhere at once,
/// those on other unusable nodes, and those that are too many, end when enough others are ready.
pub fn decide(wishes: &[Wish<'_>], current: &Placement, facts: &Facts<'_>) -> Placement {
    let mut placement: Placement =
        wishes.iter().map(|wish| (wish.service.clone(), remaining(wish.service, current, facts))).collect();
    let mut taken: BTreeSet<(NodeName, u16)> = placement
        .values()
        .flat_map(BTreeMap::values)
        .map(|placed| (placed.node.clone(), placed.port))
        .collect();
    for wish in wishes {
        let instances = placement.entry(wish.service.clone()).or_default();
        let mut stay = BTreeSet::new();
        let mut missing = vec![];
        for group in &wish.groups {
            let numbers = staying(wish, group, instances, facts);
            for number in &numbers {
                if let Some(placed) = instances.get_mut(number) {
                    placed.leaving = false;
                    placed.share = group.share;
                }
            }
            missing.push((group, count(group.instances).saturating_sub(numbers.len())));
            stay.extend(numbers);
        }
        release(wish, instances, &stay, facts);
        for (group, missing) in missing {
            fill(wish, group, missing, instances, &mut taken, facts);
        }
    }
    placement
}

fn count(instances: u32) -> usize {
    usize::try_from(instances).unwrap_or(usize::MAX)
}

/// The instances that are not on a lost node, and have not left.
fn remaining(service: &ServiceName, current: &Placement, facts: &Facts<'_>) -> Instances {
    let gone = |number: u32, placed: &Placed| {
        facts.lost.contains(&placed.node) || (placed.leaving && (facts.is_idle)(service, number, placed))
    };
    let all = current.get(service).into_iter().flatten();
    all.filter(|(number, placed)| !gone(**number, placed))
        .map(|(number, placed)| (*number, placed.clone()))
        .collect()
}

/// The numbers of those that make up a group: as many as it wants, those that need not come back and serve first.
fn staying(wish: &Wish<'_>, group: &Group, instances: &Instances, facts: &Facts<'_>) -> BTreeSet<u32> {
    let usable = |placed: &Placed| {
        placed.release == group.release
            && wish.ports.contains(&placed.port)
            && wish.allowed.iter().any(|(node, _)| **node == placed.node)
    };
    let mut ranked: Vec<(bool, bool, u32)> = instances
        .iter()
        .filter(|(_, placed)| usable(placed))
        .map(|(number, placed)| (placed.leaving, !is_ready(wish, *number, placed, facts), *number))
        .collect();
    ranked.sort_unstable();
    ranked.into_iter().take(count(group.instances)).map(|(_, _, number)| number).collect()
}

/// Takes out of service what does not stay, as far as enough others are ready.
fn release(wish: &Wish<'_>, instances: &mut Instances, stay: &BTreeSet<u32>, facts: &Facts<'_>) {
    let ready: BTreeSet<u32> = instances
        .iter()
        .filter(|(number, placed)| {
            !placed.leaving && placed.share != Some(0) && is_ready(wish, **number, placed, facts)
        })
        .map(|(number, _)| *number)
        .collect();
    let mut spare = ready.len().saturating_sub(count(wish.need));
    // What serves nobody can go when its replacement has a place.
    let replaced = stay.len() >= wish.groups.iter().map(|group| count(group.instances)).sum();
    for (number, placed) in
        instances.iter_mut().filter(|(number, placed)| !stay.contains(number) && !placed.leaving)
    {
        let expelled =
            wish.expelled.is_some() && placed.release.as_ref().map(|of| of.number) == wish.expelled;
        if expelled {
            placed.leaving = true;
        } else if !ready.contains(number) {
            placed.leaving = replaced;
        } else if spare > 0 {
            placed.leaving = true;
            spare -= 1;
        }
    }
}

/// Finds places for what a group is missing.
fn fill(
    wish: &Wish<'_>,
    group: &Group,
    missing: usize,
    instances: &mut Instances,
    taken: &mut BTreeSet<(NodeName, u16)>,
    facts: &Facts<'_>,
) {
    for _ in 0..missing {
        let Some((node, port)) = best_place(wish, group, instances, taken, facts) else { return };
        // A number whose last bearer there has not ended yet would be taken for it.
        let is_free = |number: &u32| {
            !instances.contains_key(number) && (facts.copy)(wish.service, *number, &node).is_none()
        };
        let Some(number) = (1..=u32::MAX).find(is_free) else { return };
        taken.insert((node.clone(), port));
        let (release, share) = (group.release.clone(), group.share);
        instances.insert(number, Placed { node, port, renew: 0, leaving: false, release, share });
    }
}

fn is_ready(wish: &Wish<'_>, number: u32, placed: &Placed, facts: &Facts<'_>) -> bool {
    (facts.copy)(wish.service, number, &placed.node).is_some_and(|copy| copy.ready)
}

/// Even over sites, then over nodes, and each release by itself: what is left of the other one will go.
fn best_place(
    wish: &Wish<'_>,
    group: &Group,
    instances: &Instances,
    taken: &BTreeSet<(NodeName, u16)>,
    facts: &Facts<'_>,
) -> Option<(NodeName, u16)> {
    let site_of = |node: &NodeName| wish.allowed.iter().find(|(n, _)| *n == node).map(|(_, site)| *site);
    let counted = || instances.values().filter(|placed| !placed.leaving && placed.release == group.release);
    let on_node = |node: &NodeName| counted().filter(|placed| placed.node == *node).count();
    let in_site = |site: &SiteName| counted().filter(|placed| site_of(&placed.node) == Some(site)).count();
    let is_free =
        |node: &NodeName, port: u16| !taken.contains(&(node.clone(), port)) && !(facts.is_held)(node, port);
    let free = |node: &NodeName| wish.ports.iter().find(|port| is_free(node, **port)).copied();
    wish.allowed
        .iter()
        .filter_map(|(node, site)| Some((in_site(site), on_node(node), *node, free(node)?)))
        .min()
        .map(|(_, _, node, port)| (node.clone(), port))
}

/// Gives the next instance its turn to be replaced: one of a service at a time, and only while all others are ready.
/// `copies` says how each instance does; one that is not among them does not run.
pub fn renew(
    current: &Placement,
    generation: u64,
    copies: impl Fn(&ServiceName, u32, &NodeName) -> Option<Copy>,
) -> Option<(Placement, String)> {
    for (service, instances) in current {
        let known: Vec<(u32, &Placed, Option<Copy>)> = instances
            .iter()
            .map(|(number, placed)| (*number, placed, copies(service, *number, &placed.node)))
            .collect();
        let outdated = |copy: &Option<Copy>| copy.is_some_and(|copy| copy.outdated);
        let under_way = known.iter().any(|(_, placed, copy)| outdated(copy) && placed.renew >= generation);
        let all_ready = known.iter().all(|(_, _, copy)| copy.is_some_and(|copy| copy.ready));
        if under_way || !all_ready {
            continue;
        }
        if let Some((number, placed, _)) = known.iter().find(|(_, _, copy)| outdated(copy)) {
            let waiting = known.iter().filter(|(_, _, copy)| outdated(copy)).count();
            let mut next = current.clone();
            let turn = next.get_mut(service).and_then(|instances| instances.get_mut(number));
            turn?.renew = generation;
            let node = &placed.node;
            return Some((
                next,
                format!("{service}-{number} on {node} is replaced, {waiting} of {} wait", known.len()),
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests;
