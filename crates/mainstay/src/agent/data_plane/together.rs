//! What all proxies of a node have said together: one serves clients, former ones finish their work beside it. A table is
//! obeyed when all of them obey it; what is under way is the sum.

use std::collections::BTreeMap;

use model::RouteName;
use model::routes::{FromProxy, InstanceReport, ProxyReport, RouteReport};

/// One of the node's proxies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Which {
    /// The one that takes clients.
    Serving,
    /// One that only finishes its work, by the name of its socket.
    Leaving(String),
}

/// What follows from what they say.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Fact {
    /// All obey the table of this generation, or a newer one.
    Applied(u64),
    /// On none of them is a session left for which the route drains.
    Drained {
        /// The route.
        route: RouteName,
        /// The oldest generation with which one of them said so.
        generation: u64,
    },
    /// What was counted; `current`: by all of them behind their word that they obey their newest table.
    Report { report: ProxyReport, current: bool },
}

/// What one of them has said.
#[derive(Debug, Default)]
struct Voice {
    applied: Option<u64>,
    drained: BTreeMap<RouteName, u64>,
    report: ProxyReport,
    counted: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Together(BTreeMap<Which, Voice>);

impl Together {
    /// There is one more, which has said nothing yet: until it does, nothing is known of all.
    pub(super) fn expect(&mut self, which: Which) {
        self.0.entry(which).or_default();
    }

    pub(super) fn knows(&self, which: &Which) -> bool {
        self.0.contains_key(which)
    }

    /// How many finish their work.
    pub(super) fn leaving(&self) -> usize {
        self.0.keys().filter(|which| **which != Which::Serving).count()
    }

    /// Its connection has ended; it may still be there.
    pub(super) fn lost(&mut self, which: &Which) {
        if let Some(voice) = self.0.get_mut(which) {
            *voice = Voice { report: std::mem::take(&mut voice.report), ..Voice::default() };
        }
    }

    /// It has ended, and with it all its connections.
    pub(super) fn gone(&mut self, which: &Which) -> Vec<Fact> {
        self.0.remove(which);
        let routes: Vec<RouteName> =
            self.0.values().flat_map(|voice| voice.drained.keys()).cloned().collect();
        let drained = routes.into_iter().filter_map(|route| self.drained(route));
        let mut facts: Vec<Fact> = self.applied().into_iter().chain(drained).collect();
        facts.push(self.report());
        facts.dedup();
        facts
    }

    /// It says something.
    pub(super) fn heard(&mut self, which: &Which, said: FromProxy) -> Option<Fact> {
        let voice = self.0.get_mut(which)?;
        match said {
            FromProxy::Applied { generation, .. } => {
                (voice.applied, voice.counted) = (Some(generation), false);
                self.applied()
            }
            FromProxy::Drained { generation, route, .. } => {
                voice.drained.insert(route.clone(), generation);
                self.drained(route)
            }
            FromProxy::Report(report) => {
                (voice.report, voice.counted) = (report, voice.applied.is_some());
                Some(self.report())
            }
            FromProxy::Refused { .. } => None,
        }
    }

    fn applied(&self) -> Option<Fact> {
        let all: Option<Vec<u64>> = self.0.values().map(|voice| voice.applied).collect();
        all?.into_iter().min().map(Fact::Applied)
    }

    fn drained(&self, route: RouteName) -> Option<Fact> {
        let all: Option<Vec<u64>> = self.0.values().map(|voice| voice.drained.get(&route).copied()).collect();
        let generation = all?.into_iter().min()?;
        Some(Fact::Drained { route, generation })
    }

