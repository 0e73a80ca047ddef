//! Services that others run: what the proxies of this system see of their addresses.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use model::routes::Answering;
use model::system::{Probe, RouteTarget};
use model::{NodeName, RouteName, ServiceName, SiteName};

use super::view::View;
use crate::cli::columns::listed;

/// One address of a service that others run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct External {
    /// Where.
    pub(crate) address: SocketAddr,
    /// The site that is near to it.
    pub(crate) site: Option<SiteName>,
    /// What the proxies of nodes that take part say of it.
    pub(crate) seen: BTreeMap<NodeName, Answering>,
}

impl View {
    /// The addresses of a service that others run; none of a service that runs here.
    pub(crate) fn external(&self, service: &ServiceName) -> Vec<External> {
        let described = self.system.services.get(service).map_or(&[][..], |config| &config.addresses);
        let one = |listed: &model::system::ExternalAddress| External {
            address: listed.address,
            site: listed.site.clone(),
            seen: self.answers(service, &listed.address.to_string()),
        };
        described.iter().map(one).collect()
    }

    /// Whether others run a service.
    pub(crate) fn is_external(&self, service: &ServiceName) -> bool {
        self.system.services.get(service).is_some_and(|config| config.is_external())
    }

    /// Whether a route leads to a service, so that its addresses are asked.
    pub(crate) fn is_routed(&self, service: &ServiceName) -> bool {
        self.system.routes.keys().any(|route| self.leads_to(route, service))
    }

    /// How an address does, to follow it; and that this is all that anybody knows.
    pub(crate) fn words(&self, service: &ServiceName, external: &External) -> String {
        let probe = self.system.services.get(service).map(|config| &config.health.probe);
        let how = match probe {
            _ if !self.is_routed(service) => "no route leads there".to_owned(),
            Some(Probe::Process) | None => "is not asked how it does".to_owned(),
            Some(Probe::Http { .. } | Probe::Tcp | Probe::Command { .. }) => external.how(),
        };
        format!("{how}; nobody supervises it")
    }

    fn leads_to(&self, route: &RouteName, service: &ServiceName) -> bool {
        self.system.routes.get(route).is_some_and(|route| match &route.target {
            RouteTarget::Service { service: to } => to == service,
            RouteTarget::Database { .. } => false,
        })
    }

    /// What each proxy says of one address; of several routes there the worst.
    fn answers(&self, service: &ServiceName, id: &str) -> BTreeMap<NodeName, Answering> {
        let mut answers = BTreeMap::new();
        for (node, report) in self.traffic.iter().filter(|(node, _)| self.is_here(node)) {
            let routes = report.routes.iter().filter(|route| self.leads_to(&route.route, service));
            let of = routes.flat_map(|route| &route.instances).filter(|instance| instance.id == id);
            let worst = of.filter_map(|instance| instance.answering.clone()).max_by_key(badness);
            answers.extend(worst.map(|worst| (node.clone(), worst)));
        }
        answers
    }
}

fn badness(answering: &Answering) -> u8 {
    match answering {
        Answering::Good => 0,
        Answering::Unknown => 1,
        Answering::Bad { .. } => 2,
    }
}

impl External {
    /// The nodes whose proxies say that it does not answer as it should, with what the first of them says.
    pub(crate) fn bad(&self) -> (Vec<&NodeName>, Option<&str>) {
        let bad = self.seen.iter().filter_map(|(node, answering)| match answering {
            Answering::Bad { because } => Some((node, because.as_str())),
            Answering::Good | Answering::Unknown => None,
        });
        let (nodes, reasons): (Vec<_>, Vec<_>) = bad.unzip();
        (nodes, reasons.first().copied())
    }

    /// Whether some proxy sends requests there.
    pub(crate) fn serves(&self) -> bool {
        self.seen.values().any(|answering| *answering == Answering::Good)
    }

