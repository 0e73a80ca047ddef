//! Services that others run: addresses that are only routed to and asked.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use super::super::problem::Code;
use super::super::read::tables::ServiceTable;
use super::super::read::{At, Named};
use super::super::{
    ExternalAddress, Listen, Placement, PortRange, Probe, Protocol, Releasing, RouteTarget, Service, System,
};
use super::Check;
use crate::SiteName;

/// More addresses than this do not make one service.
const MAX_ADDRESSES: usize = 1000;

impl Check<'_, '_> {
    /// The service of an entry that says `addresses`.
    pub(super) fn external_service(
        &mut self,
        entry: &Named<ServiceTable>,
        table: &ServiceTable,
        system: &System,
    ) -> Service {
        let name = entry.name.as_str();
        self.check_not_run(name, table);
        let service = Service {
            command: vec![],
            image: None,
            addresses: self.addresses(name, table, system),
            instances: 0,
            placement: Placement::default(),
            ports: PortRange { first: 0, last: 0 },
            health: self.asked(name, table, Probe::Tcp),
            env: BTreeMap::new(),
            stop_grace: Duration::from_secs(10),
            user: None,
            traffic: self.traffic(name, table),
            ready: None,
            memory: None,
            after: vec![],
            protocol: table.protocol.given().map_or(Protocol::Http, |at| at.value.0),
            send_proxy_protocol: table.send_proxy_protocol.given().is_some_and(|at| at.value),
            release: Releasing::default(),
            scale: None,
            tls: self.instance_tls(name, table),
        };
        self.check_proxy_protocol(name, table, &service);
        service
    }

    fn addresses(&mut self, name: &str, table: &ServiceTable, system: &System) -> Vec<ExternalAddress> {
        let Some(At { value: listed, span }) = table.addresses.given() else {
            return vec![];
        };
        let count = listed.0.len();
        if count == 0 || count > MAX_ADDRESSES {
            self.error(
                Code::InvalidAddress,
                span,
                format!("`services.{name}.addresses` has {count} addresses"),
            )
            .why(format!("requests are routed to at least one, and to {MAX_ADDRESSES} at most"))
            .paste("write for example", "addresses = [\"10.0.5.1:8080\"]");
        }
        let (mut seen, mut addresses) = (BTreeMap::new(), vec![]);
        for one in listed.0.iter().take(MAX_ADDRESSES) {
            let At { value: address, span } = &one.address;
            if let Some((site, span)) = &one.site {
                self.refers_by(Code::UnknownSite, "site", site, span, &self.raw.sites);
                self.check_site(site, span, system);
            }
            if let Some(first) = seen.insert(*address, span.clone()) {
                self.error(Code::DuplicateAddress, span, format!("`services.{name}` names {address} twice"))
                    .why("it would be one instance all the same")
                    .hint("remove one of them")
                    .other(&first, "the first time");
                continue;
            }
            let site = one.site.as_ref().map(|(site, _)| SiteName::new(site.clone()));
            addresses.push(ExternalAddress { address: *address, site });
        }
        addresses
    }

    /// Proxies run outside witness sites only, so that nobody is near to what stands there.
    fn check_site(&mut self, site: &str, span: &Range<usize>, system: &System) {
        if system.sites.get(site).is_some_and(|site| site.witness) {
            self.error(
                Code::WitnessService,
                span,
                format!("addresses cannot be nearer to the site `{site}`"),
            )
            .why("it only votes: no proxy runs there that could prefer them")
            .hint("name another site, or list them without one");
        }
    }

    /// Reports keys that say how to run something.
    fn check_not_run(&mut self, name: &str, table: &ServiceTable) {
        if let (Some(command), Some(addresses)) = (table.command.span(), table.addresses.span()) {
            self.error(
                Code::KeyWithoutEffect,
                addresses,
                format!("the service `{name}` has both `command` and `addresses`"),
            )
            .why("its instances are either started here or run by others")
            .hint("keep one of them, or make two services of it")
            .other(command, "the command");
        }
        if let (Some(image), Some(addresses)) = (table.image.span(), table.addresses.span()) {
            self.error(
                Code::KeyWithoutEffect,
                addresses,
                format!("the service `{name}` has both `image` and `addresses`"),
            )
            .why("its instances are either started here or run by others")
            .hint("keep one of them, or make two services of it")
            .other(image, "the image");
        }
        let health = table.health.given().map(|at| &at.value);
        let traffic = table.traffic.given().map(|at| &at.value);
        let keys = [
            ("instances", table.instances.span()),
            ("sites", table.sites.span()),
            ("nodes", table.nodes.span()),
            ("ports", table.ports.span()),
            ("env", table.env.span()),
            ("stop_grace", table.stop_grace.span()),
            ("user", table.user.span()),
            ("ready", table.ready.span()),
            ("memory", table.memory.span()),
            ("after", table.after.span()),
            ("release", table.release.span()),
            ("scale", table.scale.span()),
            ("health.command", health.and_then(|health| health.command.span())),
            ("health.restart_after", health.and_then(|health| health.restart_after.span())),
            ("traffic.weights", traffic.and_then(|traffic| traffic.weights.span())),
        ];
        for (key, span) in keys {
            if let Some(span) = span.filter(|_| table.command.is_absent() && table.image.is_absent()) {
                self.error(
                    Code::KeyWithoutEffect,
                    span,
                    format!("`{key}` has no effect on the service `{name}`"),
                )
                .why("others run it, on no node of this system: requests are routed to its addresses, nothing else")
                .hint("remove it");
            }
        }
    }

    /// Reports routes whose service is the route itself: each request would go round and round.
    pub(super) fn check_loops(&mut self, system: &System) {
        let own: BTreeSet<_> = system.nodes.values().flat_map(|node| node.lines.values().copied()).collect();
        for (route_name, route) in &system.routes {
            let RouteTarget::Service { service } = &route.target else { continue };
            let Listen { address, port } = route.listen;
            let listens = |at: &std::net::SocketAddr| {
                let ip = at.ip().to_canonical();
                at.port() == port && address.map_or(own.contains(&ip) || ip.is_loopback(), |own| own == ip)
            };
            let services = self.raw.services.given().into_iter().flat_map(|section| &section.value.0);
            let of = services.filter(|entry| entry.name == service.as_str());
            let listed =
                of.filter_map(|entry| entry.body.as_ref()?.addresses.given()).flat_map(|at| &at.value.0);
            let back: Vec<_> = listed.map(|one| &one.address).filter(|at| listens(&at.value)).collect();
            for at in back {
                self.error(
                    Code::RouteTarget,
                    &at.span,
                    format!("the route `{route_name}` leads back to itself at {}", at.value),
                )
                .why(format!("it listens there, and leads to `{service}`, which has this address"))
                .hint("give the route another port, or name where the service itself listens");
            }
        }
    }
}
