//! Services.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use super::super::placeholder::{self, Placeholder, RoutePart};
use super::super::problem::Code;
use super::super::read::tables::{HealthTable, RouteTable, ServiceTable};
use super::super::read::{At, Field, HumanDuration, Named, Section};
use super::super::{Health, Placement, PortRange, Probe, Protocol, Service, System};
use super::Check;
use crate::{NodeName, ServiceName, SiteName};

impl Check<'_, '_> {
    pub(super) fn services(&mut self, system: &System) -> BTreeMap<ServiceName, Service> {
        let Some(section) = self.raw.services.given() else {
            return BTreeMap::new();
        };
        let default = ServiceTable::default();
        let entries = &section.value.0;
        entries
            .iter()
            .map(|entry| (ServiceName::new(entry.name.clone()), self.service(entry, &default, system)))
            .collect()
    }

    fn service(&mut self, entry: &Named<ServiceTable>, default: &ServiceTable, system: &System) -> Service {
        self.check_name("service", &entry.name, &entry.span);
        let table = entry.body.as_ref().unwrap_or(default);
        let name = entry.name.as_str();
        let path = |key: &str| format!("services.{name}.{key}");
        if !table.addresses.is_absent() {
            return self.external_service(entry, table, system);
        }
        if table.command.is_absent() && table.image.is_absent() && entry.body.is_some() {
            self.error(
                Code::MissingKey,
                &entry.span,
                format!("the service `{name}` has no `command`, `image` or `addresses`"),
            )
            .why("there is nothing to run, and nothing to route to")
            .paste("write", "command = [\"./shop\", \"--listen\", \"{address}:{port}\"]");
        }
        let command = self.command(&table.command, &path("command"));
        let instances = self.number(&table.instances, &path("instances"), 1..=1000, 1);
        let env = self.env(&path("env"), &table.env);
        let runner = Runner {
            what: format!("the service `{name}`"),
            span: &entry.span,
            sites: &table.sites,
            nodes: &table.nodes,
            is_readable: entry.body.is_some(),
        };
        let scale = self.scale(name, table, instances);
        let most = scale.as_ref().map_or(instances, |scale| scale.max);
        let service = Service {
            health: self.health(name, table, &command, &env),
            command,
            image: self.image(name, table),
            addresses: vec![],
            instances,
            placement: self.placement(&runner, system),
            ports: self.pool(table, most),
            env,
            stop_grace: duration_or(&table.stop_grace, Duration::from_secs(10)),
            user: table.user.given().map(|at| at.value.clone()),
            traffic: self.traffic(name, table),
            ready: self.ready(name, table),
            memory: self.memory(&table.memory, &path("memory")),
            after: self.after(name, table),
            protocol: table.protocol.given().map_or(Protocol::Http, |at| at.value.0),
            send_proxy_protocol: table.send_proxy_protocol.given().is_some_and(|at| at.value),
            release: self.releasing(table),
            scale,
            tls: self.instance_tls(name, table),
        };
        self.check_releasing(name, table, &service);
        self.check_proxy_protocol(name, table, &service);
        if let Some(at) = table.user.given() {
            self.check_user("user", at);
        }
        service
    }

    pub(super) fn check_proxy_protocol(&mut self, name: &str, table: &ServiceTable, service: &Service) {
        let span = table.send_proxy_protocol.span();
        if let Some(span) = span.filter(|_| service.send_proxy_protocol && service.protocol != Protocol::Tcp)
        {
            self.error(
                Code::KeyWithoutEffect,
                span,
                format!("`send_proxy_protocol` has no effect on the service `{name}`"),
            )
            .why("one connection to an instance carries the requests of many clients; `X-Forwarded-For` names each")
            .hint("remove it, or write protocol = \"tcp\"");
        }
    }

    /// The range of ports the file gives; 0 to 0 stands for one to be chosen.
    fn pool(&mut self, table: &ServiceTable, instances: u32) -> PortRange {
        let Some(At { value, span }) = table.ports.given() else {
            return PortRange { first: 0, last: 0 };
        };
        let size = value.0.count();
        if size < instances {
            self.error(
                Code::InvalidPorts,
                span,
                format!("{size} ports are too few for {instances} instances"),
            )
            .why("after the loss of other nodes all of them may run on one, each with a port of its own")
            .paste("write for example", "ports = \"20000-20099\"");
        }
        value.0
    }

