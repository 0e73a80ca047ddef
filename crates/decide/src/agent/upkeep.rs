//! What follows from what operators have asked for beyond the file: nodes that are emptied, and what is taken out of
//! service everywhere before it ends.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::routes::{InstanceRouteState, ProxyReport, RouteTarget, Tally, Trial};
use model::time::Moment;
use model::{DatabaseName, NodeName, ServiceName};

use super::commands::{Store, Value};
use super::{Agent, Command};
use crate::leadership::{self, Question};
use crate::placement::Placed;
use crate::view::Reach;

/// How long the leader waits for a node that does not say that its proxy obeys, before it ends an instance all the same:
/// longer than a node must be dead until its instances move.
const ACKNOWLEDGE_LIMIT: Duration = Duration::from_secs(10);

/// How long requests under way may keep an instance that is to end.
const CARRY_LIMIT: Duration = Duration::from_secs(30);

/// Time between two attempts to hand over a primary whose node is emptied.
const HAND_OVER_PAUSE: Duration = Duration::from_secs(3);

/// What this node's proxy is known to obey.
#[derive(Clone, Debug, Default)]
pub(super) struct Routed {
    /// The newest table made: its generation, and the revision of the placement that it follows.
    made: (u64, u64),
    /// Up to which revision of the placement the proxy obeys, and has said since what it carries.
    pub(super) revision: u64,
    /// Whether the proxy has told its counts since it took the newest table.
    counted: bool,
    /// Requests under way at each instance, as the proxy told last.
    under_way: BTreeMap<String, u64>,
    /// What came of requests at each instance, as the proxy told last.
    pub(super) tallies: BTreeMap<String, Tally>,
}

impl Agent {
    /// The table in force follows the placement as it is known now.
    pub(super) fn note_routed(&mut self) {
        let made = (self.table.generation, self.placement.revision);
        if self.routed.made != made {
            self.routed.made = made;
            self.routed.counted = false;
        }
        let obeys = self.system.routes.is_empty() || self.routes_applied >= self.table.generation;
        if obeys && (self.routed.counted || !self.takes_out_of_service()) {
            self.routed.revision = self.routed.made.1;
        }
    }

    /// The proxy told its counts: behind its word that it obeys a table they are of a time in which it did.
    pub(super) fn counted(&mut self, report: &ProxyReport) {
        let instances = report.routes.iter().flat_map(|route| &route.instances);
        let (mut under_way, mut tallies) = (BTreeMap::new(), BTreeMap::<String, Tally>::new());
        for instance in instances {
            if instance.under_way > 0 {
                *under_way.entry(instance.id.clone()).or_default() += instance.under_way;
            }
            tallies.entry(instance.id.clone()).or_default().add(&instance.tally);
        }
        self.routed.under_way = under_way;
        self.routed.tallies = tallies;
        self.routed.counted = self.routes_applied >= self.table.generation;
    }

    /// Whether the table tells the proxy to let an instance finish its work.
    fn takes_out_of_service(&self) -> bool {
        self.table.routes.iter().any(|route| match &route.target {
            RouteTarget::Service(target) => {
                target.instances.iter().any(|instance| instance.state == InstanceRouteState::Draining)
            }
            RouteTarget::Database(_) => false,
        })
    }

    /// Instances out of service at which this node's proxy still has requests under way.
    pub(super) fn carrying(&self) -> BTreeSet<String> {
        let of = |id: &&String| self.is_out_of_service(id);
        self.routed.under_way.keys().filter(of).cloned().collect()
    }

    /// Whether an instance gets no new requests: it is leaving, or the placement has it no more and its supervisor merely
    /// does not know that yet.
    pub(super) fn is_out_of_service(&self, id: &str) -> bool {
        let Some((name, node)) = id.split_once('@') else { return false };
        let Some((service, number)) = name.rsplit_once('-') else { return false };
        let Some(instances) = self.placement.value.get(&ServiceName::new(service)) else { return false };
        let placed = number.parse().ok().and_then(|number: u32| instances.get(&number));
        placed.is_none_or(|placed| placed.leaving || placed.share == Some(0) || placed.node.as_str() != node)
    }