    /// What the serving one reports, with the counts of the others added to its own.
    fn report(&self) -> Fact {
        let serving = self.0.get(&Which::Serving).map(|voice| voice.report.clone());
        let mut report = serving.unwrap_or_default();
        for (_, voice) in self.0.iter().filter(|(which, _)| **which != Which::Serving) {
            voice.report.routes.iter().for_each(|more| add(&mut report, more));
        }
        Fact::Report { report, current: self.0.values().all(|voice| voice.counted) }
    }
}

fn add(report: &mut ProxyReport, more: &RouteReport) {
    let Some(route) = report.routes.iter_mut().find(|route| route.route == more.route) else {
        return report.routes.push(more.clone());
    };
    route.open += more.open;
    route.parked += more.parked;
    route.accepted += more.accepted;
    route.failed += more.failed;
    route.retried += more.retried;
    for instance in &more.instances {
        match route.instances.iter_mut().find(|known| known.id == instance.id) {
            Some(known) => add_instance(known, instance),
            None => route.instances.push(instance.clone()),
        }
    }
}

fn add_instance(known: &mut InstanceReport, more: &InstanceReport) {
    known.under_way += more.under_way;
    known.tally.add(&more.tally);
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::routes::Tally;

    fn applied(generation: u64) -> FromProxy {
        FromProxy::Applied { generation, listen_errors: vec![] }
    }

    fn drained(generation: u64) -> FromProxy {
        FromProxy::Drained { generation, route: "orders-rw".into(), idle: 0, cut: 0 }
    }

    fn report(open: u64, under_way: u64) -> FromProxy {
        let id = "web-1@e1".to_owned();
        let instance = InstanceReport { id, under_way, tally: Tally::default(), answering: None };
        let route = RouteReport {
            route: "public".into(),
            open,
            parked: 0,
            accepted: 10,
            failed: 0,
            retried: 0,
            ejected: vec![],
            panic: false,
            troubles: vec![],
            certificate: None,
            instances: vec![instance],
        };
        FromProxy::Report(ProxyReport { routes: vec![route] })
    }

    fn both() -> (Together, Which, Which) {
        let mut together = Together::default();
        let (serving, leaving) = (Which::Serving, Which::Leaving("7-0.sock".to_owned()));
        together.expect(serving.clone());
        together.expect(leaving.clone());
        (together, serving, leaving)
    }

    #[test]
    fn a_table_is_obeyed_when_all_obey_it() {
        let (mut together, serving, leaving) = both();
        assert_eq!(together.heard(&serving, applied(5)), None, "the other one has said nothing");
        assert_eq!(together.heard(&leaving, applied(4)), Some(Fact::Applied(4)));
        assert_eq!(together.heard(&leaving, applied(5)), Some(Fact::Applied(5)));
        together.lost(&leaving);
        assert_eq!(together.heard(&serving, applied(6)), None, "who is not heard may still have sessions");
        assert_eq!(together.gone(&leaving)[0], Fact::Applied(6), "who has ended has none");
        assert_eq!(together.leaving(), 0);
    }

    #[test]
    fn a_route_is_drained_when_it_is_everywhere() {
        let (mut together, serving, leaving) = both();
        assert_eq!(together.heard(&serving, drained(5)), None);
        let fact = |generation| Some(Fact::Drained { route: "orders-rw".into(), generation });
        assert_eq!(together.heard(&leaving, drained(6)), fact(5));
        assert_eq!(
            together.heard(&serving, drained(9)),
            fact(6),
            "the other one last did in an earlier draining"
        );
        assert!(together.gone(&leaving).contains(&fact(9).unwrap()));
    }

    #[test]
    fn what_is_under_way_is_the_sum_and_is_known_when_all_have_told_it_behind_their_table() {
        let (mut together, serving, leaving) = both();
        together.heard(&serving, applied(1));
        together.heard(&leaving, applied(1));
        let told = |fact: Option<Fact>| match fact {
            Some(Fact::Report { report, current }) => {
                let route = &report.routes[0];
                (route.open, route.accepted, route.instances[0].under_way, current)
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(told(together.heard(&serving, report(2, 1))), (2, 10, 1, false));
        assert_eq!(told(together.heard(&leaving, report(1, 4))), (3, 20, 5, true));
        together.heard(&leaving, applied(2));
        assert_eq!(told(together.heard(&serving, report(2, 0))), (3, 20, 4, false));
        assert_eq!(told(together.gone(&leaving).pop()), (2, 10, 0, true));
    }
}