    /// The words of a command, of which the first must name a program.
    pub(super) fn command(&mut self, field: &Field<Vec<At<String>>>, path: &str) -> Vec<String> {
        let Some(At { value: words, span }) = field.given() else {
            return vec![];
        };
        if words.first().is_none_or(|program| program.value.trim().is_empty()) {
            self.error(Code::EmptyCommand, span, format!("`{path}` names no program"))
                .why("the first text of the list is the program, the others are its arguments")
                .paste("write for example", "command = [\"./shop\", \"--listen\", \"{address}:{port}\"]");
        }
        for word in words {
            self.template(&word.value, &word.span, path);
        }
        words.iter().map(|word| word.value.clone()).collect()
    }

    /// The environment that the file gives at `path`.
    pub(super) fn env(&mut self, path: &str, field: &Field<Section<String>>) -> BTreeMap<String, String> {
        let mut env = BTreeMap::new();
        for variable in field.given().into_iter().flat_map(|section| &section.value.0) {
            let name = &variable.name;
            let good = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(good) {
                self.error(
                    Code::InvalidEnvironment,
                    &variable.span,
                    format!("`{name}` cannot be an environment variable"),
                )
                .why("names are letters, digits and `_`, not beginning with a digit")
                .hint("rename it");
            }
            if let Some(value) = &variable.body {
                self.template(value, &variable.value_span, &format!("{path}.{name}"));
                env.insert(name.clone(), value.clone());
            }
        }
        env
    }

    /// Reports placeholders that do not exist or do not fit.
    fn template(&mut self, text: &str, span: &Range<usize>, path: &str) {
        if text.contains('\0') {
            self.error(Code::EmptyCommand, span, format!("`{path}` holds a zero byte"))
                .why("programs get their arguments and environment as texts that end with one");
        }
        for found in placeholder::find(text) {
            match found {
                Ok(Placeholder::Route { name, part }) => self.route_placeholder(&name, part, span),
                Ok(_) => {}
                Err(error) => {
                    let meant =
                        error.meant().map(|(old, new)| self.findings.line_with_part(span, &old, &new));
                    let problem = self.error(Code::UnknownPlaceholder, span, format!("`{path}`: {error}"));
                    problem.why(format!("placeholders are {}", placeholder::ALL));
                    match meant {
                        Some(meant) => problem.paste("did you mean", meant),
                        None => problem.hint("write {{ and }} for braces that shall stay"),
                    };
                }
            }
        }
    }

    fn route_placeholder(&mut self, name: &str, part: RoutePart, span: &Range<usize>) {
        if !self.refers_by(Code::UnknownRoute, "route", name, span, &self.raw.routes) {
            return;
        }
        let routes = self.raw.routes.given().into_iter().flat_map(|section| &section.value.0);
        let to_service = |table: &RouteTable| table.database.is_absent() && !table.service.is_absent();
        let leads_to_service =
            routes.filter(|r| r.name == name).filter_map(|r| r.body.as_ref()).any(to_service);
        if part == RoutePart::Dsn && leads_to_service {
            let (old, new) = (format!("{{route.{name}.dsn}}"), format!("{{route.{name}.address}}"));
            let paste = self.findings.line_with_part(span, &old, &new);
            self.error(
                Code::UnknownPlaceholder,
                span,
                format!("the route `{name}` leads to a service and has no dsn"),
            )
            .why("a dsn is the connection string of a database")
            .paste("write", paste);
        }
    }

    /// Where `runner` may run.
    pub(super) fn placement(&mut self, runner: &Runner<'_>, system: &System) -> Placement {
        let (sites, nodes) = (texts(runner.sites), texts(runner.nodes));
        let mut known = true;
        for site in sites {
            known &= self.refers("site", site, &self.raw.sites);
        }
        for node in nodes {
            known &= self.refers("node", node, &self.raw.nodes);
        }
        let placement = Placement {
            sites: sites.iter().map(|at| SiteName::new(at.value.clone())).collect(),
            nodes: nodes.iter().map(|at| NodeName::new(at.value.clone())).collect(),
        };
        let readable = known && runner.is_readable && !system.nodes.is_empty();
        if readable && !system.workers().any(|(name, node)| placement.allows(name, &node.site)) {
            self.report_nowhere(runner, &placement, system);
        }
        placement
    }

    fn report_nowhere(&mut self, runner: &Runner<'_>, placement: &Placement, system: &System) {
        let what = &runner.what;
        let span = runner.nodes.span().or(runner.sites.span()).unwrap_or(runner.span);
        let wished: BTreeSet<&NodeName> =
            system.nodes.iter().filter(|(n, node)| placement.allows(n, &node.site)).map(|(n, _)| n).collect();
        if wished.is_empty() {
            self.error(Code::NowhereToRun, span, format!("{what} may run on no node"))
                .why("none of the named nodes stands in a named site, or a named site has no node")
                .hint("name nodes or sites, not both");
        } else {
            self.error(Code::WitnessService, span, format!("{what} may run only where nodes only vote"))
                .why("a site with `witness = true` runs no service and no job")
                .hint("name a node or site without `witness = true`, or remove the limit");
        }
    }

