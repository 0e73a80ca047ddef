//! How routes to services speak with their clients.

use std::ops::Range;
use std::time::Duration;

use super::super::problem::Code;
use super::super::read::tables::{LimitsTable, RouteTable, TlsTable};
use super::super::read::{At, Field, HumanDuration, Named};
use super::super::{Carriage, Limits, PathPrefix, Protocol, SourceRange, System, TlsFiles};
use super::Check;
use super::services::duration_or;
use crate::{RouteName, ServiceName};

/// The shortest time that a client may be given for anything.
const SHORTEST: Duration = Duration::from_millis(100);

impl Check<'_, '_> {
    /// What the route's table says about its carriage; what has no effect where it leads is reported.
    pub(super) fn carriage(
        &mut self,
        entry: &Named<RouteTable>,
        table: &RouteTable,
        system: &System,
    ) -> Carriage {
        self.check_effect(entry, table, system);
        let key = |key: &str| format!("routes.{}.{key}", entry.name);
        let port = |check: &mut Self, field| check.port(field, &key("redirect_https"));
        Carriage {
            hosts: self.hosts(table, &key("host")),
            path: self.path_prefix(&table.path, &key("path")),
            tls: table.tls.given().and_then(|at| self.tls(&at.value, &at.span, &entry.name)),
            redirect_https: port(self, &table.redirect_https),
            limits: table.limits.given().map_or(Limits::default(), |at| self.limits(&at.value, &entry.name)),
            maintenance: self.path(&table.maintenance, &key("maintenance")),
            trusted_proxies: self.ranges(&table.trusted_proxies, &key("trusted_proxies")),
            proxy_protocol: self.ranges(&table.proxy_protocol, &key("proxy_protocol")),
            access_log: table
                .access_log
                .given()
                .map(|_| self.number(&table.access_log, &key("access_log"), 1..=1_000_000, 1)),
        }
    }

    /// Keys of requests have no effect on connections, and none of them has on those to a database.
    fn check_effect(&mut self, entry: &Named<RouteTable>, table: &RouteTable, system: &System) {
        let service = table.service.given().map(|at| ServiceName::new(at.value.clone()));
        let is_tcp =
            service.and_then(|name| system.services.get(&name)).map(|s| s.protocol) == Some(Protocol::Tcp);
        let is_database = table.service.is_absent() && !table.database.is_absent();
        let of_requests = [
            ("host", table.host.span()),
            ("path", table.path.span()),
            ("tls", table.tls.span()),
            ("redirect_https", table.redirect_https.span()),
            ("limits", table.limits.span()),
            ("maintenance", table.maintenance.span()),
            ("trusted_proxies", table.trusted_proxies.span()),
            ("access_log", table.access_log.span()),
        ];
        let of_connections = [("proxy_protocol", table.proxy_protocol.span())];
        let why = if is_tcp {
            "its service has `protocol = \"tcp\"`, and bytes are passed on as they are"
        } else {
            "it leads to a database"
        };
        let idle = if is_database { &of_connections[..] } else { &[] };
        let idle = of_requests.iter().filter(|_| is_tcp || is_database).chain(idle);
        let found: Vec<_> = idle.filter_map(|(key, span)| Some((*key, span.cloned()?))).collect();
        for (key, span) in found {
            self.error(
                Code::KeyWithoutEffect,
                &span,
                format!("`{key}` has no effect on the route `{}`", entry.name),
            )
            .why(why)
            .hint("remove it");
        }
    }

    fn hosts(&mut self, table: &RouteTable, path: &str) -> Vec<String> {
        let given = table.host.given().map_or(&[][..], |at| &at.value.0);
        for at in given {
            if !is_host(&at.value) {
                self.error(Code::InvalidHost, &at.span, format!("`{path}` = {:?} is not the name of a host", at.value))
                    .why("it takes labels of letters, digits and `-` between points, without a port; `*.` may stand before them")
                    .paste("write for example", "host = \"shop.example\"");
            }
        }
        given.iter().map(|at| at.value.to_ascii_lowercase()).collect()
    }

    fn path_prefix(&mut self, field: &Field<String>, path: &str) -> PathPrefix {
        let Some(At { value, span }) = field.given() else {
            return PathPrefix::default();
        };
        let odd = |c: char| c.is_whitespace() || c.is_control() || "?#\\".contains(c);
        if !value.starts_with('/') || value.contains("//") || value.chars().any(odd) {
            self.error(Code::InvalidPath, span, format!("`{path}` is not the beginning of a path"))
                .why("it must begin with `/` and hold no blanks, no `?` and no empty segment")
                .paste("write for example", "path = \"/api\"");
        }
        PathPrefix::new(value)
    }

