//! What this node tells the others, and what it tells a person who asks.

use std::collections::{BTreeMap, BTreeSet};

use model::leadership::Leadership;
use model::release::Releases;
use model::routes::{InstanceEndpoint, ProxyReport, RouteTable};
use model::status::{MemberStatus, NodeStatus, PeerMessage, ProgramNote, ServicesState, Silence};
use model::upkeep::Upkeep;
use model::{DatabaseName, LineName, NodeName, ServiceName, SystemName};
use serde::{Deserialize, Serialize};

use super::{Agent, Command, Scaled};

/// Everything one agent knows about the system: the answer to `mainstay status --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overview {
    /// The system.
    pub system: SystemName,
    /// The node that answers.
    pub node: NodeName,
    /// Which run of its agent answers.
    #[serde(default)]
    pub incarnation: u64,
    /// The node that leads, as far as it knows.
    pub leader: Option<NodeName>,
    /// The generation of the system file in force on it.
    pub generation: u64,
    /// Why the automation is paused, if it is.
    pub paused: Option<String>,
    /// Every node.
    pub nodes: BTreeMap<NodeName, NodeSummary>,
    /// The leadership record of every database that has one.
    pub databases: BTreeMap<DatabaseName, Leadership>,
    /// Every member of every database, as its own agent described it last.
    pub members: BTreeMap<DatabaseName, BTreeMap<NodeName, MemberSummary>>,
    /// What this node's proxy should serve.
    pub routes: RouteTable,
    /// What this node's proxy has seen of its routes.
    #[serde(default)]
    pub traffic: ProxyReport,
    /// What operators have asked for beyond the file.
    #[serde(default)]
    pub upkeep: Upkeep,
    /// The releases of services.
    #[serde(default)]
    pub releases: Releases,
    /// How services are scaled by their load; the node that leads knows it.
    #[serde(default)]
    pub scaled: BTreeMap<ServiceName, Scaled>,
    /// The sentence that holds now for each question that was decided on the answering node.
    pub because: BTreeMap<String, String>,
}

/// One node as the answering one sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSummary {
    /// Whether and how it is silent; `None` when it is heard.
    pub silent: Option<Silence>,
    /// Whether it was ever heard since the answering agent started.
    pub heard: bool,
    /// Lines on which a connection to it is up.
    pub lines: BTreeSet<LineName>,
    /// Protections it lacks, in words.
    pub missing: Vec<String>,
    /// Its service instances.
    pub instances: Vec<InstanceEndpoint>,
    /// The generation of the system file it runs.
    pub generation: u64,
    /// How far its service instances are with it.
    #[serde(default)]
    pub services: ServicesState,
    /// The program that it runs.
    #[serde(default)]
    pub program: ProgramNote,
}

/// One member as its own agent described it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberSummary {
    /// Its status.
    #[serde(flatten)]
    pub status: MemberStatus,
    /// Whether its node is silent, so that this may be old.
    pub stale: bool,
}

impl Agent {
    /// Tells all peers when the own status has changed.
    pub(super) fn publish_status(&mut self, commands: &mut Vec<Command>) {
        let load = self.told_load();
        let next = NodeStatus {
            node: self.me.clone(),
            incarnation: self.incarnation,
            version: self.status.version,
            members: self.own.iter().map(|(name, own)| (name.clone(), own.status())).collect(),
            instances: self.instances.clone(),
            silent: self.silent_peers(),
            missing: self.missing.values().cloned().collect(),
            routes_applied: self.routes_applied,
            drained: self.drained.clone(),
            generation: self.generation,
            services: self.services.clone(),
            routed: self.routed.revision,
            carrying: self.carrying(),
            artefacts: self.artefacts.clone(),
            traffic: self.traffic(),
            load,
            program: self.program.clone(),
        };
        if next != self.status {
            self.status = NodeStatus { version: self.status.version + 1, ..next };
            self.broadcast(&PeerMessage::Status(Box::new(self.status.clone())), commands);
        }
    }

    /// Everything this node knows.
    pub fn overview(&self) -> Overview {
        Overview {
            system: self.system.name.clone(),
            node: self.me.clone(),
            incarnation: self.incarnation,
            leader: self.leader.clone(),
            generation: self.generation,
            paused: self.paused.clone(),
            nodes: self.system.nodes.keys().map(|node| (node.clone(), self.node_summary(node))).collect(),
            databases: self
                .records
                .iter()
                .map(|(name, stored)| (name.clone(), stored.value.clone()))
                .collect(),
            members: self
                .system
                .databases
                .keys()
                .map(|name| (name.clone(), self.member_summaries(name)))
                .collect(),
            routes: self.table.clone(),
            // The agent knows it from the proxy; no decision depends on it.
            traffic: ProxyReport::default(),
            upkeep: self.upkeep.clone(),
            releases: self.releases.value.clone(),
            scaled: self.scaled(),
            because: self.sentences().map(|(subject, text)| (subject.to_owned(), text.to_owned())).collect(),
        }
    }

    fn node_summary(&self, node: &NodeName) -> NodeSummary {
        let peer = self.peers.get(node);
        let status =
            if *node == self.me { Some(&self.status) } else { peer.and_then(|peer| peer.status.as_ref()) };
        NodeSummary {
            silent: peer.and_then(|peer| peer.silence(self.now)),
            heard: *node == self.me || peer.is_some_and(|peer| peer.was_heard(self.now)),
            lines: self.lines_up(node),
            missing: status.map(|status| status.missing.clone()).unwrap_or_default(),
            instances: status.and_then(|status| status.instances.clone()).unwrap_or_default(),
            generation: status.map_or(0, |status| status.generation),
            services: status.map(|status| status.services.clone()).unwrap_or_default(),
            program: status.map(|status| status.program.clone()).unwrap_or_default(),
        }
    }

    fn member_summaries(&self, database: &DatabaseName) -> BTreeMap<NodeName, MemberSummary> {
        let silent =
            |node: &NodeName| self.peers.get(node).is_some_and(|peer| peer.silence(self.now).is_some());
        let others = super::member::said(&self.peers, database);
        let mut members: BTreeMap<_, _> = others
            .map(|(node, status)| {
                (node.clone(), MemberSummary { status: status.clone(), stale: silent(node) })
            })
            .collect();
        if let Some(own) = self.own.get(database) {
            members.insert(self.me.clone(), MemberSummary { status: own.status(), stale: false });
        }
        members
    }
}