    /// The instances of a service that get a part of their own of all requests.
    pub(super) fn trial(&self, service: &ServiceName) -> Option<Trial> {
        let placed = self.placement.value.get(service).into_iter().flatten();
        let tried = placed.filter_map(|(number, placed)| Some((number, placed, placed.share?)));
        let tried: Vec<_> = tried.filter(|(_, placed, share)| *share > 0 && !placed.leaving).collect();
        let share = tried.first().map(|(_, _, share)| *share)?;
        let id = |(number, placed, _): &(&u32, &Placed, u16)| format!("{service}-{number}@{}", placed.node);
        (share < 1000).then(|| Trial { instances: tried.iter().map(id).collect(), share })
    }

    /// Whether an instance that is to end can: no proxy gives it requests, none is under way. After a while it ends all
    /// the same: a node that says nothing must not hold up everything.
    pub(super) fn is_idle(&self, service: &ServiceName, number: u32, placed: &Placed) -> bool {
        let waited = self
            .leaving_since
            .get(&(service.clone(), number))
            .map_or(Duration::ZERO, |since| self.now.since(*since));
        let id = format!("{service}-{number}@{}", placed.node);
        let others = self.peers.iter().filter(|(node, _)| {
            !self.system.is_witness(node) && !matches!(self.reach(node), Reach::Dead { .. })
        });
        let mut said = others.map(|(node, peer)| {
            let status = peer.status.as_ref().filter(|_| peer.silence(self.now).is_none());
            (node, status.map(|status| (status.routed, status.carrying.contains(&id))))
        });
        let own = self.system.is_witness(&self.me)
            || (self.routed.revision >= self.placement.revision && !self.carrying().contains(&id));
        let is_done = |said: Option<(u64, bool)>| match said {
            Some((routed, carries)) => {
                (routed >= self.placement.revision && !carries) || waited >= CARRY_LIMIT
            }
            None => waited >= ACKNOWLEDGE_LIMIT,
        };
        (own || waited >= CARRY_LIMIT) && said.all(|(_, said)| is_done(said))
    }

    /// Remembers since when instances are to end.
    pub(super) fn note_leaving(&mut self) {
        let leaving: BTreeSet<(ServiceName, u32)> = self
            .placement
            .value
            .iter()
            .flat_map(|(service, instances)| instances.iter().map(move |(n, placed)| (service, *n, placed)))
            .filter(|(_, _, placed)| placed.leaving)
            .map(|(service, number, _)| (service.clone(), number))
            .collect();
        self.leaving_since.retain(|key, _| leaving.contains(key));
        for key in leaving {
            self.leaving_since.entry(key).or_insert(self.now);
        }
    }

    /// Hands over the primaries of nodes that are emptied.
    pub(super) fn vacate(&mut self, commands: &mut Vec<Command>) {
        if self.upkeep.drained.is_empty() || self.paused.is_some() {
            return;
        }
        let names: Vec<DatabaseName> = self.records.keys().cloned().collect();
        for name in names {
            let store = Store::Leadership(name.clone());
            let rests = self.vacated_at.get(&name).is_some_and(|at| self.now.since(*at) < HAND_OVER_PAUSE);
            if self.awaits_commit(&store) || rests {
                continue;
            }
            if let Some(command) = self.vacated(&name) {
                self.vacated_at.insert(name, self.now);
                self.committing.insert(store, self.now);
                commands.push(command);
            }
        }
    }

    /// The beginning of a switchover away from a drained node, if there is somebody to take over.
    fn vacated(&self, database: &DatabaseName) -> Option<Command> {
        let stored = self.records.get(database)?;
        let primary = stored.value.primary().filter(|primary| self.upkeep.is_drained(primary))?;
        let (rules, members) = self.view(database)?;
        let question = Question {
            rules: &rules,
            record: Some(&stored.value),
            members: &members,
            paused: false,
            now: self.now,
        };
        let stays = |node: &&NodeName| !self.upkeep.is_drained(node);
        let mut others = rules.members.iter().filter(stays);
        let mut next = others.find_map(|node| leadership::switchover(&question, Some(node)).ok())?;
        next.because = format!("{primary} is drained: {}", self.upkeep.drained.get(primary)?);
        let value = Value::Leadership(database.clone(), Box::new(next));
        Some(Command::Commit { expected: stored.revision, value })
    }
}

/// Since when each leaving instance is to end, as this agent has seen it.
pub(super) type LeavingSince = BTreeMap<(ServiceName, u32), Moment>;