    /// How it does by the word of those who ask.
    fn how(&self) -> String {
        let (nodes, because) = self.bad();
        match (because, self.serves()) {
            (Some(because), serves) => {
                let others = if serves { "; others reach it" } else { "" };
                format!("{because}, as {} sees it{others}", listed(nodes.iter().map(|node| node.as_str())))
            }
            (None, true) => "answers".to_owned(),
            (None, false) => "has not been asked yet".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use model::routes::{InstanceReport, ProxyReport, RouteReport};

    use super::super::verdict::{Level, Verdict};
    use super::*;
    use crate::cli::testkit::{described, healthy, view};

    const FILE: &str = "[system]\nname = \"shop\"\n[nodes.a]\naddress = \"10.0.0.1\"\n[nodes.b]\naddress = \"10.0.0.2\"\n\
        [nodes.c]\naddress = \"10.0.0.3\"\n[services.legacy]\naddresses = [\"10.0.5.1:80\", \"10.0.5.2:80\"]\n\
        [routes.public]\nlisten = \":8080\"\nservice = \"legacy\"\n";

    fn bad(because: &str) -> Answering {
        Answering::Bad { because: because.to_owned() }
    }

    fn report(answers: &[Answering]) -> ProxyReport {
        let instance = |(number, answering): (usize, &Answering)| InstanceReport {
            id: format!("10.0.5.{}:80", number + 1),
            answering: Some(answering.clone()),
            ..InstanceReport::default()
        };
        let route = RouteReport {
            route: "public".into(),
            open: 0,
            parked: 0,
            accepted: 0,
            failed: 0,
            retried: 0,
            ejected: vec![],
            panic: false,
            troubles: vec![],
            certificate: None,
            instances: answers.iter().enumerate().map(instance).collect(),
        };
        ProxyReport { routes: vec![route] }
    }

    /// What a person is told when the proxies of a and b say this of the two addresses.
    fn told(text: &str, a: &[Answering], b: &[Answering]) -> (Vec<String>, Level, Vec<String>) {
        let system = described(text);
        let answers = [("a", a), ("b", b)].map(|(node, answers)| {
            let mut overview = healthy(&system, node);
            overview.traffic = report(answers);
            overview
        });
        let view = view(system, answers);
        let name = ServiceName::from("legacy");
        let words = view.external(&name).iter().map(|external| view.words(&name, external)).collect();
        let verdict = Verdict::of(&view);
        let troubles = verdict.troubles.into_iter().map(|trouble| trouble.what).collect();
        (words, verdict.level, troubles)
    }

    #[test]
    fn what_others_run_is_told_as_proxies_see_it() {
        let good = || Answering::Good;
        let (words, level, troubles) = told(FILE, &[good(), good()], &[good(), good()]);
        assert_eq!(words, ["answers; nobody supervises it", "answers; nobody supervises it"]);
        assert_eq!((level, troubles), (Level::Healthy, vec![]));

        let (words, level, troubles) =
            told(FILE, &[good(), bad("answers with status 503")], &[good(), good()]);
        assert_eq!(words[1], "answers with status 503, as a sees it; others reach it; nobody supervises it");
        assert_eq!(level, Level::Degraded);
        let what = "1 of 2 addresses of legacy do not answer everybody as they should: 10.0.5.2:80 answers with status 503";
        assert_eq!(troubles, [what]);

        let late = || bad("gives no answer within 1s");
        let (_, level, troubles) = told(FILE, &[late(), late()], &[late(), late()]);
        assert_eq!(level, Level::Down);
        assert!(troubles[0].starts_with("no address of legacy answers as it should: "), "{troubles:?}");
    }

    #[test]
    fn what_nobody_asks_is_no_trouble() {
        let unknown = || Answering::Unknown;
        let (words, level, _) = told(FILE, &[unknown(), unknown()], &[]);
        assert_eq!(
            (words[0].as_str(), level),
            ("has not been asked yet; nobody supervises it", Level::Healthy)
        );
        let silent = FILE.replace("[routes", "health.tcp = false\n[routes");
        let (words, level, _) = told(&silent, &[], &[]);
        assert_eq!(
            (words[0].as_str(), level),
            ("is not asked how it does; nobody supervises it", Level::Healthy)
        );
        let unrouted = FILE.split("[routes").next().unwrap();
        let (words, level, _) = told(unrouted, &[], &[]);
        assert_eq!(
            (words[0].as_str(), level),
            ("no route leads there; nobody supervises it", Level::Healthy)
        );
    }
}
