//! Sites and nodes.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;

use super::super::problem::Code;
use super::super::read::tables::NodeTable;
use super::super::read::{Address, At, Field, Named, Section, quoted};
use super::super::{DEFAULT_AGENT_PORT, Node, Site};
use super::{Check, MAX_NODES};
use crate::{LineName, NodeName, SiteName};

/// The line of a node that has a single `address`.
const MAIN: &str = "main";

/// Stands in for an address that could not be read.
const BROKEN: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// An address of a node and where it stands.
struct Placed<'c> {
    node: &'c str,
    line: &'c str,
    address: IpAddr,
    span: Range<usize>,
}

impl Check<'_, '_> {
    pub(super) fn sites(&mut self) -> BTreeMap<SiteName, Site> {
        let mut sites = BTreeMap::new();
        for entry in self.raw.sites.given().into_iter().flat_map(|section| &section.value.0) {
            self.check_name("site", &entry.name, &entry.span);
            let witness =
                entry.body.as_ref().and_then(|body| body.witness.given()).is_some_and(|at| at.value);
            sites.insert(SiteName::new(entry.name.clone()), Site { witness });
        }
        // Where the file describes no place for work there is one all the same.
        if sites.values().all(|site| site.witness) {
            sites.entry(MAIN.into()).or_insert_with(Site::default);
        }
        sites
    }

    pub(super) fn nodes(&mut self, sites: &BTreeMap<SiteName, Site>) -> BTreeMap<NodeName, Node> {
        let Some(section) = self.raw.nodes.given() else {
            return BTreeMap::new();
        };
        let entries = &section.value.0;
        if entries.len() > MAX_NODES {
            let count = entries.len();
            self.error(Code::TooMany, &entries[MAX_NODES].span, format!("{count} nodes are too many"))
                .why(format!(
                    "agents watch each other, each all the others; {MAX_NODES} are the most for one system"
                ))
                .hint("describe several systems, one file each");
            return BTreeMap::new();
        }
        let nodes = entries
            .iter()
            .map(|entry| (NodeName::new(entry.name.clone()), self.node(entry, sites)))
            .collect();
        self.check_addresses(entries);
        self.check_links(entries, &nodes);
        nodes
    }

    fn node(&mut self, entry: &Named<NodeTable>, sites: &BTreeMap<SiteName, Site>) -> Node {
        self.check_name("node", &entry.name, &entry.span);
        let default = NodeTable::default();
        let body = entry.body.as_ref().unwrap_or(&default);
        if entry.body.is_some() {
            self.check_has_address(entry, body);
        }
        let lines = lines(body);
        let agent_port = self.port(&body.agent_port, &format!("nodes.{}.agent_port", entry.name));
        Node {
            site: self.site_of_node(entry, body, sites),
            preferred_line: lines.first().map_or(MAIN.into(), |(line, _)| line.clone()),
            lines: lines.into_iter().collect(),
            voter: false,
            agent_port: agent_port.unwrap_or(DEFAULT_AGENT_PORT),
        }
    }

    fn site_of_node(
        &mut self,
        entry: &Named<NodeTable>,
        body: &NodeTable,
        sites: &BTreeMap<SiteName, Site>,
    ) -> SiteName {
        if let Some(at) = body.site.given() {
            // The site `main` may be named where it stands in for a description.
            if !sites.contains_key(&SiteName::new(at.value.clone())) {
                self.refers("site", at, &self.raw.sites);
            }
            return SiteName::new(at.value.clone());
        }
        let mut working = sites.iter().filter(|(_, site)| !site.witness).map(|(name, _)| name);
        let first = working.next().cloned().unwrap_or(MAIN.into());
        if body.site.is_absent() && working.next().is_some() && entry.body.is_some() {
            self.error(Code::MissingKey, &entry.span, format!("the node `{}` has no `site`", entry.name))
                .why("there are several sites, and what survives the loss of one depends on where each node stands")
                .paste("write for example", format!("site = {}", quoted(first.as_str())));
        }
        first
    }

    fn check_has_address(&mut self, entry: &Named<NodeTable>, body: &NodeTable) {
        let name = &entry.name;
        for line in body.lines.given().into_iter().flat_map(|section| &section.value.0) {
            self.check_name("line", &line.name, &line.span);
        }
        if let (Some(address), false) = (body.address.span(), body.lines.is_absent()) {
            self.error(
                Code::KeyWithoutEffect,
                address,
                format!("the node `{name}` has `address` and `lines`"),
            )
            .why("`address` is the short form for a node with one line")
            .hint("put this address under a name into `lines`, or remove it");
        }
        let no_lines = body.lines.is_absent() || body.lines.given().is_some_and(|at| at.value.0.is_empty());
        if body.address.is_absent() && no_lines {
            self.error(Code::MissingKey, &entry.span, format!("the node `{name}` has no `address`"))
                .why("the other nodes could not reach it")
                .paste("write", "address = \"10.0.1.11\"");
        }
    }

