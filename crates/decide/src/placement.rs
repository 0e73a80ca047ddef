//! On which node does each instance of a service run? Even over sites, then over nodes; an instance that runs stays.

use std::collections::{BTreeMap, BTreeSet};

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
}

/// All instances of all services: coordination key `placement`. The index of an instance is its number, from 1.
pub type Placement = BTreeMap<ServiceName, BTreeMap<u32, Placed>>;

/// One service to place.
pub struct Wish<'a> {
    /// Its name.
    pub service: &'a ServiceName,
    /// How many instances.
    pub instances: u32,
    /// Nodes that may run it, with their sites.
    pub allowed: Vec<(&'a NodeName, &'a SiteName)>,
    /// Ports that may be used.
    pub ports: Vec<u16>,
}

/// Places all wishes. Instances that `current` has on a usable node stay; nodes in `lost` are not usable.
pub fn decide(wishes: &[Wish<'_>], current: &Placement, lost: &BTreeSet<NodeName>) -> Placement {
    let mut taken: BTreeSet<(NodeName, u16)> = BTreeSet::new();
    let mut placement: Placement =
        wishes.iter().map(|wish| (wish.service.clone(), kept(wish, current, lost))).collect();
    for placed in placement.values().flat_map(BTreeMap::values) {
        taken.insert((placed.node.clone(), placed.port));
    }
    for wish in wishes {
        let instances = placement.entry(wish.service.clone()).or_default();
        for number in 1..=wish.instances {
            if !instances.contains_key(&number)
                && let Some(placed) = best_place(wish, instances, &taken, lost)
            {
                taken.insert((placed.node.clone(), placed.port));
                instances.insert(number, placed);
            }
        }
    }
    placement
}

/// One instance of a service, as far as its replacement goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Whether it takes requests.
    pub ready: bool,
    /// Whether it runs with what an older file said.
    pub outdated: bool,
}

/// Gives the next instance its turn to be replaced: one of a service at a time, and only while all others are ready.
/// `copies` says how each instance does; one that is not among them does not run.
pub fn renew(
    current: &Placement,
    generation: u64,
    copies: impl Fn(&ServiceName, u32, &Placed) -> Option<Copy>,
) -> Option<(Placement, String)> {
    for (service, instances) in current {
        let known: Vec<(u32, &Placed, Option<Copy>)> = instances
            .iter()
            .map(|(number, placed)| (*number, placed, copies(service, *number, placed)))
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

fn kept(wish: &Wish<'_>, current: &Placement, lost: &BTreeSet<NodeName>) -> BTreeMap<u32, Placed> {
    let usable = |placed: &Placed| {
        !lost.contains(&placed.node)
            && wish.ports.contains(&placed.port)
            && wish.allowed.iter().any(|(node, _)| **node == placed.node)
    };
    let running = current.get(wish.service).into_iter().flatten();
    running
        .filter(|(number, placed)| **number <= wish.instances && usable(placed))
        .map(|(number, placed)| (*number, placed.clone()))
        .collect()
}

fn best_place(
    wish: &Wish<'_>,
    instances: &BTreeMap<u32, Placed>,
    taken: &BTreeSet<(NodeName, u16)>,
    lost: &BTreeSet<NodeName>,
) -> Option<Placed> {
    let site_of = |node: &NodeName| wish.allowed.iter().find(|(n, _)| *n == node).map(|(_, site)| *site);
    let on_node = |node: &NodeName| instances.values().filter(|placed| placed.node == *node).count();
    let in_site =
        |site: &SiteName| instances.values().filter(|placed| site_of(&placed.node) == Some(site)).count();
    let free =
        |node: &NodeName| wish.ports.iter().find(|port| !taken.contains(&(node.clone(), **port))).copied();
    wish.allowed
        .iter()
        .filter(|(node, _)| !lost.contains(*node))
        .filter_map(|(node, site)| Some((in_site(site), on_node(node), *node, free(node)?)))
        .min()
        .map(|(_, _, node, port)| Placed { node: node.clone(), port, renew: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(instances: u32, current: &Placement, lost: &[&str]) -> Vec<String> {
        let (service, sites) = (ServiceName::from("web"), ["east", "west"].map(SiteName::from));
        let nodes = ["e1", "e2", "w1"].map(NodeName::from);
        let allowed = vec![(&nodes[0], &sites[0]), (&nodes[1], &sites[0]), (&nodes[2], &sites[1])];
        let wish = Wish { service: &service, instances, allowed, ports: vec![9000, 9001] };
        let lost = lost.iter().map(|n| NodeName::from(*n)).collect();
        let placement = decide(&[wish], current, &lost);
        placement[&service].iter().map(|(number, p)| format!("{number}@{}:{}", p.node, p.port)).collect()
    }

    fn current(places: &[(u32, &str, u16)]) -> Placement {
        let map = places
            .iter()
            .map(|(n, node, port)| (*n, Placed { node: (*node).into(), port: *port, renew: 0 }))
            .collect();
        BTreeMap::from([(ServiceName::from("web"), map)])
    }

    #[test]
    fn spreads_over_sites_first() {
        assert_eq!(place(3, &Placement::new(), &[]), ["1@e1:9000", "2@w1:9000", "3@e2:9000"]);
    }

    #[test]
    fn what_runs_stays_and_what_is_lost_moves() {
        let now = current(&[(1, "e1", 9000), (2, "w1", 9000), (3, "e2", 9000)]);
        assert_eq!(place(3, &now, &["w1"]), ["1@e1:9000", "2@e1:9001", "3@e2:9000"]);
        assert_eq!(place(2, &now, &[]), ["1@e1:9000", "2@w1:9000"]);
    }

    #[test]
    fn one_instance_is_replaced_at_a_time_and_only_while_the_others_are_ready() {
        let (old, new) = (Copy { ready: true, outdated: true }, Copy { ready: true, outdated: false });
        let gone = Copy { ready: false, outdated: false };
        let turn = |placement: &Placement, copies: [Option<Copy>; 3]| {
            let copy = |_: &ServiceName, number: u32, _: &Placed| copies[number as usize - 1];
            renew(placement, 7, copy).map(|(next, because)| {
                let turns = next["web"].iter().filter(|(_, placed)| placed.renew == 7);
                (turns.map(|(number, _)| *number).collect::<Vec<_>>(), because)
            })
        };
        let mut now = current(&[(1, "e1", 9000), (2, "w1", 9000), (3, "e2", 9000)]);
        let first = Some((vec![1], "web-1 on e1 is replaced, 3 of 3 wait".to_owned()));
        assert_eq!(turn(&now, [Some(old); 3]), first);
        now.get_mut("web").unwrap().get_mut(&1).unwrap().renew = 7;
        assert_eq!(turn(&now, [Some(old); 3]), None, "web-1 has its turn and has not ended yet");
        assert_eq!(turn(&now, [Some(gone), Some(old), Some(old)]), None);
        assert_eq!(turn(&now, [None, Some(old), Some(old)]), None);
        let second = Some((vec![1, 2], "web-2 on w1 is replaced, 2 of 3 wait".to_owned()));
        assert_eq!(turn(&now, [Some(new), Some(old), Some(old)]), second);
        assert_eq!(turn(&now, [Some(new); 3]), None);
    }

    #[test]
    fn places_nothing_where_no_port_is_free() {
        assert_eq!(place(9, &Placement::new(), &["e2", "w1"]), ["1@e1:9000", "2@e1:9001"]);
    }
}
