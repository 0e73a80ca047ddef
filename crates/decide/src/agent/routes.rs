//! The table of routes for this node's proxy, made anew whenever it would differ.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use model::leadership::{Leadership, Term};
use model::routes::{
    DatabaseRouteState, DatabaseTarget, External, InstanceEndpoint, InstanceRouteState, Route, RouteTarget,
    ServiceTarget,
};
use model::status::{MemberStatus, Silence};
use model::system::service::Probe;
use model::system::{self, Role};
use model::{DatabaseName, NodeName, RouteName, ServiceName};

use super::{Agent, Command};
use crate::route;
use crate::view::LEASE;

/// How long a restarted agent may need, beyond the lease, until it knows what its member does.
const AGENT_START: Duration = Duration::from_secs(1);

/// How long an agent that has just started leaves its proxy with the table of its earlier run, when it cannot see all.
const PICTURE_LIMIT: Duration = Duration::from_millis(1500);

impl Agent {
    pub(super) fn publish_routes(&mut self, commands: &mut Vec<Command>) {
        if !self.loaded
            || self.system.is_witness(&self.me)
            || !self.sees_enough_to_route()
            || self.is_finding_out()
        {
            return;
        }
        let routes: Vec<Route> =
            self.system.routes.iter().map(|(name, route)| self.route(name, route)).collect();
        if routes != self.table.routes {
            self.table.routes = routes;
            self.table.generation += 1;
            self.note_draining();
            commands.push(Command::Routes(self.table.clone()));
        }
        self.note_routed();
    }

    /// Whether a table made now would not take back what the proxy rightly serves: an agent that has just started waits
    /// for a moment until it knows its own instances and has heard the others. In a new system nothing is served yet.
    fn sees_enough_to_route(&self) -> bool {
        let own = self.system.services.is_empty() || self.instances.is_some();
        let others =
            self.peers.iter().all(|(node, peer)| self.system.is_witness(node) || peer.status.is_some());
        let is_new = self.records.is_empty() && self.placement.value.is_empty();
        is_new || self.waited() >= PICTURE_LIMIT || (own && others)
    }

    /// How long this agent has been awake.
    fn waited(&self) -> Duration {
        self.woke_at.map_or(Duration::ZERO, |woke| self.now.since(woke))
    }

    /// Remembers with which generation a switchover began to drain.
    fn note_draining(&mut self) {
        for route in &self.table.routes {
            let RouteTarget::Database(DatabaseTarget { database, state, .. }) = &route.target else {
                continue;
            };
            let term = self.records.get(database).map(|stored| stored.value.term).unwrap_or_default();
            if matches!(state, DatabaseRouteState::Draining { .. })
                && self.draining.get(database).is_none_or(|(of, _)| *of != term)
            {
                self.draining.insert(database.clone(), (term, self.table.generation));
            }
        }
    }

    pub(super) fn drained(&mut self, route: &RouteName, generation: u64) {
        let Some(system::RouteTarget::Database { database, .. }) =
            self.system.routes.get(route).map(|r| &r.target)
        else {
            return;
        };
        if let Some((term, since)) = self.draining.get(database)
            && generation >= *since
        {
            self.drained.insert(database.clone(), *term);
        }
    }

    /// Whether every node that is heard, this one included, has drained for the switchover of `term`.
    pub fn all_drained(&self, database: &DatabaseName, term: Term) -> bool {
        let done = |drained: &BTreeMap<DatabaseName, Term>| drained.get(database) == Some(&term);
        let heard = self.peers.iter().filter(|(node, peer)| {
            !self.system.is_witness(node) && peer.was_heard(self.now) && peer.silence(self.now).is_none()
        });
        done(&self.drained)
            && heard.filter_map(|(_, peer)| peer.status.as_ref()).all(|status| done(&status.drained))
    }

    fn route(&self, name: &RouteName, route: &system::Route) -> Route {
        let own: Vec<SocketAddr> = match (route.listen.address, self.system.nodes.get(&self.me)) {
            (None, Some(node)) => {
                node.lines.values().map(|ip| SocketAddr::new(*ip, route.listen.port)).collect()
            }
            (Some(ip), Some(node)) if node.lines.values().any(|own| *own == ip) || ip.is_loopback() => {
                vec![SocketAddr::new(ip, route.listen.port)]
            }
            (Some(_), Some(_)) | (_, None) => vec![],
        };
        let target = match &route.target {
            system::RouteTarget::Service { service } => {
                RouteTarget::Service(Box::new(self.service_target(service, route)))
            }
            system::RouteTarget::Database { database, role } => {
                RouteTarget::Database(self.database_target(name, database, *role, route))
            }
        };
        Route { name: name.clone(), listen: own, target }
    }

    fn database_target(
        &self,
        name: &RouteName,
        database: &DatabaseName,
        role: Role,
        route: &system::Route,
    ) -> DatabaseTarget {
        let own = self.own.get(database).map(|own| own.status());
        let mut members = self.audible_members(database);
        if let Some(own) = &own {
            members.insert(&self.me, own);
        }
        let addresses = |node: &NodeName| self.member_address(database, node);
        let record = self.records.get(database).map(|stored| &stored.value);
        let proved = record.is_some_and(|record| self.led_before(name, record));
        let ask = |members: &BTreeMap<&NodeName, &MemberStatus>| {
            route::decide(&route::Question { role, record, members, proved, addresses: &addresses })
        };
        // Readers leave a drained node while another one can take them.
        let primary = record.and_then(Leadership::primary);
        let mut staying = members.clone();
        staying.retain(|node, _| primary == Some(*node) || !self.upkeep.is_drained(node));
        let mut state = ask(&staying);
        if matches!(state, DatabaseRouteState::Parked { .. }) && staying.len() < members.len() {
            state = ask(&members);
        }
        let is_own = matches!(&state, DatabaseRouteState::Open { members } if members.iter().any(|m| m.node == self.me));
        if is_own && role == Role::Primary && !self.holds_lease(database) {
            let because = "this node's primary cannot prove that it still leads".to_owned();
            state = DatabaseRouteState::Parked { because };
        }
        DatabaseTarget {
            database: database.clone(),
            state,
            park_limit_ms: u64::try_from(route.park_limit.as_millis()).unwrap_or(u64::MAX),
            park_limit_count: route.park_connections,
        }
    }

