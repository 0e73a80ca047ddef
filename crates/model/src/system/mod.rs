//! The system file: what someone wants to run and what is expected of it.
//!
//! [`System`] is the validated description: plain data, every default filled in, every reference known to exist.
//! It serialises to readable JSON, because it is also what is stored as the desired state.

pub mod carriage;
mod code;
pub mod coordination;
pub mod database;
pub mod difference;
pub mod duration;
pub mod job;
mod nearest;
pub mod node;
pub mod objectives;
pub mod operations;
mod parse;
pub mod placeholder;
pub mod problem;
mod read;
pub mod route;
mod schema;
pub mod service;
pub mod size;
pub mod traffic;
mod validate;

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use carriage::{Carriage, InstanceTls, Limits, PathPrefix, Protocol, SourceRange, TlsFiles};
pub use coordination::{Coordination, Etcd};
pub use database::{Database, Durability, Engine};
pub use difference::{Change, Impact, difference};
pub use job::{Job, JobSchedule};
pub use node::{DEFAULT_AGENT_PORT, Node, Site};
pub use objectives::{Availability, Objectives};
pub use operations::{Alarms, Backup, Schedule, Weekday};
pub use parse::{Checked, MAX_SIZE, parse, parse_change};
pub use placeholder::{RoutePlace, Surroundings, expand};
pub use problem::{Code, Hint, Invalid, Label, Problem};
pub use route::{Listen, Role, Route, RouteTarget};
pub use schema::schema;
pub use service::{After, ExternalAddress, Health, Placement, PortRange, Probe, Releasing, Scale, Service};
pub use validate::{acknowledges_early, needs_restart, owned_parameter};

use crate::{DatabaseName, JobName, NodeName, RouteName, ServiceName, SiteName, SystemName};

/// All that one system file describes, validated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct System {
    /// The system's name.
    pub name: SystemName,
    /// What is promised to its users.
    pub objectives: Objectives,
    /// Data centres or rooms.
    pub sites: BTreeMap<SiteName, Site>,
    /// Linux machines.
    pub nodes: BTreeMap<NodeName, Node>,
    /// How agents agree.
    pub coordination: Coordination,
    /// PostgreSQL clusters.
    pub databases: BTreeMap<DatabaseName, Database>,
    /// Stateless applications.
    pub services: BTreeMap<ServiceName, Service>,
    /// Programs that run when they are due or asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub jobs: BTreeMap<JobName, Job>,
    /// What clients connect to.
    pub routes: BTreeMap<RouteName, Route>,
    /// Who hears of trouble.
    pub alarms: Alarms,
    /// Backups, by the database they save.
    pub backups: BTreeMap<DatabaseName, Backup>,
}

impl System {
    /// Whether `node` stands in a witness site, so that it only votes: no member, no instance, no route there.
    pub fn is_witness(&self, node: &NodeName) -> bool {
        self.nodes.get(node).and_then(|n| self.sites.get(&n.site)).is_some_and(|site| site.witness)
    }

    /// The site `node` stands in; `None` for a node the system does not have.
    pub fn site_of(&self, node: &NodeName) -> Option<&SiteName> {
        self.nodes.get(node).map(|n| &n.site)
    }

    /// The nodes that vote in the embedded coordination, by name. Empty when etcd coordinates.
    pub fn voters(&self) -> impl Iterator<Item = &NodeName> {
        self.nodes.iter().filter(|(_, node)| node.voter).map(|(name, _)| name)
    }

    /// The nodes that carry work (routes, and members or instances if placed there): all outside witness sites.
    pub fn workers(&self) -> impl Iterator<Item = (&NodeName, &Node)> {
        self.nodes.iter().filter(|(name, _)| !self.is_witness(name))
    }

    /// The nodes on which instances of `service` may run, by name.
    pub fn nodes_for(&self, service: &Service) -> Vec<&NodeName> {
        let allowed = |name: &NodeName, node: &Node| service.placement.allows(name, &node.site);
        self.workers().filter(|(name, node)| allowed(name, node)).map(|(name, _)| name).collect()
    }

    /// Makes paths that the file gives relative to itself absolute: programs of services, the files of routes and of
    /// etcd, `bin_dir`.
    /// A program without a `/` is left to the search path.
    pub fn resolve_paths(&mut self, folder: &Path) {
        for service in self.services.values_mut() {
            let probe = match &mut service.health.probe {
                Probe::Command { command } => command.first_mut(),
                Probe::Http { .. } | Probe::Tcp | Probe::Process => None,
            };
            let ready = service.ready.as_mut().and_then(|ready| match &mut ready.probe {
                Probe::Command { command } => command.first_mut(),
                Probe::Http { .. } | Probe::Tcp | Probe::Process => None,
            });
            // What an image is given is no program of the node.
            let own = service.command.first_mut().filter(|_| service.image.is_none());
            for program in own.into_iter().chain(probe).chain(ready) {
                resolve_program(program, folder);
            }
        }
        for program in self.jobs.values_mut().filter_map(|job| job.command.first_mut()) {
            resolve_program(program, folder);
        }
        let etcd = match &mut self.coordination {
            Coordination::Etcd(etcd) => {
                [&mut etcd.ca, &mut etcd.certificate, &mut etcd.key].into_iter().collect()
            }
            Coordination::Embedded => vec![],
        };
        for route in self.routes.values_mut() {
            let tls = route.carriage.tls.iter_mut().flat_map(|tls| [&mut tls.certificate, &mut tls.key]);
            for path in tls.chain(&mut route.carriage.maintenance) {
                *path = folder.join(&*path);
            }
        }
        let bin_dirs = self.databases.values_mut().map(|database| &mut database.bin_dir);
        for path in etcd.into_iter().chain(bin_dirs).flatten() {
            *path = folder.join(&*path);
        }
    }

    /// The databases that have a member on `node`.
    pub fn databases_on<'a>(
        &'a self,
        node: &'a NodeName,
    ) -> impl Iterator<Item = (&'a DatabaseName, &'a Database)> {
        self.databases.iter().filter(|(_, database)| database.members.contains(node))
    }
}

/// Makes a program's relative path absolute.
fn resolve_program(program: &mut String, folder: &Path) {
    // A path that begins with a placeholder becomes absolute where the program starts.
    if program.contains('/') && !program.starts_with('{') {
        *program = folder.join(&*program).to_string_lossy().into_owned();
    }
}
