//! One picture of a system from the answers of several agents.

use std::collections::{BTreeMap, BTreeSet};

use decide::agent::{MemberSummary, NodeSummary, Overview};
use model::leadership::Leadership;
use model::routes::{
    DatabaseRouteState, InstanceEndpoint, InstanceRouteState, ProxyReport, RouteTable, RouteTarget,
};
use model::status::{InstanceNote, PrimaryFacts, Server, Silence, Tenure};
use model::system::{self, Coordination, Durability, Role, System};
use model::{DatabaseName, NodeName, RouteName, ServiceName};

/// What is known about a running system.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// What its file says.
    pub(crate) system: System,
    /// What its agents say, mostly the one that knows best (`overview.node`).
    pub(crate) overview: Overview,
    /// What each answering node's proxy should serve.
    pub(crate) tables: BTreeMap<NodeName, RouteTable>,
    /// What each answering node's proxy has seen of its routes.
    pub(crate) traffic: BTreeMap<NodeName, ProxyReport>,
}

/// How a node is heard by the one that knows best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It is.
    Yes,
    /// Its agent has closed all connections.
    AgentGone,
    /// It fell silent.
    Silent,
    /// It has not been heard since the other one's agent started.
    Never,
    /// The others do not hear it, but it answers on this machine.
    CutOff,
}

impl View {
    /// Makes one picture of all answers; `None` when there is none.
    pub(crate) fn compose(system: System, answers: BTreeMap<NodeName, Overview>) -> Option<Self> {
        let best = best(answers.values())?;
        let mut overview = answers.get(&best)?.clone();
        let leader = overview.leader.clone();
        overview.because.retain(|key, _| is_said_by(key, &best, leader.as_ref()));
        for (node, answer) in answers.iter().filter(|(node, _)| **node != best) {
            take_over(&mut overview, node, answer);
        }
        if let Some(answer) = leader.as_ref().and_then(|leader| answers.get(leader)) {
            overview.scaled.clone_from(&answer.scaled);
        }
        let seen = |(node, answer): (&NodeName, &Overview)| (node.clone(), answer.traffic.clone());
        let traffic = answers.iter().map(seen).collect();
        let tables = answers.into_iter().map(|(node, answer)| (node, answer.routes)).collect();
        Some(Self { system, overview, tables, traffic })
    }

    // ---- nodes ----

    /// How `node` is heard.
    pub(crate) fn heard(&self, node: &NodeName) -> Heard {
        if *node == self.overview.node {
            return Heard::Yes;
        }
        let heard = match self.overview.nodes.get(node) {
            Some(NodeSummary { heard: false, .. }) | None => Heard::Never,
            Some(NodeSummary { silent: Some(Silence::Silent), .. }) => Heard::Silent,
            Some(NodeSummary { silent: Some(Silence::Closed), .. }) => Heard::AgentGone,
            Some(NodeSummary { silent: None, .. }) => Heard::Yes,
        };
        if heard != Heard::Yes && self.tables.contains_key(node) { Heard::CutOff } else { heard }
    }

    /// Whether `node` takes part.
    pub(crate) fn is_here(&self, node: &NodeName) -> bool {
        self.heard(node) == Heard::Yes
    }

    /// How many voters make a majority; `None` when etcd coordinates.
    pub(crate) fn quorum(&self) -> Option<usize> {
        match self.system.coordination {
            Coordination::Embedded => Some(self.system.voters().count() / 2 + 1),
            Coordination::Etcd(_) => None,
        }
    }

    /// The voters that would be there without `lost`.
    pub(crate) fn voters_without(&self, lost: &BTreeSet<NodeName>) -> usize {
        self.system.voters().filter(|node| self.is_here(node) && !lost.contains(*node)).count()
    }

    /// Whether something could be decided without `lost`.
    pub(crate) fn decides_without(&self, lost: &BTreeSet<NodeName>) -> bool {
        self.quorum().is_none_or(|quorum| self.voters_without(lost) >= quorum)
    }

    // ---- databases ----

    /// How many standbys must confirm a commit.
    pub(crate) fn confirmations(&self, database: &DatabaseName) -> usize {
        let config = self.system.databases.get(database);
        config.map_or(0, |config| match config.durability {
            Durability::ZeroLoss => usize::try_from(config.sync).unwrap_or(usize::MAX),
            Durability::Async { .. } => 0,
        })
    }