    /// Whether the table in force leads this route to the record's primary in its term.
    fn led_before(&self, name: &RouteName, record: &Leadership) -> bool {
        let known = self.table.routes.iter().find(|route| route.name == *name);
        let Some(RouteTarget::Database(target)) = known.map(|route| &route.target) else { return false };
        match &target.state {
            DatabaseRouteState::Open { members } => members
                .iter()
                .any(|member| Some(&member.node) == record.primary() && member.term == record.term),
            DatabaseRouteState::Parked { .. } | DatabaseRouteState::Draining { .. } => false,
        }
    }

    /// Whether this agent has just started beside a primary that may be healthy: its proxy keeps serving the table it has
    /// until the agent has looked, or the lease that an earlier run of it renewed has surely ended.
    fn is_finding_out(&self) -> bool {
        let led_here = |(name, own): (&DatabaseName, &super::Own)| {
            let leads = self.records.get(name).is_some_and(|record| record.value.primary() == Some(&self.me));
            leads && !(own.has_proved_its_set() && self.holds_lease(name))
        };
        self.table.routes.is_empty() && self.waited() < LEASE + AGENT_START && self.own.iter().any(led_here)
    }

    /// Members whose agents are heard. For the primary the last word counts until it is revoked: silence alone does not
    /// close its connections.
    fn audible_members(&self, database: &DatabaseName) -> BTreeMap<&NodeName, &MemberStatus> {
        let primary = self.records.get(database).and_then(|stored| stored.value.primary());
        let counts = |name: &NodeName, peer: &super::Peer| match peer.silence(self.now) {
            None | Some(Silence::Closed) => true,
            Some(Silence::Silent) => primary == Some(name),
        };
        let heard = self.peers.iter().filter(|(name, peer)| counts(name, peer));
        heard.filter_map(|(name, peer)| Some((name, peer.member(database)?))).collect()
    }

    fn member_address(&self, database: &DatabaseName, node: &NodeName) -> Option<SocketAddr> {
        let config = self.system.databases.get(database)?;
        let is_member = config.members.contains(node);
        let described = self.system.nodes.get(node).filter(|_| is_member)?;
        Some(SocketAddr::new(described.address(), config.port))
    }

    fn service_target(&self, service: &ServiceName, route: &system::Route) -> ServiceTarget {
        let described = self.system.services.get(service);
        let external = described
            .filter(|service| service.is_external())
            .map(|service| External { addresses: service.addresses.clone(), health: service.health.clone() });
        // What may be left of instances is no part of a service that others run.
        let instances = if external.is_some() { vec![] } else { self.known_instances(service) };
        let health_path = described.and_then(|service| match &service.health.probe {
            Probe::Http { path } => Some(path.clone()),
            Probe::Tcp | Probe::Command { .. } | Probe::Process => None,
        });
        ServiceTarget {
            service: service.clone(),
            instances,
            traffic: described.map(|service| service.traffic.clone()).unwrap_or_default(),
            health_path,
            protocol: described.map(|service| service.protocol).unwrap_or_default(),
            send_proxy_protocol: described.is_some_and(|service| service.send_proxy_protocol),
            tls: described.and_then(|service| service.tls.clone()),
            trial: self.trial(service),
            external,
            carriage: route.carriage.clone(),
        }
    }

    /// The instances of a service on all nodes, with what proxies should think of them.
    fn known_instances(&self, service: &ServiceName) -> Vec<InstanceEndpoint> {
        let prefix = format!("{service}-");
        let is_of = |instance: &InstanceEndpoint| {
            instance
                .id
                .strip_prefix(&prefix)
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        let mut instances: Vec<InstanceEndpoint> =
            self.instances.iter().flatten().filter(|i| is_of(i)).cloned().collect();
        for (node, peer) in &self.peers {
            let Some(status) = &peer.status else { continue };
            let known = status.instances.iter().flatten().filter(|i| is_of(i)).cloned();
            let silent = peer.silence(self.now) == Some(Silence::Silent);
            let lost = silent && self.is_lost(node);
            instances.extend(known.map(|mut instance| {
                instance.state = unheard(instance.state, silent, lost);
                instance
            }));
        }
        for instance in &mut instances {
            let serves = matches!(instance.state, InstanceRouteState::Ready | InstanceRouteState::NotReady);
            if serves && self.is_out_of_service(&instance.id) {
                instance.state = InstanceRouteState::Draining;
            }
        }
        instances.sort_by(|a, b| a.id.cmp(&b.id));
        instances
    }
}

/// What an instance counts as whose node may be silent. Silence alone breaks off no request under way: an agent that gets
/// no processor is silent too, and its instances answer. It does once they surely answer no more.
fn unheard(said: InstanceRouteState, silent: bool, lost: bool) -> InstanceRouteState {
    match said {
        _ if lost => InstanceRouteState::Gone,
        InstanceRouteState::Ready if silent => InstanceRouteState::NotReady,
        InstanceRouteState::Ready
        | InstanceRouteState::NotReady
        | InstanceRouteState::Draining
        | InstanceRouteState::Gone => said,
    }
}
