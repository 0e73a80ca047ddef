//! The agent's mind: everything one node knows, changed in one place by one synchronous function.
//!
//! [`Agent::handle`] takes an input and the time, and answers with commands for the effects. It never waits, reads no
//! clock and does no I/O, so the simulator runs it unchanged.

mod commands;
mod events;
mod gate;
mod lead;
mod member;
mod peers;
mod releases;
mod routes;
mod scaling;
mod status;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::jobs::JobRecord;
use model::leadership::{Leadership, Phase, Term};
use model::release::{Digest, Releases};
use model::routes::{InstanceEndpoint, RouteTable};
use model::status::{NodeStatus, PeerMessage, ProgramNote, ServicesState};
use model::system::System;
use model::time::Moment;
use model::upkeep::Upkeep;
use model::{DatabaseName, JobName, LineName, NodeName, ServiceName};

pub use commands::{Command, Durable, Input, Outcome, Store, Value};
pub use scaling::Scaled;
pub use status::{MemberSummary, NodeSummary, Overview};

use crate::leadership::Memory;
use crate::placement::Placement;
use events::Said;
use member::Own;
use peers::Peer;

/// While all is calm it is enough to look at the time this often.
const LONGEST_NAP: Duration = Duration::from_millis(60);

/// A value of the coordination with the revision that wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored<T> {
    /// What a compare-and-set must expect.
    pub revision: u64,
    /// The value.
    pub value: T,
}

/// One node's mind.
pub struct Agent {
    me: NodeName,
    incarnation: u64,
    system: System,
    generation: u64,
    now: Moment,
    /// Whether everything in the coordination has been read once; before that, absent does not mean "none".
    loaded: bool,
    leader: Option<NodeName>,
    paused: Option<String>,
    records: BTreeMap<DatabaseName, Stored<Leadership>>,
    placement: Stored<Placement>,
    /// What operators have asked for beyond the file.
    upkeep: Upkeep,
    /// Since when instances are to end, while this agent leads.
    leaving_since: upkeep::LeavingSince,
    /// When it was tried last to hand over the primary of a drained node.
    vacated_at: BTreeMap<DatabaseName, Moment>,
    routed: upkeep::Routed,
    releases: Stored<Releases>,
    /// What the leader has seen of rollouts.
    watches: BTreeMap<ServiceName, releases::Watch>,
    /// What this node's proxy has under way at services that are scaled by it.
    gauges: BTreeMap<ServiceName, scaling::Gauge>,
    /// How many instances such services need, while this agent leads.
    scalings: BTreeMap<ServiceName, scaling::Scaling>,
    /// What is agreed on about each job.
    runs: BTreeMap<JobName, JobRecord>,
    /// The artefacts that lie unpacked on this node.
    artefacts: BTreeSet<Digest>,
    /// The program that this node runs.
    program: ProgramNote,
    own: BTreeMap<DatabaseName, Own>,
    peers: BTreeMap<NodeName, Peer>,
    memory: BTreeMap<DatabaseName, Memory>,
    /// What is being committed, since when.
    committing: BTreeMap<Store, Moment>,
    /// `None` until it is known what an earlier run of the agent has left running.
    instances: Option<Vec<InstanceEndpoint>>,
    services: ServicesState,
    /// Protections that this node lacks, by their part of it.
    missing: BTreeMap<String, String>,
    routes_applied: u64,
    /// Since which generation of routes a switchover of this database drains, and in which term.
    draining: BTreeMap<DatabaseName, (Term, u64)>,
    /// The term whose switchover this node's proxy has drained for.
    drained: BTreeMap<DatabaseName, Term>,
    table: RouteTable,
    status: NodeStatus,
    sequence: u64,
    sent_at: BTreeMap<u64, Moment>,
    next_heartbeat: Moment,
    /// Until when the coordination's lead is not handed on.
    lead_rests_until: Moment,
    /// When everything was decided anew last.
    passed_at: Moment,
    /// When the first input came.
    woke_at: Option<Moment>,
    said: Said,
}

