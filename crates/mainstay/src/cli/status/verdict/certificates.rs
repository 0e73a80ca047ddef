//! Certificates of routes that clients refuse or soon will, and files that proxies cannot use.

use std::collections::BTreeMap;

use model::RouteName;

use super::troubles::trouble;
use super::{Level, Trouble};
use crate::cli::columns::listed;
use crate::cli::status::certificates::{Certificate, Standing, length, of_route};
use crate::cli::status::view::View;

/// What to do about a certificate.
const RENEW: &str = "put a new certificate with its key in their place: they are read again by themselves";

/// How proxies begin what they say of instances that speak TLS.
const UNTRUSTED: &str = "TLS to ";

/// Everything that is wrong with the files of a route.
pub(super) fn all(view: &View, route: &RouteName, now: i64) -> Vec<Trouble> {
    let certificates = of_route(view, route, now);
    let mut all = certificate(route, &certificates, now);
    all.extend(files(view, route, &certificates));
    all
}

/// The certificates that clients refuse or soon will, those that are the same on several nodes together.
fn certificate(route: &RouteName, certificates: &[Certificate], now: i64) -> Vec<Trouble> {
    let mut bad: BTreeMap<(Standing, i64), Vec<&str>> = BTreeMap::new();
    for one in certificates {
        let Some(report) = &one.report else { continue };
        let moment = if one.standing == Standing::TooEarly { report.begins } else { report.ends };
        bad.entry((one.standing.clone(), moment)).or_default().push(one.node.as_str());
    }
    let everywhere = bad.len() == 1;
    let told = bad.into_iter().filter_map(|((standing, moment), nodes)| {
        let on = if everywhere { String::new() } else { format!(" on {}", listed(nodes)) };
        let whose = format!("the certificate of the route {route}{on}");
        let refuse = "clients refuse it";
        let (level, what) = match standing {
            Standing::Good | Standing::Missing => return None,
            Standing::EndsSoon => (Level::Degraded, format!("{whose} ends in {}", length(moment - now))),
            Standing::WrongNames(hosts) => {
                (Level::Degraded, format!("{whose} is not for {hosts}: {refuse} there"))
            }
            Standing::TooEarly => (
                Level::Degraded,
                format!("{whose} counts only in {}: until then {refuse}", length(moment - now)),
            ),
            Standing::Over => {
                // Not served at all is whoever finds no other node.
                let level = if everywhere { Level::Down } else { Level::Degraded };
                (level, format!("{whose} has ended {} ago: {refuse}", length(now - moment)))
            }
        };
        Some(trouble(level, format!("route/{route}"), what).unblock(Some(RENEW)))
    });
    told.collect()
}