    fn health(
        &mut self,
        name: &str,
        table: &ServiceTable,
        command: &[String],
        env: &BTreeMap<String, String>,
    ) -> Health {
        let uses_port = command.iter().chain(env.values()).any(|text| placeholder::uses_port(text));
        let unasked = if uses_port { Probe::Tcp } else { Probe::Process };
        self.asked(name, table, unasked)
    }

    /// The health that the file describes; `unasked` where it names no question.
    pub(super) fn asked(&mut self, name: &str, table: &ServiceTable, unasked: Probe) -> Health {
        let default = HealthTable::default();
        let health = table.health.given().map_or(&default, |at| &at.value);
        let path = |key: &str| format!("services.{name}.health.{key}");
        Health {
            probe: self.probe(name, "health", health).unwrap_or(unasked),
            interval: self.at_least(&health.interval, &path("interval"), 50, 500),
            timeout: self.at_least(&health.timeout, &path("timeout"), 10, 1000),
            healthy_after: self.number(&health.healthy_after, &path("healthy_after"), 1..=100, 1),
            unhealthy_after: self.number(&health.unhealthy_after, &path("unhealthy_after"), 1..=100, 2),
            restart_after: self.at_least(&health.restart_after, &path("restart_after"), 1000, 10_000),
        }
    }

    /// The question the file names, if it names one.
    pub(super) fn probe(&mut self, name: &str, key: &str, health: &HealthTable) -> Option<Probe> {
        let spans = [health.http.span(), health.tcp.span(), health.command.span()];
        if let [Some(_), Some(second), ..] | [Some(_), _, Some(second)] | [_, Some(_), Some(second)] = spans {
            self.error(Code::KeyWithoutEffect, second, format!("`services.{name}.{key}` asks in two ways"))
                .why("one question decides whether an instance works")
                .hint("keep one of `http`, `tcp` and `command`");
        }
        if let Some(at) = health.http.given() {
            if !at.value.starts_with('/') || at.value.chars().any(|c| c.is_whitespace() || c.is_control()) {
                self.error(
                    Code::InvalidPath,
                    &at.span,
                    format!("`services.{name}.{key}.http` is not the path of a page"),
                )
                .why("it must begin with `/` and hold no blanks")
                .paste("write for example", format!("{key}.http = \"/healthz\""));
            }
            return Some(Probe::Http { path: at.value.clone() });
        }
        if let Some(tcp) = health.tcp.given() {
            return Some(if tcp.value { Probe::Tcp } else { Probe::Process });
        }
        health.command.given()?;
        Some(Probe::Command {
            command: self.command(&health.command, &format!("services.{name}.{key}.command")),
        })
    }

    /// The duration `field` gives, of at least `min` milliseconds.
    pub(super) fn at_least(
        &mut self,
        field: &Field<HumanDuration>,
        path: &str,
        min: u64,
        default: u64,
    ) -> Duration {
        let duration = duration_or(field, Duration::from_millis(default));
        if let Some(span) = field.span().filter(|_| duration < Duration::from_millis(min)) {
            let paste = self.findings.line_with(span, &format!("\"{min}ms\""));
            self.error(Code::InvalidDuration, span, format!("`{path}` is too short"))
                .why("asking costs more than it tells")
                .paste("at least", paste);
        }
        duration
    }

    /// Reports a text that cannot be a user of the operating system.
    pub(super) fn check_user(&mut self, key: &str, at: &At<String>) {
        let user = at.value.as_str();
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-' || c == '.';
        let good = user.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && user.chars().all(inner);
        if !good || user.len() > 32 {
            self.error(Code::InvalidUser, &at.span, format!("`{key}` is not the name of a user"))
                .why("names of users are letters, digits, `_`, `-` and `.`, beginning with a letter, at most 32 characters")
                .hint("name a user that exists on every node");
        }
    }
}

pub(super) fn duration_or(field: &Field<HumanDuration>, default: Duration) -> Duration {
    field.given().map_or(default, |at| at.value.0)
}

/// Something that runs on one of several nodes.
pub(super) struct Runner<'r> {
    /// What it is called in messages.
    pub(super) what: String,
    /// Where its name stands.
    pub(super) span: &'r Range<usize>,
    pub(super) sites: &'r Field<Vec<At<String>>>,
    pub(super) nodes: &'r Field<Vec<At<String>>>,
    /// Whether its section could be read.
    pub(super) is_readable: bool,
}

fn texts(field: &Field<Vec<At<String>>>) -> &[At<String>] {
    field.given().map_or(&[], |at| &at.value)
}