    fn tls(&mut self, table: &TlsTable, span: &Range<usize>, route: &str) -> Option<TlsFiles> {
        let missing = match (table.certificate.is_absent(), table.key.is_absent()) {
            (true, _) => Some("certificate"),
            (false, true) => Some("key"),
            (false, false) => None,
        };
        if let Some(missing) = missing {
            self.error(Code::MissingKey, span, format!("`routes.{route}.tls` has no `{missing}`"))
                .why("HTTPS needs a certificate and its private key")
                .paste("write", "tls = { certificate = \"/etc/shop/tls.crt\", key = \"/etc/shop/tls.key\" }");
        }
        let certificate = self.path(&table.certificate, &format!("routes.{route}.tls.certificate"));
        let key = self.path(&table.key, &format!("routes.{route}.tls.key"));
        Some(TlsFiles { certificate: certificate?, key: key? })
    }

    fn limits(&mut self, table: &LimitsTable, route: &str) -> Limits {
        let default = Limits::default();
        let key = |key: &str| format!("routes.{route}.limits.{key}");
        Limits {
            headers: self.number(&table.headers, &key("headers"), 8..=1000, default.headers),
            header_bytes: self.number(
                &table.header_bytes,
                &key("header_bytes"),
                8 << 10..=64 << 10,
                default.header_bytes,
            ),
            header_timeout: self.patience(
                &table.header_timeout,
                &key("header_timeout"),
                default.header_timeout,
            ),
            idle_timeout: self.patience(&table.idle_timeout, &key("idle_timeout"), default.idle_timeout),
            body_timeout: self.patience(&table.body_timeout, &key("body_timeout"), default.body_timeout),
        }
    }

    fn patience(&mut self, field: &Field<HumanDuration>, path: &str, default: Duration) -> Duration {
        let duration = duration_or(field, default);
        if let Some(span) = field.span().filter(|_| duration < SHORTEST) {
            let paste = self.findings.line_with(span, "\"100ms\"");
            self.error(Code::InvalidDuration, span, format!("`{path}` is too short"))
                .why("no client on a real network is that quick")
                .paste("at least", paste);
        }
        duration
    }

    fn ranges(&mut self, field: &Field<Vec<At<String>>>, path: &str) -> Vec<SourceRange> {
        let mut ranges = vec![];
        for At { value, span } in field.given().map_or(&[][..], |at| &at.value) {
            match value.parse() {
                Ok(range) => ranges.push(range),
                Err(error) => {
                    let error: super::super::carriage::NoRange = error;
                    let paste = self.findings.line_with(span, "\"10.0.0.0/8\"");
                    self.error(
                        Code::InvalidRange,
                        span,
                        format!("`{path}` = {value:?} is not a range of addresses"),
                    )
                    .why(error.to_string())
                    .paste("write for example", paste);
                }
            }
        }
        ranges
    }

    /// Whether two routes that listen in exactly one place are told apart by what requests ask for. What they would have
    /// to agree on is reported here.
    pub(super) fn share(
        &mut self,
        first: &RouteName,
        second: &RouteName,
        spans: [&Range<usize>; 2],
        system: &System,
    ) -> bool {
        let (Some(a), Some(b)) = (system.routes.get(first), system.routes.get(second)) else { return false };
        let takes_requests = |route: &super::super::Route| match &route.target {
            super::super::RouteTarget::Service { service } => {
                system.services.get(service).is_none_or(|service| service.protocol != Protocol::Tcp)
            }
            super::super::RouteTarget::Database { .. } => false,
        };
        if a.listen != b.listen || !takes_requests(a) || !takes_requests(b) {
            return false;
        }
        let (a, b) = (&a.carriage, &b.carriage);
        let one_host =
            (a.hosts.is_empty() && b.hosts.is_empty()) || a.hosts.iter().any(|host| b.hosts.contains(host));
        if one_host && a.path == b.path {
            return self.not_told_apart(first, second, spans);
        }
        let differs = [
            ("tls", a.tls.is_some() != b.tls.is_some()),
            ("proxy_protocol", a.proxy_protocol != b.proxy_protocol),
            ("limits", a.limits != b.limits),
        ];
        if let Some((key, _)) = differs.iter().find(|(_, differs)| *differs) {
            self.error(
                Code::SharedListen,
                spans[1],
                format!("the routes `{first}` and `{second}` share a place to listen but differ in `{key}`"),
            )
            .why("it holds before a request has said which route it means")
            .hint(format!("write the same `{key}` for both, or let them listen in two places"))
            .other(spans[0], "the other route");
        }
        true
    }

    fn not_told_apart(&mut self, first: &RouteName, second: &RouteName, spans: [&Range<usize>; 2]) -> bool {
        self.error(
            Code::DuplicatePort,
            spans[1],
            format!("the routes `{first}` and `{second}` listen in one place for the same host and path"),
        )
        .why("a request could not say which of them it means")
        .hint("give one of them another `host`, `path` or `listen`")
        .other(spans[0], "the other route");
        true
    }
}

/// Whether `text` can be the host of a request, or `*.` and such a host.
pub(super) fn is_host(text: &str) -> bool {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let label = |label: &str| !label.is_empty() && label.len() <= 63 && label.chars().all(good);
    let address = text.parse::<std::net::IpAddr>().is_ok();
    address || (name.len() <= 253 && name.split('.').all(label))
}
