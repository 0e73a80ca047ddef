//! Which ports each node needs: choosing those the file leaves open, and finding two things that need the same.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::Range;

use super::super::problem::Code;
use super::super::read::Named;
use super::super::read::tables::{DatabaseTable, RouteTable, ServiceTable};
use super::super::{PortRange, Service, System};
use super::Check;
use crate::{DatabaseName, NodeName, RouteName, ServiceName};

/// The first port tried for a database.
const FIRST_DATABASE: u16 = 6432;
/// The first port tried for the instances of a service.
const FIRST_POOL: u32 = 20_000;
/// How many ports a service gets at least: room for old and new instances side by side.
const POOL: u32 = 100;

/// Ports that something needs on some nodes.
#[derive(Clone)]
struct Claim {
    ports: PortRange,
    /// `None`: on every address of the node.
    address: Option<IpAddr>,
    who: Claimant,
    what: String,
    /// Where it stands in the file.
    span: Range<usize>,
    /// On which nodes.
    nodes: BTreeSet<NodeName>,
    /// Which one, if it is a route's.
    route: Option<RouteName>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Claimant {
    Agent,
    Database,
    Service,
    Route,
}

/// The blocks of ports that are tried for a service.
fn blocks(instances: u32) -> impl Iterator<Item = PortRange> {
    let size = (instances * 2).next_multiple_of(POOL);
    (FIRST_POOL..=u32::from(u16::MAX) - size).step_by(POOL as usize).filter_map(move |first| {
        Some(PortRange { first: u16::try_from(first).ok()?, last: u16::try_from(first + size - 1).ok()? })
    })
}

impl Claim {
    fn meets(&self, other: &Self) -> bool {
        let apart = matches!((self.address, other.address), (Some(a), Some(b)) if a != b);
        !apart && self.ports.overlaps(other.ports)
    }
}

/// Which ports are needed anywhere, by number.
struct Taken(Vec<bool>);

impl Taken {
    fn take(&mut self, range: PortRange) {
        range.iter().for_each(|port| self.0[usize::from(port)] = true);
    }

    fn is_free(&self, range: PortRange) -> bool {
        !range.iter().any(|port| self.0[usize::from(port)])
    }

    /// Takes the first of `ranges` that is free.
    fn take_first(&mut self, mut ranges: impl Iterator<Item = PortRange>) -> Option<PortRange> {
        let range = ranges.find(|range| self.is_free(*range))?;
        self.take(range);
        Some(range)
    }
}

impl Check<'_, '_> {
    /// Chooses a port for every database and a range for every service that has none, free on all nodes. What runs keeps
    /// what was chosen for it.
    pub(super) fn choose_ports(&mut self, system: &mut System) {
        let mut taken = Taken(vec![false; 1 << 16]);
        self.claims(system).iter().for_each(|claim| taken.take(claim.ports));
        self.keep_ports(system, &mut taken);
        for database in system.databases.values_mut().filter(|database| database.port == 0) {
            let ports = (FIRST_DATABASE..=u16::MAX).map(|port| PortRange { first: port, last: port });
            database.port = taken.take_first(ports).map_or(0, |range| range.first);
        }
        let mut without = vec![];
        let lacks = |service: &Service| service.ports.first == 0 && !service.is_external();
        for (name, service) in system.services.iter_mut().filter(|(_, service)| lacks(service)) {
            match taken.take_first(blocks(service.most_instances())) {
                Some(range) => service.ports = range,
                None => without.push(name.clone()),
            }
        }
        without.iter().for_each(|name| self.report_no_ports(name));
    }

    /// Gives what runs the ports that were chosen for it, before anything new can take them.
    fn keep_ports(&self, system: &mut System, taken: &mut Taken) {
        let Some(running) = self.running else {
            return;
        };
        for (name, database) in system.databases.iter_mut().filter(|(_, database)| database.port == 0) {
            let before = running.databases.get(name).map(|db| PortRange { first: db.port, last: db.port });
            database.port = taken.take_first(before.into_iter()).map_or(0, |range| range.first);
        }
        let lacks = |service: &Service| service.ports.first == 0 && !service.is_external();
        for (name, service) in system.services.iter_mut().filter(|(_, service)| lacks(service)) {
            let before =
                running.services.get(name).map(|s| s.ports).filter(|p| p.count() >= service.most_instances());
            if let Some(range) = taken.take_first(before.into_iter()) {
                service.ports = range;
            }
        }
    }

    fn report_no_ports(&mut self, name: &ServiceName) {
        let entries = self.raw.services.given().into_iter().flat_map(|section| &section.value.0);
        let span = entries.filter(|e| e.name == name.as_str()).map(|e| e.span.clone()).next().unwrap_or(0..0);
        self.error(Code::InvalidPorts, &span, format!("no ports are left for the service `{name}`"))
            .why(format!("from {FIRST_POOL} upwards no free block is large enough for its instances"))
            .paste("choose some", "ports = \"10000-10019\"");
    }

    /// Reports two things that need one port on one node, once for each pair.
    pub(super) fn check_ports(&mut self, system: &System) {
        let mut claims = self.claims(system);
        claims.sort_by_key(|claim| claim.ports.first);
        for (i, claim) in claims.iter().enumerate() {
            for later in claims[i + 1..].iter().take_while(|later| later.ports.first <= claim.ports.last) {
                if self.findings.is_full() {
                    return;
                }
                let shared = claim.nodes.intersection(&later.nodes).next().filter(|_| claim.meets(later));
                if let Some(node) = shared {
                    self.report_pair(claim, later, node, system);
                }
            }
        }
    }

