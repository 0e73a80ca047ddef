//! Routes.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::problem::Code;
use super::super::read::tables::RouteTable;
use super::super::read::{At, Named};
use super::super::{Listen, Role, Route, RouteTarget, System};
use super::Check;
use super::services::duration_or;
use crate::{DatabaseName, RouteName, ServiceName};

impl Check<'_, '_> {
    pub(super) fn routes(&mut self, system: &System) -> BTreeMap<RouteName, Route> {
        let Some(section) = self.raw.routes.given() else {
            return BTreeMap::new();
        };
        let default = RouteTable::default();
        let entries = &section.value.0;
        entries
            .iter()
            .map(|entry| (RouteName::new(entry.name.clone()), self.route(entry, &default, system)))
            .collect()
    }

    fn route(&mut self, entry: &Named<RouteTable>, default: &RouteTable, system: &System) -> Route {
        self.check_name("route", &entry.name, &entry.span);
        let table = entry.body.as_ref().unwrap_or(default);
        let name = entry.name.as_str();
        if table.listen.is_absent() && entry.body.is_some() {
            self.error(Code::MissingKey, &entry.span, format!("the route `{name}` has no `listen`"))
                .why("clients could not connect to it")
                .paste("write", "listen = \":8080\"");
        }
        let listen = table.listen.given().map_or(Listen { address: None, port: 0 }, |at| at.value.0);
        self.check_listen(entry, listen, system);
        Route {
            listen,
            target: self.target(entry, table, system),
            park_limit: duration_or(&table.park_limit, Duration::from_secs(10)),
            park_connections: self.number(
                &table.park_connections,
                &format!("routes.{name}.park_connections"),
                0..=100_000,
                1000,
            ),
            carriage: self.carriage(entry, table, system),
        }
    }

    /// A route with an address listens on the nodes that have it; some node must.
    fn check_listen(&mut self, entry: &Named<RouteTable>, listen: Listen, system: &System) {
        let span = entry.body.as_ref().and_then(|table| table.listen.span());
        let (Some(address), Some(span)) = (listen.address, span) else {
            return;
        };
        let here = |(_, node): (_, &super::super::Node)| node.lines.values().any(|ip| *ip == address);
        let readable = system.nodes.values().all(|node| !node.lines.is_empty());
        if readable && !address.is_loopback() && !system.workers().any(here) {
            self.error(
                Code::InvalidListen,
                span,
                format!("no node can listen on {address} for the route `{}`", entry.name),
            )
            .why("no node outside witness sites has this address")
            .paste("listen on every address of each node", format!("listen = \":{}\"", listen.port));
        }
    }

    fn target(&mut self, entry: &Named<RouteTable>, table: &RouteTable, system: &System) -> RouteTarget {
        let name = entry.name.as_str();
        if let (Some(_), Some(database)) = (table.service.span(), table.database.span()) {
            self.error(
                Code::RouteTarget,
                database,
                format!("the route `{name}` leads to a service and to a database"),
            )
            .why("the two speak different protocols")
            .hint("make two routes of it");
        }
        if table.service.is_absent() && table.database.is_absent() && entry.body.is_some() {
            let target = self.some_target();
            self.error(Code::RouteTarget, &entry.span, format!("the route `{name}` leads nowhere"))
                .why("it needs a service or a database to pass its clients to")
                .paste("write", target);
        }
        match (table.service.given(), table.database.given()) {
            (_, Some(at)) => self.database_target(entry, table, at, system),
            (Some(at), None) => self.service_target(name, table, at),
            (None, None) => RouteTarget::Service { service: "broken".into() },
        }
    }

    /// What a route of this file could lead to.
    fn some_target(&self) -> String {
        let service = self.raw.services.given().and_then(|s| s.value.names().next().map(str::to_owned));
        let database = self.raw.databases.given().and_then(|s| s.value.names().next().map(str::to_owned));
        match (service, database) {
            (None, Some(database)) => format!("database = \"{database}\""),
            (service, _) => format!("service = \"{}\"", service.as_deref().unwrap_or("web")),
        }
    }

    fn service_target(&mut self, name: &str, table: &RouteTable, at: &At<String>) -> RouteTarget {
        self.refers("service", at, &self.raw.services);
        let keys = [
            ("target", table.target.span()),
            ("park_limit", table.park_limit.span()),
            ("park_connections", table.park_connections.span()),
        ];
        for (key, span) in keys {
            if let Some(span) = span.filter(|_| table.database.is_absent()) {
                self.error(
                    Code::KeyWithoutEffect,
                    span,
                    format!("`{key}` has no effect on the route `{name}`"),
                )
                .why("it says which member of a database takes a connection and how long one waits for it")
                .hint("remove it");
            }
        }
        RouteTarget::Service { service: ServiceName::new(at.value.clone()) }
    }

    fn database_target(
        &mut self,
        entry: &Named<RouteTable>,
        table: &RouteTable,
        at: &At<String>,
        system: &System,
    ) -> RouteTarget {
        self.refers("database", at, &self.raw.databases);
        let role = table.target.given().map_or(Role::Primary, |at| at.value.0);
        let database = DatabaseName::new(at.value.clone());
        let members = system.databases.get(&database).map(|database| database.members.len());
        if let (Role::Standby, Some(1), Some(span)) = (role, members, table.target.span()) {
            self.error(
                Code::NoSuchRole,
                span,
                format!("the route `{}` leads to standbys, of which `{database}` has none", entry.name),
            )
            .why("the database has one member, which is its primary")
            .paste("write", "target = \"any\"");
        }
        RouteTarget::Database { database, role }
    }
}
