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
        .map(|(_, _, node, port)| Placed { node: node.clone(), port })
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
        let map =
            places.iter().map(|(n, node, port)| (*n, Placed { node: (*node).into(), port: *port })).collect();
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
    fn places_nothing_where_no_port_is_free() {
        assert_eq!(place(9, &Placement::new(), &["e2", "w1"]), ["1@e1:9000", "2@e1:9001"]);
    }
}
