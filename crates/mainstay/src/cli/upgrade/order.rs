//! Whose turn it is.

use model::NodeName;

use crate::cli::status::view::View;

/// The next of the nodes that are left: those that neither lead nor hold a primary first, those with a primary last. Their
/// agents are away for a moment, and should something go wrong it has gone wrong elsewhere before.
pub(super) fn next(view: &View, is_left: impl Fn(&NodeName) -> bool) -> Option<NodeName> {
    let weight = |node: &NodeName| {
        let is_primary = view.overview.databases.values().any(|record| record.primary() == Some(node));
        (is_primary, view.overview.leader.as_ref() == Some(node))
    };
    view.system.nodes.keys().filter(|node| is_left(node)).min_by_key(|node| weight(node)).cloned()
}

#[cfg(test)]
mod tests {
    use super::super::super::testkit::{healthy, seen, shop};
    use super::*;

    #[test]
    fn the_primary_comes_last_and_the_leader_before_it() {
        let mut overview = healthy(&shop(), "e1");
        overview.leader = Some("w1".into());
        let view = seen(shop(), overview);
        let mut left: Vec<NodeName> = view.system.nodes.keys().cloned().collect();
        let mut turns = vec![];
        while let Some(node) = next(&view, |node| left.contains(node)) {
            left.retain(|other| *other != node);
            turns.push(node.to_string());
        }
        assert_eq!(turns.last().map(String::as_str), Some("e1"), "it holds the primary: {turns:?}");
        assert_eq!(turns[turns.len() - 2], "w1");
    }
}