    /// The leadership record.
    pub(crate) fn record(&self, database: &DatabaseName) -> Option<&Leadership> {
        self.overview.databases.get(database)
    }

    /// The members that the file names.
    pub(crate) fn members(&self, database: &DatabaseName) -> &[NodeName] {
        self.system.databases.get(database).map_or(&[], |config| &config.members)
    }

    /// What a member's agent said last.
    pub(crate) fn member(&self, database: &DatabaseName, node: &NodeName) -> Option<&MemberSummary> {
        self.overview.members.get(database)?.get(node)
    }

    /// The primary by the record, with its facts when it serves as one in the record's term.
    pub(crate) fn serving(&self, database: &DatabaseName) -> Option<(&NodeName, &PrimaryFacts, &Tenure)> {
        let record = self.record(database)?;
        let primary = record.primary()?;
        let status = &self.member(database, primary)?.status;
        let tenure = status.tenure.as_ref().filter(|tenure| tenure.term == record.term)?;
        match &status.server {
            Server::Primary(facts) => Some((primary, facts, tenure)),
            Server::Unknown
            | Server::Empty
            | Server::Stopped { .. }
            | Server::Busy { .. }
            | Server::Standby(_)
            | Server::Sick { .. } => None,
        }
    }

    /// Whether a standby receives log from the primary now.
    pub(crate) fn streams(&self, database: &DatabaseName, node: &NodeName) -> bool {
        match self.serving(database).and_then(|(_, facts, _)| facts.standbys.get(node)) {
            Some(link) => link.streaming && self.heard(node) != Heard::Silent,
            None => {
                let server = self.member(database, node).map(|member| &member.status.server);
                self.is_here(node) && matches!(server, Some(Server::Standby(facts)) if facts.streaming)
            }
        }
    }

    /// The members of the sync set that can confirm commits now.
    pub(crate) fn confirming(&self, database: &DatabaseName) -> BTreeSet<NodeName> {
        let set = self.record(database).map(|record| &record.sync.members);
        set.into_iter().flatten().filter(|node| self.streams(database, node)).cloned().collect()
    }

    /// Whether a member could say what it holds, so that the primary can be revoked.
    pub(crate) fn can_report(&self, database: &DatabaseName, node: &NodeName) -> bool {
        let Some(member) = self.member(database, node).filter(|_| self.is_here(node)) else { return false };
        match member.status.server {
            Server::Standby(_) | Server::Stopped { .. } | Server::Primary(_) => {
                member.status.trouble.is_none()
            }
            Server::Unknown | Server::Empty | Server::Busy { .. } | Server::Sick { .. } => false,
        }
    }

    /// The sentence that holds for a question, such as `database/orders leadership`.
    pub(crate) fn because(&self, question: &str) -> Option<&str> {
        self.overview.because.get(question).map(String::as_str)
    }

    /// The nodes that take part and whose proxies let new clients of the primary wait, with the reason.
    pub(crate) fn parked(&self, database: &DatabaseName) -> Vec<(NodeName, String)> {
        let leads = |name: &RouteName| {
            self.system.routes.get(name).is_some_and(|route| match &route.target {
                system::RouteTarget::Database { database: to, role } => {
                    to == database && *role == Role::Primary
                }
                system::RouteTarget::Service { .. } => false,
            })
        };
        let why = |table: &RouteTable| {
            table.routes.iter().filter(|route| leads(&route.name)).find_map(|route| match &route.target {
                RouteTarget::Database(target) => match &target.state {
                    DatabaseRouteState::Parked { because } => Some(because.clone()),
                    DatabaseRouteState::Open { .. } | DatabaseRouteState::Draining { .. } => None,
                },
                RouteTarget::Service(_) => None,
            })
        };
        let here = self.tables.iter().filter(|(node, _)| self.is_here(node));
        here.filter_map(|(node, table)| Some((node.clone(), why(table)?))).collect()
    }

    // ---- services ----