    /// No address may stand for two things.
    fn check_addresses(&mut self, entries: &[Named<NodeTable>]) {
        let mut seen: BTreeMap<IpAddr, Placed<'_>> = BTreeMap::new();
        for placed in entries.iter().flat_map(addresses) {
            let Some(first) = seen.get(&placed.address) else {
                seen.insert(placed.address, placed);
                continue;
            };
            let who = if first.node == placed.node {
                format!("the lines `{}` and `{}` of the node `{}`", first.line, placed.line, placed.node)
            } else {
                format!("the nodes `{}` and `{}`", first.node, placed.node)
            };
            self.error(
                Code::DuplicateAddress,
                &placed.span,
                format!("{who} have one address, {}", placed.address),
            )
            .why("each needs its own: a message to one would reach the other")
            .other(&first.span, "first used here");
        }
    }

    /// Every two nodes need a line in common, and a line one family of addresses.
    fn check_links(&mut self, entries: &[Named<NodeTable>], nodes: &BTreeMap<NodeName, Node>) {
        let mut families: BTreeMap<&str, Placed<'_>> = BTreeMap::new();
        for placed in entries.iter().flat_map(addresses) {
            let Some(first) = families.get(placed.line) else {
                families.insert(placed.line, placed);
                continue;
            };
            if first.address.is_ipv4() != placed.address.is_ipv4() {
                let line = placed.line;
                self.error(
                    Code::MixedFamilies,
                    &placed.span,
                    format!("the line `{line}` carries IPv4 and IPv6"),
                )
                .why(format!("`{}` and `{}` could not reach each other over it", first.node, placed.node))
                .hint("give the two families lines of their own")
                .other(&first.span, "the other family");
            }
        }
        for (i, a) in entries.iter().enumerate() {
            let stranger = entries[i + 1..].iter().find(|b| strangers(nodes, &a.name, &b.name));
            if let Some(b) = stranger {
                self.error(
                    Code::NoCommonLine,
                    &b.span,
                    format!("the nodes `{}` and `{}` share no line", a.name, b.name),
                )
                .why("nodes reach each other over lines of the same name only, so these two never could")
                .hint("give one of them an address on a line of the other")
                .other(&a.span, "the other node");
            }
        }
    }
}

/// Whether the two nodes are known to share no line.
fn strangers(nodes: &BTreeMap<NodeName, Node>, a: &str, b: &str) -> bool {
    let lines = |name: &str| {
        nodes.get(&NodeName::new(name)).map(|node| &node.lines).filter(|lines| !lines.is_empty())
    };
    match (lines(a), lines(b)) {
        (Some(a), Some(b)) => !a.keys().any(|line| b.contains_key(line)),
        (_, None) | (None, _) => false,
    }
}

/// The addresses of a node in the order of the file, the unreadable ones as [`BROKEN`].
fn lines(body: &NodeTable) -> Vec<(LineName, IpAddr)> {
    match (&body.lines, &body.address) {
        (Field::Given(At { value: Section(lines), .. }), _) => lines
            .iter()
            .map(|line| (LineName::new(line.name.clone()), line.body.map_or(BROKEN, |Address(ip)| ip)))
            .collect(),
        (Field::Absent, Field::Given(At { value: Address(ip), .. })) => vec![(MAIN.into(), *ip)],
        (Field::Absent | Field::Broken, _) => vec![],
    }
}

/// The readable addresses of a node with their places.
fn addresses(entry: &Named<NodeTable>) -> Vec<Placed<'_>> {
    let Some(body) = &entry.body else {
        return vec![];
    };
    let node = entry.name.as_str();
    let single = body.address.given().map(|at| (MAIN, at.value, &at.span));
    let several = body.lines.given().into_iter().flat_map(|section| &section.value.0);
    let several =
        several.filter_map(|line| line.body.map(|address| (line.name.as_str(), address, &line.span)));
    let placed = |(line, Address(address), span): (_, _, &Range<usize>)| Placed {
        node,
        line,
        address,
        span: span.clone(),
    };
    single.into_iter().chain(several).map(placed).collect()
}