impl Agent {
    /// The mind of node `me`, which has just woken up.
    pub fn new(me: NodeName, system: System, generation: u64, incarnation: u64) -> Self {
        let own = system.databases_on(&me).map(|(name, _)| (name.clone(), Own::default())).collect();
        let peers = system
            .nodes
            .keys()
            .filter(|node| **node != me)
            .map(|node| (node.clone(), Peer::default()))
            .collect();
        let table =
            RouteTable { generation: incarnation, site: system.site_of(&me).cloned(), routes: vec![] };
        let status = NodeStatus::new(me.clone(), incarnation, generation);
        Self {
            me,
            incarnation,
            system,
            generation,
            now: Moment::default(),
            loaded: false,
            leader: None,
            paused: None,
            records: BTreeMap::new(),
            placement: Stored { revision: 0, value: Placement::new() },
            upkeep: Upkeep::default(),
            leaving_since: BTreeMap::new(),
            vacated_at: BTreeMap::new(),
            routed: upkeep::Routed::default(),
            releases: Stored { revision: 0, value: Releases::new() },
            watches: BTreeMap::new(),
            gauges: BTreeMap::new(),
            scalings: BTreeMap::new(),
            runs: BTreeMap::new(),
            artefacts: BTreeSet::new(),
            program: ProgramNote::default(),
            own,
            peers,
            memory: BTreeMap::new(),
            committing: BTreeMap::new(),
            instances: None,
            services: ServicesState::default(),
            missing: BTreeMap::new(),
            routes_applied: 0,
            draining: BTreeMap::new(),
            drained: BTreeMap::new(),
            table,
            status,
            sequence: 0,
            sent_at: BTreeMap::new(),
            next_heartbeat: Moment::default(),
            lead_rests_until: Moment::default(),
            passed_at: Moment::default(),
            woke_at: None,
            said: Said::default(),
        }
    }

    /// Takes in one thing that happened and answers with everything that is to be done now.
    pub fn handle(&mut self, input: Input, now: Moment) -> Vec<Command> {
        if self.woke_at.is_some() {
            self.note_standstill(now.since(self.now));
        }
        self.now = self.now.max(now);
        self.woke_at.get_or_insert(self.now);
        let mut commands = Vec::new();
        let can_wait = self.can_wait(&input);
        self.take_in(input, &mut commands);
        if can_wait {
            self.beat(&mut commands);
            return commands;
        }
        self.passed_at = self.now;
        self.decide_members(&mut commands);
        self.flush_members(&mut commands);
        self.lead(&mut commands);
        self.renew_gates(&mut commands);
        self.publish_routes(&mut commands);
        self.publish_status(&mut commands);
        self.beat(&mut commands);
        commands.extend(self.said.drain().map(Command::Event));
        commands
    }

    /// Whether nothing follows from an input for now: another sign of life of a peer that is not missed, another
    /// confirmation of a lease, or that a moment has passed in which nothing happened. They are most of all inputs.
    fn can_wait(&self, input: &Input) -> bool {
        match input {
            Input::Message { from, message: PeerMessage::Heartbeat(_) } => {
                self.peers.get(from).is_some_and(|peer| peer.is_heard(self.now)) && !self.lacks_lease()
            }
            Input::Read { database, term, .. } => {
                let known = self.own.get(database).and_then(|own| own.read);
                known.is_some_and(|known| known.term == *term) && !self.lacks_lease()
            }
            Input::Tick => self.is_calm() && self.now.since(self.passed_at) < LONGEST_NAP,
            // The same record, read again to renew a lease.
            Input::Record { database, stored } => {
                self.records.get(database).is_some_and(|known| known.revision >= stored.revision)
            }
            Input::LineUp { .. }
            | Input::LineDown { .. }
            | Input::Message { message: PeerMessage::Status(_), .. }
            | Input::Leader(_)
            | Input::StoreLoaded
            | Input::Placement(_)
            | Input::Upkeep(_)
            | Input::Counted(_)
            | Input::Releases(_)
            | Input::Runs(_)
            | Input::Artefacts(_)
            | Input::Paused(_)
            | Input::System { .. }
            | Input::Committed { .. }
            | Input::Recovered { .. }
            | Input::Observed { .. }
            | Input::Done { .. }
            | Input::Settings { .. }
            | Input::Flushed { .. }
            | Input::Instances(_)
            | Input::Services(_)
            | Input::Drained { .. }
            | Input::RoutesApplied(_)
            | Input::Program(_)
            | Input::Missing { .. } => false,
        }
    }