    /// All instances of a service, those of silent nodes as gone.
    pub(crate) fn instances(&self, service: &ServiceName) -> Vec<InstanceEndpoint> {
        let of = |instance: &&InstanceEndpoint| service_of(&instance.id) == Some(service.as_str());
        let gone = |node: &NodeName| !matches!(self.heard(node), Heard::Yes | Heard::AgentGone);
        let all = self.overview.nodes.iter().flat_map(|(node, summary)| {
            summary.instances.iter().filter(of).cloned().map(move |instance| match gone(node) {
                true => InstanceEndpoint { state: InstanceRouteState::Gone, ..instance },
                false => instance,
            })
        });
        let mut all: Vec<InstanceEndpoint> = all.collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// How many instances of a service shall run: by an operator's word, by its release, by its load, or by the file.
    pub(crate) fn wanted(&self, service: &ServiceName) -> u32 {
        let written = self.system.services.get(service).map_or(0, |config| config.instances);
        if self.overview.upkeep.scaled.contains_key(service) {
            return self.overview.upkeep.instances(service, written);
        }
        let rollout = self.overview.releases.get(service).and_then(|service| service.rollout.as_ref());
        let agreed = rollout.and_then(|rollout| rollout.instances);
        let by_load = self.overview.scaled.get(service).map(|scaled| scaled.wanted);
        agreed.or(by_load).unwrap_or(written)
    }

    /// What the supervisor of an instance says of it, on a node that is heard.
    pub(crate) fn note(&self, instance: &InstanceEndpoint) -> Option<&InstanceNote> {
        let node = self.overview.nodes.get(&instance.node).filter(|_| self.is_here(&instance.node))?;
        node.services.notes.get(&instance.id)
    }

    /// Whether a service cannot run before its first release.
    pub(crate) fn waits_for_release(&self, service: &ServiceName) -> bool {
        let needs = self.system.services.get(service).is_some_and(system::Service::needs_release);
        let released = self.overview.releases.get(service);
        needs && released.is_none_or(|service| service.current.is_none() && service.rollout.is_none())
    }

    /// The instances of a service that take requests.
    pub(crate) fn ready(&self, service: &ServiceName) -> Vec<InstanceEndpoint> {
        let all = self.instances(service).into_iter();
        all.filter(|instance| instance.state == InstanceRouteState::Ready).collect()
    }
}

/// The service of an instance such as `web-2@e1`.
pub(crate) fn service_of(id: &str) -> Option<&str> {
    Some(id.split('@').next()?.rsplit_once('-')?.0)
}

/// The node that knows best: the highest terms, then the one that leads, then the one that hears most.
fn best<'o>(answers: impl Iterator<Item = &'o Overview>) -> Option<NodeName> {
    let rank = |answer: &Overview| {
        let terms: u64 = answer.databases.values().map(|record| record.term.0).sum();
        let leads = answer.leader.as_ref() == Some(&answer.node);
        let heard = answer.nodes.values().filter(|node| node.heard && node.silent.is_none()).count();
        (answer.generation, terms, leads, heard)
    };
    answers.max_by_key(|answer| rank(answer)).map(|answer| answer.node.clone())
}

/// Whether a sentence is `node`'s own to say. What a former leader said about leaderships is over.
fn is_said_by(key: &str, node: &NodeName, leader: Option<&NodeName>) -> bool {
    match key.rsplit_once(" on ") {
        Some((_, on)) => on == node.as_str(),
        None => leader == Some(node),
    }
}

/// Puts what `node` says about itself into the picture of another one.
fn take_over(overview: &mut Overview, node: &NodeName, answer: &Overview) {
    for (database, members) in &answer.members {
        if let Some(own) = members.get(node) {
            overview.members.entry(database.clone()).or_default().insert(node.clone(), own.clone());
        }
    }
    if let (Some(seen), Some(own)) = (overview.nodes.get_mut(node), answer.nodes.get(node)) {
        seen.missing.clone_from(&own.missing);
        seen.instances.clone_from(&own.instances);
        seen.generation = own.generation;
        seen.services.clone_from(&own.services);
    }
    // A node has no line to itself: what the others hear of it stands for it.
    if let Some(seen) = answer.nodes.get(&overview.node)
        && let Some(best) = overview.nodes.get_mut(&overview.node)
    {
        best.lines.extend(seen.lines.iter().cloned());
    }
    let own = answer.because.iter().filter(|(key, _)| is_said_by(key, node, overview.leader.as_ref()));
    overview.because.extend(own.map(|(key, text)| (key.clone(), text.clone())));
}