    fn report_pair(&mut self, a: &Claim, b: &Claim, node: &NodeName, system: &System) {
        let (first, second) = if a.span.start <= b.span.start { (a, b) } else { (b, a) };
        let port = first.ports.first.max(second.ports.first);
        if let (Some(one), Some(other)) = (&first.route, &second.route)
            && self.share(one, other, [&first.span, &second.span], system)
        {
            return;
        }
        if (first.who, second.who) == (Claimant::Route, Claimant::Route) {
            self.error(
                Code::DuplicatePort,
                &second.span,
                format!("{} and {} listen on one port, {port}", first.what, second.what),
            )
            .why("a client could not say which of them it means")
            .paste("choose another one", format!("listen = \":{}\"", port.saturating_add(1)))
            .other(&first.span, "the other route");
        } else {
            self.error(
                Code::PortTaken,
                &second.span,
                format!("{} and {} need the same port {port} on `{node}`", first.what, second.what),
            )
            .why("only one program can listen on a port of a machine")
            .hint("give one of them another port")
            .other(&first.span, "the other one");
        }
    }

    /// Every port that is settled so far.
    fn claims(&self, system: &System) -> Vec<Claim> {
        let mut claims = self.agent_claims(system);
        claims.extend(self.database_claims(system));
        claims.extend(self.service_claims(system));
        claims.extend(self.route_claims(system));
        claims.retain(|claim| claim.ports.first != 0);
        claims
    }

    /// One claim for each port that agents use, so that what meets it is said once and not for every node.
    fn agent_claims(&self, system: &System) -> Vec<Claim> {
        let mut claims: Vec<Claim> = vec![];
        for entry in self.raw.nodes.given().into_iter().flat_map(|section| &section.value.0) {
            let name = NodeName::new(entry.name.clone());
            let Some(port) = system.nodes.get(&name).map(|node| node.agent_port) else {
                continue;
            };
            if let Some(claim) = claims.iter_mut().find(|claim| claim.ports.first == port) {
                claim.nodes.insert(name);
                continue;
            }
            let span = entry.body.as_ref().and_then(|body| body.agent_port.span()).unwrap_or(&entry.span);
            claims.push(Claim {
                ports: PortRange { first: port, last: port },
                address: None,
                who: Claimant::Agent,
                what: "the agent".to_owned(),
                span: span.clone(),
                nodes: BTreeSet::from([name]),
                route: None,
            });
        }
        claims
    }

    fn database_claims(&self, system: &System) -> Vec<Claim> {
        let entries = self.raw.databases.given().into_iter().flat_map(|section| &section.value.0);
        let claim = |entry: &Named<DatabaseTable>| {
            let database = system.databases.get(&DatabaseName::new(entry.name.clone()))?;
            let span = entry.body.as_ref().and_then(|body| body.port.span()).unwrap_or(&entry.span);
            Some(Claim {
                ports: PortRange { first: database.port, last: database.port },
                address: None,
                who: Claimant::Database,
                what: format!("the database `{}`", entry.name),
                span: span.clone(),
                nodes: database.members.iter().cloned().collect(),
                route: None,
            })
        };
        entries.filter_map(claim).collect()
    }

    fn service_claims(&self, system: &System) -> Vec<Claim> {
        let entries = self.raw.services.given().into_iter().flat_map(|section| &section.value.0);
        let claim = |entry: &Named<ServiceTable>| {
            let service = system.services.get(&ServiceName::new(entry.name.clone()))?;
            let span = entry.body.as_ref().and_then(|body| body.ports.span()).unwrap_or(&entry.span);
            Some(Claim {
                ports: service.ports,
                address: None,
                who: Claimant::Service,
                what: format!("the service `{}`", entry.name),
                span: span.clone(),
                nodes: system.nodes_for(service).into_iter().cloned().collect(),
                route: None,
            })
        };
        entries.filter_map(claim).collect()
    }

    fn route_claims(&self, system: &System) -> Vec<Claim> {
        let entries = self.raw.routes.given().into_iter().flat_map(|section| &section.value.0);
        let workers: BTreeSet<NodeName> = system.workers().map(|(name, _)| name.clone()).collect();
        let claim = |entry: &Named<RouteTable>| {
            let route = system.routes.get(&RouteName::new(entry.name.clone()))?;
            let span = entry.body.as_ref().and_then(|body| body.listen.span()).unwrap_or(&entry.span);
            let has = |node: &NodeName| match route.listen.address {
                Some(ip) if !ip.is_loopback() => system.nodes[node].lines.values().any(|line| *line == ip),
                Some(_) | None => true,
            };
            Some(Claim {
                ports: PortRange { first: route.listen.port, last: route.listen.port },
                address: route.listen.address,
                who: Claimant::Route,
                what: format!("the route `{}`", entry.name),
                span: span.clone(),
                nodes: workers.iter().filter(|node| has(node)).cloned().collect(),
                route: Some(RouteName::new(entry.name.clone())),
            })
        };
        entries.filter_map(claim).collect()
    }
}
