//! Services whose number of instances follows the load: what every agent tells for that, and what the leader makes of it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use model::ServiceName;
use model::routes::ProxyReport;
use model::system::{RouteTarget, Service};
use model::time::Moment;
use serde::{Deserialize, Serialize};

use super::Agent;
use crate::placement::Placed;
use crate::scale::{self, Load, Memory, Rule, Seen};

/// Loads are averaged over this long: a single moment says little.
const WINDOW: Duration = Duration::from_secs(3);

/// How often a node tells its loads.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// What this node's proxy has under way at one service.
#[derive(Clone, Debug, Default)]
pub(super) struct Gauge {
    /// What was counted when: it holds until the next.
    counts: VecDeque<(Moment, u64)>,
    told: u64,
    told_at: Option<Moment>,
}

/// How a service is scaled, as the leader tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scaled {
    /// So many instances shall run.
    pub wanted: u32,
    /// What all proxies have under way.
    pub load: Load,
    /// Why so many, in one sentence.
    pub because: String,
}

/// What the leader remembers of a service, and what it says of it.
#[derive(Clone, Debug)]
pub(super) struct Scaling {
    memory: Memory,
    load: Load,
    because: String,
}

impl Gauge {
    fn saw(&mut self, count: u64, now: Moment) {
        self.counts.push_back((now, count));
        // The newest that is older than the window says what held when it began.
        while self.counts.get(1).is_some_and(|(at, _)| now.since(*at) >= WINDOW) {
            self.counts.pop_front();
        }
    }

    /// The average of the window, in thousandths.
    fn mean(&self, now: Moment) -> u64 {
        let begin = now - WINDOW;
        let ends = self.counts.iter().skip(1).map(|(at, _)| *at).chain([now]);
        let parts = self.counts.iter().zip(ends).map(|((from, count), to)| {
            let micros = to.since((*from).max(begin)).as_micros();
            (u64::try_from(micros).unwrap_or(u64::MAX), *count)
        });
        let (time, sum) = parts.fold((0_u64, 0_u128), |(time, sum), (micros, count)| {
            (time.saturating_add(micros), sum + u128::from(micros) * u128::from(count))
        });
        match (time, self.counts.back()) {
            (0, last) => last.map_or(0, |(_, count)| count.saturating_mul(1000)),
            (time, _) => u64::try_from(sum * 1000 / u128::from(time)).unwrap_or(u64::MAX),
        }
    }

    /// What is told of it; changed once a second.
    fn told(&mut self, now: Moment) -> u64 {
        if self.told_at.is_none_or(|at| now.since(at) >= TELL_EVERY) {
            self.told = self.mean(now);
            self.told_at = Some(now);
        }
        self.told
    }
}

/// How the file wants a service to be scaled.
fn rule(config: &Service) -> Option<Rule> {
    let scale = config.scale.as_ref()?;
    let (max, requests, cool_down) = (scale.max, scale.requests, scale.cool_down);
    Some(Rule { least: config.instances, max, requests, cool_down })
}

impl Agent {
    /// This node's proxy told its counts.
    pub(super) fn note_load(&mut self, report: &ProxyReport) {
        let Self { system, gauges, now, .. } = self;
        gauges.retain(|name, _| system.services.contains_key(name));
        // Also those that are not scaled: an idle proxy says nothing new when the file says that they are.
        for name in system.services.keys() {
            let leads = |route: &model::RouteName| match system.routes.get(route).map(|route| &route.target) {
                Some(RouteTarget::Service { service }) => service == name,
                Some(RouteTarget::Database { .. }) | None => false,
            };
            let routes = report.routes.iter().filter(|route| leads(&route.route));
            let count = routes.map(|route| {
                route.parked + route.instances.iter().map(|instance| instance.under_way).sum::<u64>()
            });
            gauges.entry(name.clone()).or_default().saw(count.sum(), *now);
        }
    }

    /// What this node tells of its loads.
    pub(super) fn told_load(&mut self) -> BTreeMap<ServiceName, u64> {
        let Self { system, gauges, now, .. } = self;
        let is_scaled = |name: &ServiceName| system.services.get(name).is_some_and(|of| of.scale.is_some());
        let all = gauges.iter_mut().filter(|(name, _)| is_scaled(name));
        all.map(|(name, gauge)| (name.clone(), gauge.told(*now))).collect()
    }

    /// Decides how many instances of each service its load needs.
    pub(super) fn scale(&mut self) {
        if self.paused.is_some() {
            return;
        }
        let rules: Vec<(ServiceName, Rule)> = self
            .system
            .services
            .iter()
            .filter_map(|(name, config)| Some((name.clone(), rule(config)?)))
            .collect();
        self.scalings.retain(|name, _| rules.iter().any(|(of, _)| of == name));
        for (name, rule) in rules {
            let is_released = self.releases.value.get(&name).is_some_and(|service| service.rollout.is_some());
            if is_released || self.upkeep.scaled.contains_key(&name) {
                // Whatever is placed when that is over is where it goes on from.
                self.scalings.remove(&name);
                continue;
            }
            self.scale_one(&name, &rule);
        }
    }

