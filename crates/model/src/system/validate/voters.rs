//! Who votes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::super::problem::Code;
use super::super::{Coordination, System};
use super::spread::spread;
use super::{Check, list};
use crate::{NodeName, SiteName};

/// More voters than this are not chosen, only accepted: every vote waits for a majority of them.
const CHOSEN: usize = 5;

impl Check<'_, '_> {
    /// Fills in who votes: the nodes that say so and, for the rest, an odd number spread over the sites.
    pub(super) fn choose_voters(&mut self, system: &mut System) {
        if system.coordination != Coordination::Embedded || system.nodes.is_empty() {
            return;
        }
        let mut wishes: BTreeMap<NodeName, bool> = BTreeMap::new();
        for entry in self.raw.nodes.given().into_iter().flat_map(|section| &section.value.0) {
            if let Some(voter) = entry.body.as_ref().and_then(|body| body.voter.given()) {
                wishes.insert(NodeName::new(entry.name.clone()), voter.value);
            }
        }
        let voters = self.voters(system, &wishes);
        for (name, node) in &mut system.nodes {
            node.voter = voters.contains(name);
        }
        self.check_voters(system, &voters);
    }

    fn voters(&self, system: &System, wishes: &BTreeMap<NodeName, bool>) -> BTreeSet<NodeName> {
        let pinned: Vec<NodeName> =
            wishes.iter().filter(|(_, wish)| **wish).map(|(name, _)| name.clone()).collect();
        let open = |name: &NodeName| !wishes.contains_key(name);
        let votes_now =
            |name: &NodeName| self.running.is_some_and(|s| s.nodes.get(name).is_some_and(|n| n.voter));
        let mut candidates: Vec<(NodeName, SiteName)> =
            self.nodes_in_order(system).into_iter().filter(|(name, _)| open(name)).collect();
        // Nodes of a witness site exist to vote; those that vote already keep their vote.
        candidates.sort_by_key(|(name, _)| (!votes_now(name), !system.is_witness(name)));
        let count = match pinned.len() + candidates.len() {
            // Two nodes cannot be put right by choosing; the check says what to do.
            few @ 0..=2 => few,
            many => (many.min(CHOSEN) - 1) / 2 * 2 + 1,
        };
        let sites = system.nodes.iter().map(|(name, node)| (name.clone(), node.site.clone())).collect();
        let kept: BTreeSet<NodeName> = pinned
            .iter()
            .cloned()
            .chain(candidates.iter().map(|(n, _)| n.clone()).filter(votes_now))
            .collect();
        if kept.len() == count {
            return kept;
        }
        // An even number of wishes is made odd where another node may be asked.
        let count = if pinned.len() > count { pinned.len() | 1 } else { count };
        spread(pinned, &candidates, count, &sites).into_iter().collect()
    }

    /// The nodes in the order of the file.
    pub(super) fn nodes_in_order(&self, system: &System) -> Vec<(NodeName, SiteName)> {
        let names = self.raw.nodes.given().into_iter().flat_map(|section| section.value.names());
        names
            .map(NodeName::new)
            .filter_map(|name| system.nodes.get(&name).map(|node| (name, node.site.clone())))
            .collect()
    }

    /// Where the name of `node` stands.
    pub(super) fn span_of_node(&self, node: &NodeName) -> Range<usize> {
        let entries = self.raw.nodes.given().into_iter().flat_map(|section| &section.value.0);
        entries
            .filter(|entry| entry.name == node.as_str())
            .map(|entry| entry.span.clone())
            .next()
            .unwrap_or(0..0)
    }

    fn check_voters(&mut self, system: &System, voters: &BTreeSet<NodeName>) {
        let count = voters.len();
        let names = list(voters.iter().map(NodeName::as_str));
        let Some(last) = voters.last() else {
            let span = self.raw.nodes.span().cloned().unwrap_or(0..0);
            self.error(Code::EvenVoters, &span, "no node votes")
                .why("agents agree by the votes of a majority, and there is nobody to vote")
                .hint("remove `voter = false` from one or three nodes");
            return;
        };
        let span = self.span_of_node(last);
        if count.is_multiple_of(2) {
            self.report_even(count, &names, last, &span);
        } else if count == 1 {
            self.warning(Code::SingleVoter, &span, format!("only `{last}` votes"))
                .why("while it is away nothing is decided: no failover, no change of a route or a service")
                .hint("let three nodes vote, best in three sites");
        } else {
            if count > 7 {
                self.warning(Code::ManyVoters, &span, format!("{count} nodes vote"))
                    .why("every vote waits for a majority of them; five survive the loss of any two")
                    .hint("let five nodes vote");
            }
            self.check_majority(system, voters);
        }
    }

    fn report_even(&mut self, count: usize, names: &str, last: &NodeName, span: &Range<usize>) {
        let entries = self.raw.nodes.given().into_iter().flat_map(|section| &section.value.0);
        let said = entries
            .filter(|entry| entry.name == last.as_str())
            .find_map(|entry| entry.body.as_ref().and_then(|body| body.voter.span()));
        let paste = said.map(|span| self.findings.line_with(span, "false"));
        let problem = self
            .error(Code::EvenVoters, said.unwrap_or(span), format!("an even number of nodes votes: {names}"))
            .why(format!(
                "a majority of {count} is {}, so the last voter adds a way to fail and no safety; \
                 cut in halves, neither half could decide",
                count / 2 + 1
            ));
        match paste {
            Some(paste) if count > 2 => problem.paste("let one of them not vote", paste),
            Some(_) | None => {
                let witness = "[sites.witness]\nwitness = true\n[nodes.v1]\nsite = \"witness\"\naddress = \"10.0.9.11\"";
                problem.paste("add a small machine elsewhere that only votes", witness)
            }
        };
    }

    /// With several sites, none should be able to stop the others by its absence.
    fn check_majority(&mut self, system: &System, voters: &BTreeSet<NodeName>) {
        if system.sites.len() < 2 {
            return;
        }
        for site in system.sites.keys() {
            let here: Vec<&NodeName> =
                voters.iter().filter(|voter| system.site_of(voter) == Some(site)).collect();
            let Some(first) = here.first().filter(|_| here.len() * 2 > voters.len()) else {
                continue;
            };
            let (count, of) = (here.len(), voters.len());
            let span = self.span_of_node(first);
            self.warning(
                Code::MajorityInOneSite,
                &span,
                format!("{count} of {of} voters stand in the site `{site}`"),
            )
            .why(format!("when `{site}` is lost, the others have no majority and cannot take over"))
            .hint(
                "spread the voters so that no site has more than half of them; a third site may be a witness",
            );
        }
    }
}
