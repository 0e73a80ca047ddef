//! The certificates of routes, as the proxies that show them see them.

use std::time::{SystemTime, UNIX_EPOCH};

use model::routes::CertificateReport;
use model::{NodeName, RouteName};

use super::view::View;

const DAY: i64 = 24 * 3600;

/// A certificate that ends within so many days should have been replaced: those who make them do so a month before. One that
/// counts for less time in all is late when a third of it is left.
const SOON: i64 = 21 * DAY;

/// Names that a certificate lacks are listed up to so many.
const LISTED: usize = 3;

/// How a route's certificate is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// As it should be.
    Good,
    /// It ends soon.
    EndsSoon,
    /// It is for other names than the route's.
    WrongNames(String),
    /// Its time has not come.
    TooEarly,
    /// Its time is over.
    Over,
    /// There is none that can be used.
    Missing,
}

/// The certificate of one route on one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Certificate {
    pub(crate) node: NodeName,
    pub(crate) report: Option<CertificateReport>,
    pub(crate) standing: Standing,
}

/// The present moment, in seconds since the Unix epoch.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// The certificates of a route with TLS, on every node whose proxy has told of it.
pub(crate) fn of_route(view: &View, route: &RouteName, now: i64) -> Vec<Certificate> {
    let Some(config) = view.system.routes.get(route).filter(|route| route.carriage.tls.is_some()) else {
        return vec![];
    };
    let mut all = vec![];
    for (node, report) in view.traffic.iter().filter(|(node, _)| view.is_here(node)) {
        let Some(told) = report.routes.iter().find(|report| report.route == *route) else { continue };
        let standing = match &told.certificate {
            Some(report) => standing(report, &config.carriage.hosts, now),
            // A proxy that has only begun to read its files has no trouble either.
            None if told.troubles.is_empty() => continue,
            None => Standing::Missing,
        };
        all.push(Certificate { node: node.clone(), report: told.certificate.clone(), standing });
    }
    all
}

fn standing(report: &CertificateReport, hosts: &[String], now: i64) -> Standing {
    let (whole, left) = (report.ends - report.begins, report.ends - now);
    if left <= 0 {
        return Standing::Over;
    }
    if now < report.begins {
        return Standing::TooEarly;
    }
    let missing: Vec<&str> = hosts
        .iter()
        .map(String::as_str)
        .filter(|host| !report.names.iter().any(|name| covers(name, host)))
        .collect();
    if !missing.is_empty() {
        let more = if missing.len() > LISTED { ", ..." } else { "" };
        let listed: Vec<&str> = missing.into_iter().take(LISTED).collect();
        return Standing::WrongNames(format!("{}{more}", listed.join(", ")));
    }
    if left < SOON.min(whole / 3) { Standing::EndsSoon } else { Standing::Good }
}

/// Whether a certificate for `name` serves `host` (RFC 6125: a star is one label, the first).
fn covers(name: &str, host: &str) -> bool {
    let below = |text: &str| text.split_once('.').map(|(_, rest)| rest.to_owned());
    name == host || (name.starts_with("*.") && below(name) == below(host))
}

/// How long something lasts, in days; below one in hours.
pub(crate) fn length(seconds: i64) -> String {
    match (seconds / DAY, seconds / 3600) {
        (1, _) => "1 day".to_owned(),
        (0, 1) => "1 hour".to_owned(),
        (0, hours) => format!("{hours} hours"),
        (days, _) => format!("{days} days"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    /// How a certificate stands that began and ends so many days from now, for these names, on a route for `hosts`.
    fn stands(begins: i64, ends: i64, names: &[&str], hosts: &[&str]) -> Standing {
        let texts = |of: &[&str]| of.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let report =
            CertificateReport { begins: NOW + begins * DAY, ends: NOW + ends * DAY, names: texts(names) };
        standing(&report, &texts(hosts), NOW)
    }

    #[test]
    fn a_certificate_is_judged_by_its_time() {
        assert_eq!(stands(-60, 30, &[], &[]), Standing::Good);
        assert_eq!(stands(-70, 20, &[], &[]), Standing::EndsSoon);
        assert_eq!(stands(-3, 3, &[], &[]), Standing::Good, "it counts for six days in all");
        assert_eq!(stands(-5, 1, &[], &[]), Standing::EndsSoon);
        assert_eq!(stands(-90, 0, &[], &[]), Standing::Over);
        assert_eq!(stands(1, 90, &[], &[]), Standing::TooEarly);
    }

    #[test]
    fn a_certificate_is_for_the_hosts_of_its_route() {
        let of = |names: &[&str], hosts: &[&str]| stands(-60, 30, names, hosts);
        assert_eq!(of(&["shop.example"], &["shop.example"]), Standing::Good);
        assert_eq!(of(&["*.shop.example"], &["a.shop.example", "*.shop.example"]), Standing::Good);
        let wrong = |hosts: &str| Standing::WrongNames(hosts.to_owned());
        assert_eq!(of(&["*.shop.example"], &["a.b.shop.example"]), wrong("a.b.shop.example"));
        assert_eq!(of(&["*.shop.example"], &["shop.example"]), wrong("shop.example"));
        assert_eq!(of(&[], &["a.x", "b.x", "c.x", "d.x"]), wrong("a.x, b.x, c.x, ..."));
    }

    #[test]
    fn lengths_are_in_days_and_at_the_end_in_hours() {
        let told = [90 * DAY, 2 * DAY - 1, DAY - 1, 3600, 5].map(length);
        assert_eq!(told, ["90 days", "1 day", "23 hours", "1 hour", "0 hours"]);
    }
}