    fn scale_one(&mut self, name: &ServiceName, rule: &Rule) {
        let (seen, now) = (self.seen_load(name), self.now);
        let placed = self.placed_count(name);
        let fresh = || Scaling {
            memory: Memory::new(rule, placed, now),
            load: Load::default(),
            because: String::new(),
        };
        let scaling = self.scalings.entry(name.clone()).or_insert_with(fresh);
        let before = scaling.memory.wanted();
        let decision = scale::decide(rule, &mut scaling.memory, &seen, now);
        scaling.load = seen.load;
        scaling.because.clone_from(&decision.because);
        let subject = format!("service/{name}");
        self.said.sentence(format!("{subject} scale"), &decision.because);
        if decision.wanted != before {
            let what = format!("{} instances run instead of {before}", decision.wanted);
            self.said.info(&subject, &self.me, &what, &decision.because);
        }
    }

    /// What is known of a service's load.
    fn seen_load(&self, name: &ServiceName) -> Seen {
        let (mut load, mut is_complete) = (0_u64, true);
        for (node, _) in self.system.workers().filter(|(node, _)| !self.is_lost(node)) {
            let told = match *node == self.me {
                true => self.status.load.get(name),
                false => self.heard_status(node).and_then(|status| status.load.get(name)),
            };
            load = load.saturating_add(told.copied().unwrap_or(0));
            is_complete &= told.is_some();
        }
        let is_ready = |(number, placed): &(&u32, &Placed)| {
            !placed.leaving && self.copy_of(name, **number, &placed.node).is_some_and(|copy| copy.ready)
        };
        let ready = self.placement.value.get(name).into_iter().flatten().filter(is_ready).count();
        Seen { load: Load(load), is_complete, ready: u32::try_from(ready).unwrap_or(u32::MAX) }
    }

    /// How many instances of a service are placed to stay, of the release that serves.
    fn placed_count(&self, name: &ServiceName) -> u32 {
        let service = self.releases.value.get(name);
        let current = service.and_then(|service| service.current.as_ref()).map(|release| release.number);
        let placed = self.placement.value.get(name).into_iter().flat_map(BTreeMap::values);
        let stays =
            |placed: &&Placed| !placed.leaving && placed.release.as_ref().map(|of| of.number) == current;
        u32::try_from(placed.filter(stays).count()).unwrap_or(u32::MAX)
    }

    /// How many instances of a service shall run.
    pub fn instances_of(&self, name: &ServiceName) -> u32 {
        let Some(config) = self.system.services.get(name) else { return 0 };
        let written = config.instances;
        let Some(rule) = rule(config).filter(|_| !self.upkeep.scaled.contains_key(name)) else {
            return self.upkeep.instances(name, written);
        };
        let rollout = self.releases.value.get(name).and_then(|service| service.rollout.as_ref());
        let decided = self.scalings.get(name).map(|scaling| scaling.memory.wanted());
        let agreed = rollout.and_then(|rollout| rollout.instances);
        agreed.or(decided).unwrap_or_else(|| rule.bounded(self.placed_count(name)))
    }

    /// How services are scaled by their load, while this agent leads.
    pub(super) fn scaled(&self) -> BTreeMap<ServiceName, Scaled> {
        let leads = self.leader.as_ref() == Some(&self.me);
        let told = |(name, scaling): (&ServiceName, &Scaling)| {
            let Scaling { memory, load, because } = scaling;
            (name.clone(), Scaled { wanted: memory.wanted(), load: *load, because: because.clone() })
        };
        self.scalings.iter().filter(|_| leads).map(told).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_is_the_average_of_the_last_seconds_however_often_it_is_counted() {
        let at = |millis: u64| Moment::from_millis(100_000 + millis);
        let mut gauge = Gauge::default();
        assert_eq!(gauge.mean(at(0)), 0);
        gauge.saw(8, at(0));
        assert_eq!(gauge.mean(at(0)), 8_000, "the first count is all that is known");
        gauge.saw(2, at(1000));
        assert_eq!(gauge.mean(at(3000)), 4_000, "8 for one second, 2 for two");
        assert_eq!(gauge.mean(at(4000)), 2_000);
        assert_eq!(gauge.mean(at(60_000)), 2_000, "what does not change is not counted anew");
        for tick in 0..300 {
            gauge.saw(10, at(60_000 + tick * 100));
        }
        assert!(gauge.counts.len() <= 32, "{} counts are kept", gauge.counts.len());
        assert_eq!(gauge.mean(at(90_000)), 10_000);
    }

    #[test]
    fn a_load_is_told_anew_once_a_second() {
        let at = |millis: u64| Moment::from_millis(100_000 + millis);
        let mut gauge = Gauge::default();
        gauge.saw(1, at(0));
        assert_eq!(gauge.told(at(0)), 1_000);
        gauge.saw(100, at(10));
        assert_eq!(gauge.told(at(900)), 1_000);
        assert!(gauge.told(at(1000)) > 90_000);
    }
}