    /// Whether nothing is under way, nobody is missed and nobody is about to be: then time alone changes little.
    fn is_calm(&self) -> bool {
        !self.is_under_way()
            && !self.lacks_lease()
            && self.peers.values().all(|peer| peer.was_heard_of_late(self.now))
    }

    /// Whether a decision is being committed or a database is being changed.
    fn is_under_way(&self) -> bool {
        let changes = |record: &Leadership| {
            !matches!(record.phase, Phase::Led { .. })
                || !record.previous_sync.is_empty()
                || record.restart.is_some()
        };
        self.committing.keys().any(|store| self.awaits_commit(store))
            || self.records.values().any(|stored| changes(&stored.value))
    }

    fn take_in(&mut self, input: Input, commands: &mut Vec<Command>) {
        match input {
            Input::Tick => {}
            Input::LineUp { peer, line } => self.line_up(&peer, line, commands),
            Input::LineDown { peer, line, closed } => self.line_down(&peer, &line, closed),
            Input::Message { from, message } => self.hear(&from, message),
            Input::Leader(leader) => self.new_leader(leader),
            Input::StoreLoaded => self.loaded = true,
            Input::Record { database, stored } => self.new_record(&database, stored),
            Input::Placement(placement) => {
                if placement.revision > self.placement.revision {
                    self.placement = placement;
                    commands.push(Command::Services(self.placement.value.clone()));
                }
            }
            Input::Upkeep(upkeep) => self.new_upkeep(upkeep),
            Input::Releases(releases) => self.new_releases(releases, commands),
            Input::Runs(runs) => self.runs = runs,
            Input::Artefacts(artefacts) => self.artefacts = artefacts,
            Input::Counted(report) => {
                self.counted(&report);
                self.note_load(&report);
            }
            Input::Paused(reason) => self.pause(reason),
            Input::System { system, generation } => self.new_system(system, generation, commands),
            Input::Committed { store, revision } => {
                self.committing.remove(&store);
                if let Some((revision, value)) = revision {
                    self.take_in(value.into_input(revision), commands);
                }
            }
            Input::Recovered { database, durable } => self.recovered(&database, durable),
            Input::Observed { database, asked, server, system_identifier, trouble } => {
                self.observed(&database, asked, server, system_identifier, trouble);
            }
            Input::Settings { database, server, parameters, state } => {
                self.settings(&database, server, &parameters, state);
            }
            Input::Flushed { database, server } => self.flushed(&database, server),
            Input::Done { database, outcome, server } => self.done(&database, outcome, server),
            Input::Read { database, term, as_of } => self.read(&database, term, as_of),
            Input::Instances(instances) => self.instances = Some(instances),
            Input::Services(services) => self.services = services,
            Input::Drained { route, generation } => self.drained(&route, generation),
            Input::RoutesApplied(generation) => self.routes_applied = generation,
            Input::Program(program) => self.program = program,
            Input::Missing { part, because: Some(because) } => drop(self.missing.insert(part, because)),
            Input::Missing { part, because: None } => drop(self.missing.remove(&part)),
        }
    }

