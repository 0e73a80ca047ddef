//! Cut links: silent in the directions asked for, with the carrier up at both ends.

use std::thread;
use std::time::Duration;

use effects::clock::now;
use model::{LineName, NodeName};

use super::Evidence;
use crate::error::{LabError, Result};
use crate::lab::Lab;
use crate::network::cut::{self, Silence};
use crate::network::{self, script};

/// Which way packets are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Nothing in, nothing out.
    Both,
    /// What the node sends is lost; it still hears the others.
    FromNode,
    /// What is sent to the node is lost; the others still hear it.
    ToNode,
}

/// Which of a node's links are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lines {
    /// All of them.
    All,
    /// Those on these lines.
    Only(Vec<LineName>),
}

/// What to cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutOptions {
    /// Which links.
    pub lines: Lines,
    /// Which way.
    pub direction: Direction,
    /// The cut ends by itself after this; `None`: it stays until it is healed.
    pub lasting: Option<Duration>,
}

/// A cut as the kernel reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveCut {
    /// The node whose link it is.
    pub node: NodeName,
    /// On this line.
    pub line: LineName,
    /// [`Direction::FromNode`] or [`Direction::ToNode`].
    pub direction: Direction,
    /// The other node when only packets between two are dropped.
    pub peer: Option<NodeName>,
    /// Packets dropped so far.
    pub packets: u64,
    /// When it ends by itself.
    pub expires: Option<Duration>,
}

impl CutOptions {
    /// Everything from and to the node, until it is healed.
    pub fn whole() -> Self {
        Self { lines: Lines::All, direction: Direction::Both, lasting: None }
    }

    /// The same, ending by itself.
    #[must_use]
    pub fn lasting(mut self, time: Duration) -> Self {
        self.lasting = Some(time);
        self
    }

    /// The same in one direction only.
    #[must_use]
    pub fn only(mut self, direction: Direction) -> Self {
        self.direction = direction;
        self
    }

    /// The same on some lines only.
    #[must_use]
    pub fn on(mut self, lines: impl IntoIterator<Item = LineName>) -> Self {
        self.lines = Lines::Only(lines.into_iter().collect());
        self
    }
}

impl Lab {
    /// Cuts a node's links, all at one instant.
    pub fn cut_node(&self, node: &NodeName, options: &CutOptions) -> Result<Evidence> {
        self.need_namespaces("cutting links")?;
        let silences = self.silences(node, &options.lines, options.direction)?;
        let begun = now();
        cut::cut(&network::switch(self.system()), &silences, options.lasting)?;
        let until = match options.lasting {
            Some(time) => format!("for {time:?}"),
            None => "until healed".to_owned(),
        };
        Ok(Evidence::since(begun, format!("the switch drops {} {until}", describe(&silences, node))))
    }

    /// Cuts what goes directly between two nodes, in both directions, on all lines they share.
    pub fn cut_between(
        &self,
        one: &NodeName,
        other: &NodeName,
        lasting: Option<Duration>,
    ) -> Result<Evidence> {
        self.need_namespaces("cutting links")?;
        let silences = self.between(one, other)?;
        let begun = now();
        cut::cut(&network::switch(self.system()), &silences, lasting)?;
        Ok(Evidence::since(begun, format!("the switch drops what {one} and {other} send each other")))
    }

    /// Cuts a node off for a moment, by the kernel's clock, and returns in the middle of it with what was dropped so far.
    pub fn blip(&self, node: &NodeName, lasting: Duration) -> Result<Evidence> {
        let cut = self.cut_node(node, &CutOptions::whole().lasting(lasting))?;
        thread::sleep(lasting / 2);
        let of_node = |cut: &ActiveCut| cut.node == *node && cut.peer.is_none();
        let dropped: u64 = self.cuts()?.iter().filter(|cut| of_node(cut)).map(|cut| cut.packets).sum();
        // Without a dropped packet nothing is proved.
        let what =
            if dropped == 0 { String::new() } else { format!("{}: {dropped} packets so far", cut.what) };
        Ok(Evidence::since(cut.begun, what))
    }

    /// Cuts nodes from every other node at one instant; they still reach each other, and outside clients reach all.
    pub fn separate_nodes(&self, nodes: &[NodeName], lasting: Duration) -> Result<Evidence> {
        self.need_namespaces("cutting links")?;
        let others: Vec<NodeName> =
            self.nodes().map(|(name, _)| name.clone()).filter(|name| !nodes.contains(name)).collect();
        let pairs = nodes.iter().flat_map(|node| others.iter().map(move |other| self.between(node, other)));
        let silences = pairs.collect::<Result<Vec<_>>>()?.concat();
        let begun = now();
        cut::cut(&network::switch(self.system()), &silences, Some(lasting))?;
        let names: Vec<&str> = nodes.iter().map(NodeName::as_str).collect();
        let what = format!("the switch drops what {} and other nodes send each other", names.join(" and "));
        Ok(Evidence::since(begun, what))
    }

