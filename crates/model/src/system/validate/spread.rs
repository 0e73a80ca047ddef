//! Choosing some nodes so that the loss of one site takes as few of them as possible.

use std::collections::BTreeMap;

use crate::{NodeName, SiteName};

/// Adds nodes from `candidates` to `chosen` until there are `count`: always from the site with the fewest chosen ones,
/// and among equals the first in the list.
pub(super) fn spread(
    mut chosen: Vec<NodeName>,
    candidates: &[(NodeName, SiteName)],
    count: usize,
    sites: &BTreeMap<NodeName, SiteName>,
) -> Vec<NodeName> {
    while chosen.len() < count {
        let weight = |site: &SiteName| chosen.iter().filter(|node| sites.get(*node) == Some(site)).count();
        let free = candidates.iter().filter(|(node, _)| !chosen.contains(node));
        let Some((node, _)) = free.min_by_key(|(_, site)| weight(site)) else {
            break;
        };
        chosen.push(node.clone());
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sites_are_filled_in_turn() {
        let candidates: Vec<(NodeName, SiteName)> =
            [("e1", "east"), ("e2", "east"), ("e3", "east"), ("w1", "west"), ("n1", "north")]
                .map(|(node, site)| (node.into(), site.into()))
                .to_vec();
        let sites = candidates.iter().cloned().collect();
        let three = spread(vec![], &candidates, 3, &sites);
        assert_eq!(three, ["e1", "w1", "n1"].map(NodeName::from));
        let with_e2 = spread(vec!["e2".into()], &candidates, 3, &sites);
        assert_eq!(with_e2, ["e2", "w1", "n1"].map(NodeName::from));
        assert_eq!(spread(vec![], &candidates, 9, &sites).len(), 5);
    }
}