    fn new_leader(&mut self, leader: Option<NodeName>) {
        if leader != self.leader {
            if leader.as_ref() == Some(&self.me) {
                // What an earlier leadership remembered is old; a new leader starts afresh and only waits longer.
                self.memory.clear();
                self.leaving_since.clear();
                self.watches.clear();
                self.scalings.clear();
                self.lead_rests_until = self.now + lead::LEAD_REST;
                self.said.info("system", &self.me, "leads", "elected by a majority of the voters");
            }
            self.leader = leader;
        }
    }

    fn new_record(&mut self, database: &DatabaseName, stored: Stored<Leadership>) {
        let known = self.records.get(database).map_or(0, |known| known.revision);
        if stored.revision <= known {
            return;
        }
        self.said.record(
            database,
            &self.me,
            self.records.get(database).map(|known| &known.value),
            &stored.value,
        );
        self.records.insert(database.clone(), stored);
    }

    fn new_upkeep(&mut self, upkeep: Upkeep) {
        for (node, reason) in &upkeep.drained {
            if !self.upkeep.is_drained(node) {
                self.said.info("system", &self.me, &format!("{node} is drained"), reason);
            }
        }
        for node in self.upkeep.drained.keys().filter(|node| !upkeep.is_drained(node)) {
            self.said.info(
                "system",
                &self.me,
                &format!("{node} is used again"),
                "an operator took the drain back",
            );
        }
        self.upkeep = upkeep;
    }

    fn pause(&mut self, reason: Option<String>) {
        if reason != self.paused {
            match &reason {
                Some(reason) => self.said.warning("system", &self.me, "automation paused", reason),
                None => {
                    self.said.info("system", &self.me, "automation resumed", "an operator resumed it");
                }
            }
            self.paused = reason;
        }
    }

    fn new_system(&mut self, system: System, generation: u64, commands: &mut Vec<Command>) {
        if generation <= self.generation {
            return;
        }
        for (name, _) in system.databases_on(&self.me) {
            self.own.entry(name.clone()).or_default();
        }
        for node in system.nodes.keys().filter(|node| **node != self.me) {
            self.peers.entry(node.clone()).or_default();
        }
        self.forget_settings(&system);
        self.peers.retain(|node, _| system.nodes.contains_key(node));
        self.system = system;
        self.generation = generation;
        commands.push(Command::System { system: Box::new(self.system.clone()), generation });
    }

    /// The system file in force here.
    pub fn system(&self) -> &System {
        &self.system
    }

    /// The generation of the system file in force here.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The node that seems to lead.
    pub fn leader(&self) -> Option<&NodeName> {
        self.leader.as_ref()
    }

    /// The leadership record of a database as last seen.
    pub fn record(&self, database: &DatabaseName) -> Option<&Stored<Leadership>> {
        self.records.get(database)
    }

    /// The table that this node's proxy should serve.
    pub fn route_table(&self) -> &RouteTable {
        &self.table
    }

    /// Whether this node's proxy has something to serve.
    pub fn has_routes(&self) -> bool {
        !self.system.routes.is_empty() && !self.system.is_witness(&self.me)
    }

    /// What operators have asked for beyond the file.
    pub fn upkeep(&self) -> &Upkeep {
        &self.upkeep
    }

    /// Which line connections to which nodes are up: for the status.
    fn lines_up(&self, node: &NodeName) -> BTreeSet<LineName> {
        self.peers.get(node).map(|peer| peer.lines_up().clone()).unwrap_or_default()
    }

    /// Sends `message` to every peer on every line.
    fn broadcast(&self, message: &PeerMessage, commands: &mut Vec<Command>) {
        for peer in self.peers.keys() {
            commands.push(Command::Send { to: peer.clone(), message: message.clone() });
        }
    }

    /// The newest events: what `handle` has not yet given out is not among them.
    pub fn sentences(&self) -> impl Iterator<Item = (&str, &str)> {
        self.said.sentences()
    }
}

#[cfg(test)]
mod tests;
