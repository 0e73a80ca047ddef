//! What services say beyond their health: readiness, memory, the order of starts.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use super::super::problem::Code;
use super::super::read::tables::{HealthTable, ReadyTable, ServiceTable};
use super::super::read::{At, Field, Memory};
use super::super::{After, Health, Probe, Service, size};
use super::Check;
use crate::ServiceName;

/// The least memory that a program of any kind can start with.
const LEAST_MEMORY: u64 = 4 << 20;

impl Check<'_, '_> {
    /// How the file wants instances to be asked whether they may take requests.
    pub(super) fn ready(&mut self, name: &str, table: &ServiceTable) -> Option<Health> {
        let At { value: ready, span } = table.ready.given()?;
        let path = |key: &str| format!("services.{name}.ready.{key}");
        let probe = self.probe(name, "ready", &as_health(ready)).filter(|probe| *probe != Probe::Process);
        if probe.is_none() && [&ready.http.span(), &ready.command.span()].iter().all(|span| span.is_none()) {
            self.error(Code::MissingKey, span, format!("`services.{name}.ready` asks nothing"))
                .why("a running instance would always be ready, which needs no section")
                .paste("write for example", "ready.http = \"/ready\"");
        }
        Some(Health {
            probe: probe.unwrap_or(Probe::Tcp),
            interval: self.at_least(&ready.interval, &path("interval"), 50, 500),
            timeout: self.at_least(&ready.timeout, &path("timeout"), 10, 1000),
            healthy_after: self.number(&ready.healthy_after, &path("healthy_after"), 1..=100, 1),
            unhealthy_after: self.number(&ready.unhealthy_after, &path("unhealthy_after"), 1..=100, 2),
            // Readiness restarts nothing.
            restart_after: Duration::from_secs(10),
        })
    }

    /// The limit that the file gives at `path`, in bytes.
    pub(super) fn memory(&mut self, field: &Field<Memory>, path: &str) -> Option<u64> {
        let At { value: Memory(bytes), span } = field.given()?;
        if *bytes < LEAST_MEMORY {
            let least = size::format(LEAST_MEMORY);
            let paste = self.findings.line_with(span, &format!("\"{least}\""));
            self.error(Code::InvalidSize, span, format!("`{path}` is too little for any program"))
                .why("the kernel would end it before its first instruction")
                .paste("at least", paste);
        }
        Some(*bytes)
    }

    /// What the first start of an instance waits for.
    pub(super) fn after(&mut self, name: &str, table: &ServiceTable) -> Vec<After> {
        let mut after = vec![];
        for at in table.after.given().map_or(&[][..], |at| &at.value) {
            let one = After::read(&at.value);
            let is_known = match &one {
                After::Service(service) if service.as_str() == name => {
                    self.error(Code::StartCycle, &at.span, format!("the service `{name}` waits for itself"))
                        .why("its first instance would never start")
                        .hint("remove it from the list");
                    false
                }
                After::Service(service) => {
                    let services = &self.raw.services;
                    self.refers_by(Code::UnknownService, "service", service.as_str(), &at.span, services)
                        && !self.awaits_addresses(service, &at.span)
                }
                After::Database(database) => {
                    let databases = &self.raw.databases;
                    self.refers_by(Code::UnknownDatabase, "database", database.as_str(), &at.span, databases)
                }
            };
            if is_known && !after.contains(&one) {
                after.push(one);
            }
        }
        after
    }

    /// Reports that a start waits for what others run; whether it does.
    fn awaits_addresses(&mut self, service: &ServiceName, span: &Range<usize>) -> bool {
        let services = self.raw.services.given().into_iter().flat_map(|section| &section.value.0);
        let mut named = services.filter(|entry| entry.name == service.as_str());
        let is_external =
            named.any(|entry| entry.body.as_ref().is_some_and(|table| !table.addresses.is_absent()));
        if is_external {
            self.error(Code::KeyWithoutEffect, span, format!("no start can wait for `{service}`"))
                .why("others run it, and each node's proxy has a view of its own of whether it answers")
                .hint("remove it from the list");
        }
        is_external
    }

    /// Reports services that wait for each other in a circle: none of them would ever start.
    pub(super) fn check_start_order(&mut self, services: &BTreeMap<ServiceName, Service>) {
        let Some(cycle) = cycle(services) else { return };
        let raw = self.raw.services.given().into_iter().flat_map(|section| &section.value.0);
        let of_first = |entry: &&super::super::read::Named<ServiceTable>| entry.name == cycle[0].as_str();
        let table = raw.into_iter().find(of_first).and_then(|entry| entry.body.as_ref());
        let span = table.and_then(|table| table.after.span()).cloned().unwrap_or(0..0);
        let round: Vec<&str> = cycle.iter().chain(cycle.first()).map(ServiceName::as_str).collect();
        self.error(
            Code::StartCycle,
            &span,
            format!("services wait for each other to start: {}", round.join(" -> ")),
        )
        .why("after a loss of power each of them would wait for the next one for ever")
        .hint("remove one of them from an `after`");
    }
}

/// The keys that readiness has, as those of health.
fn as_health(ready: &ReadyTable) -> HealthTable {
    HealthTable {
        http: ready.http.clone(),
        tcp: ready.tcp.clone(),
        command: ready.command.clone(),
        ..HealthTable::default()
    }
}

/// Services of which each waits for the next and the last for the first, if there are any.
fn cycle(services: &BTreeMap<ServiceName, Service>) -> Option<Vec<ServiceName>> {
    let mut done = BTreeSet::new();
    services.keys().find_map(|name| walk(name, services, &mut vec![], &mut done))
}

fn walk(
    name: &ServiceName,
    services: &BTreeMap<ServiceName, Service>,
    path: &mut Vec<ServiceName>,
    done: &mut BTreeSet<ServiceName>,
) -> Option<Vec<ServiceName>> {
    if let Some(begin) = path.iter().position(|before| before == name) {
        return Some(path[begin..].to_vec());
    }
    if done.contains(name) {
        return None;
    }
    path.push(name.clone());
    for after in services.get(name).into_iter().flat_map(|service| &service.after) {
        if let After::Service(next) = after
            && let Some(found) = walk(next, services, path, done)
        {
            return Some(found);
        }
    }
    path.pop();
    done.insert(name.clone());
    None
}