/// Files that proxies cannot use, those that say the same together.
fn files(view: &View, route: &RouteName, certificates: &[Certificate]) -> Vec<Trouble> {
    let mut troubles: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let here = || view.traffic.iter().filter(|(node, _)| view.is_here(node));
    for (node, report) in here() {
        let told =
            report.routes.iter().filter(|report| report.route == *route).flat_map(|told| &told.troubles);
        told.for_each(|text| troubles.entry(text).or_default().push(node.as_str()));
    }
    let missing = |node: &str| {
        certificates.iter().any(|one| one.node.as_str() == node && one.standing == Standing::Missing)
    };
    let told = troubles.into_iter().map(|(text, nodes)| {
        let none = text.starts_with("TLS: ") && nodes.iter().all(|node| missing(node));
        let everywhere = nodes.len() == here().count();
        let on = if everywhere { String::new() } else { format!(" on {}", listed(nodes.iter().copied())) };
        if text.starts_with(UNTRUSTED) {
            let what = format!("the route {route}{on} has an instance that is not trusted: {text}");
            let help = "`tls` of the service says who signs certificates of its instances and which name they are for";
            return trouble(Level::Degraded, format!("route/{route}"), what).unblock(Some(help));
        }
        let (level, what) = match (none, everywhere) {
            (true, true) => (Level::Down, format!("the route {route} has no certificate to show: {text}")),
            (true, false) => {
                (Level::Degraded, format!("the route {route}{on} has no certificate to show: {text}"))
            }
            (false, _) => (Level::Degraded, format!("the route {route}{on} cannot use a file: {text}")),
        };
        let help = "put it right where it lies: it is read again by itself";
        trouble(level, format!("route/{route}"), what).unblock(Some(help))
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use model::routes::{CertificateReport, ProxyReport, RouteReport};

    use super::*;
    use crate::cli::testkit::{described, healthy, view};

    const FILE: &str = "[system]\nname = \"shop\"\n[nodes.a]\naddress = \"10.0.0.1\"\n[nodes.b]\naddress = \"10.0.0.2\"\n\
        [nodes.c]\naddress = \"10.0.0.3\"\n[services.web]\ncommand = [\"./web\", \"{port}\"]\ninstances = 3\n\
        [routes.public]\nlisten = \":443\"\nservice = \"web\"\nhost = \"shop.example\"\n\
        tls = { certificate = \"/etc/c.pem\", key = \"/etc/k.pem\" }\n";

    const NOW: i64 = 1_800_000_000;
    const DAY: i64 = 24 * 3600;

    /// A certificate that ends in so many days, for this name.
    fn ends_in(days: i64, name: &str) -> Option<CertificateReport> {
        let (begins, ends) = (NOW - 90 * DAY, NOW + days * DAY);
        Some(CertificateReport { begins, ends, names: vec![name.to_owned()] })
    }

    /// What is told when the proxies of a and b say this.
    fn told(on: [(Option<CertificateReport>, &[&str]); 2]) -> String {
        let system = described(FILE);
        let answers = ["a", "b"].into_iter().zip(on).map(|(node, (certificate, troubles))| {
            let route = RouteReport {
                route: "public".into(),
                open: 0,
                parked: 0,
                accepted: 0,
                failed: 0,
                retried: 0,
                ejected: vec![],
                panic: false,
                troubles: troubles.iter().map(|text| (*text).to_owned()).collect(),
                certificate,
                instances: vec![],
            };
            let mut overview = healthy(&system, node);
            overview.traffic = ProxyReport { routes: vec![route] };
            overview
        });
        let view = view(system.clone(), answers);
        let all = all(&view, &"public".into(), NOW).into_iter();
        all.map(|one| format!("{:?}: {}\n  {}\n", one.level, one.what, one.unblock.unwrap_or_default()))
            .collect()
    }

    #[test]
    fn what_clients_refuse_or_soon_will_is_told_with_what_helps() {
        let good = || ends_in(60, "shop.example");
        assert_eq!(told([(good(), &[]), (good(), &[])]), "");
        let bad = "TLS: /etc/c.pem and /etc/k.pem: the key is not PEM";
        let cases = [
            ("ends soon", told([(ends_in(20, "shop.example"), &[]), (ends_in(20, "shop.example"), &[])])),
            ("ends soon on one", told([(good(), &[]), (ends_in(1, "shop.example"), &[])])),
            ("over", told([(ends_in(-2, "shop.example"), &[]), (ends_in(-2, "shop.example"), &[])])),
            ("over on one", told([(good(), &[]), (ends_in(-2, "shop.example"), &[])])),
            (
                "another name",
                told([(ends_in(60, "other.example"), &[]), (ends_in(60, "other.example"), &[])]),
            ),
            ("none", told([(None, &[bad]), (None, &[bad])])),
            ("none on one", told([(good(), &[]), (None, &[bad])])),
            (
                "instances",
                told([(good(), &["TLS to web-1@a: invalid peer certificate: UnknownIssuer"]), (good(), &[])]),
            ),
            ("the former one", told([(good(), &[bad]), (good(), &[bad])])),
        ];
        let text: String = cases.iter().map(|(name, told)| format!("-- {name}\n{told}")).collect();
        insta::assert_snapshot!(text);
    }
}