    /// Ends all cuts of a node, whoever made them; tells how many packets they had dropped.
    pub fn heal_node(&self, node: &NodeName) -> Result<Evidence> {
        self.need_namespaces("healing links")?;
        let ports = self.ports(node, &Lines::All)?;
        let touches = |silence: &Silence| match silence {
            Silence::From(port) | Silence::To(port) => ports.contains(port),
            Silence::Between(from, to) => ports.contains(from) || ports.contains(to),
        };
        let switch = network::switch(self.system());
        let begun = now();
        let active = cut::active(&switch)?;
        let dropped: u64 = active.iter().filter(|(s, _)| touches(s)).map(|(_, d)| d.packets).sum();
        let silences: Vec<Silence> = active.into_iter().map(|(s, _)| s).filter(touches).collect();
        cut::heal(&switch, &silences)?;
        let what = format!("{} cuts of {node} healed after {dropped} dropped packets", silences.len());
        Ok(Evidence::since(begun, what))
    }

    /// Ends all cuts.
    pub fn heal_all(&self) -> Result<()> {
        self.need_namespaces("healing links")?;
        let switch = network::switch(self.system());
        let silences: Vec<Silence> = cut::active(&switch)?.into_iter().map(|(silence, _)| silence).collect();
        cut::heal(&switch, &silences)
    }

    /// All cuts at this moment, with what they have dropped.
    pub fn cuts(&self) -> Result<Vec<ActiveCut>> {
        self.need_namespaces("cutting links")?;
        let active = cut::active(&network::switch(self.system()))?;
        let report = |(silence, dropped): (Silence, cut::Counted)| {
            let (port, direction, peer) = match &silence {
                Silence::From(port) => (port, Direction::FromNode, None),
                Silence::To(port) => (port, Direction::ToNode, None),
                Silence::Between(from, to) => (from, Direction::FromNode, self.owner(to)),
            };
            let (node, line) = self.owner(port)?;
            let peer = peer.map(|(peer, _)| peer);
            Some(ActiveCut {
                node,
                line,
                direction,
                peer,
                packets: dropped.packets,
                expires: dropped.expires,
            })
        };
        Ok(active.into_iter().filter_map(report).collect())
    }

    // ---- ports ----

    fn silences(&self, node: &NodeName, lines: &Lines, direction: Direction) -> Result<Vec<Silence>> {
        let ports = self.ports(node, lines)?;
        let from = ports.iter().cloned().map(Silence::From);
        let to = ports.iter().cloned().map(Silence::To);
        Ok(match direction {
            Direction::Both => from.chain(to).collect(),
            Direction::FromNode => from.collect(),
            Direction::ToNode => to.collect(),
        })
    }

    fn between(&self, one: &NodeName, other: &NodeName) -> Result<Vec<Silence>> {
        let (one, other) = (self.node(one)?, self.node(other)?);
        let shared = script::ports(self.manifest(), one).flat_map(|(line, port)| {
            let meets = move |(its, _): &(usize, String)| *its == line;
            let peer = script::ports(self.manifest(), other).find(meets).map(|(_, peer)| peer);
            peer.map(|peer| [Silence::Between(port.clone(), peer.clone()), Silence::Between(peer, port)])
        });
        Ok(shared.flatten().collect())
    }

    pub(super) fn ports(&self, node: &NodeName, lines: &Lines) -> Result<Vec<String>> {
        let record = self.node(node)?;
        let wanted = |line: usize| match lines {
            Lines::All => true,
            Lines::Only(names) => names.contains(&self.manifest().lines[line].name),
        };
        let ports: Vec<String> = script::ports(self.manifest(), record)
            .filter(|(line, _)| wanted(*line))
            .map(|(_, port)| port)
            .collect();
        if ports.is_empty() {
            let why = format!("node {node} has no link on {lines:?}");
            return Err(LabError::NotPossible { what: "cutting links".to_owned(), why });
        }
        Ok(ports)
    }

    pub(super) fn owner(&self, port: &str) -> Option<(NodeName, LineName)> {
        self.nodes().find_map(|(name, node)| {
            let (line, _) = script::ports(self.manifest(), node).find(|(_, known)| known == port)?;
            Some((name.clone(), self.manifest().lines[line].name.clone()))
        })
    }
}

fn describe(silences: &[Silence], node: &NodeName) -> String {
    let from = silences.iter().any(|s| matches!(s, Silence::From(_)));
    let to = silences.iter().any(|s| matches!(s, Silence::To(_)));
    match (from, to) {
        (true, true) => format!("everything from and to {node}"),
        (true, false) => format!("everything from {node}"),
        (false, _) => format!("everything to {node}"),
    }
}
