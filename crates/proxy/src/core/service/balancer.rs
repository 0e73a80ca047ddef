//! Which instance takes a request: of two random ones among the fit, the one with less to do.

use std::time::Duration;

use model::routes::{InstanceEndpoint, InstanceRouteState, ServiceTarget};
use model::time::Moment;

use super::budget::Budget;
use super::health::{Failure, Health};
use super::latency::Latency;

/// One life of an instance on this proxy: the same id at another address is another life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(u64);

/// The state of one service route.
#[derive(Debug)]
pub struct Balancer {
    instances: Vec<Instance>,
    next_key: u64,
    latency: Latency,
    budget: Budget,
    panic: bool,
    counters: Counters,
}

/// What happened on a route since the proxy started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests received.
    pub accepted: u64,
    /// Requests answered with an error of the proxy's own.
    pub failed: u64,
    /// Requests sent to another instance as well.
    pub retried: u64,
}

/// The instance chosen for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    /// Which one.
    pub key: Key,
    /// How long to wait for it alone.
    pub deadline: Duration,
}

#[derive(Debug)]
struct Instance {
    key: Key,
    endpoint: InstanceEndpoint,
    health: Health,
    under_way: u64,
}

/// How desirable an instance is; lower is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Tier {
    /// Ready, and live traffic agrees.
    Fit,
    /// Ready, but live traffic has ejected it.
    Ejected,
    /// Its supervisor says that it is not ready.
    NotReady,
}

impl Balancer {
    /// The balancer of a new route.
    pub fn new(target: &ServiceTarget) -> Self {
        let mut balancer = Self {
            instances: Vec::new(),
            next_key: 0,
            latency: Latency::default(),
            budget: Budget::default(),
            panic: false,
            counters: Counters::default(),
        };
        balancer.swap(target);
        balancer
    }

    /// Puts a new table in force. Instances that stay keep what is known of them; one that its supervisor declares
    /// ready again is believed.
    pub fn swap(&mut self, target: &ServiceTarget) {
        let mut former = std::mem::take(&mut self.instances);
        for endpoint in &target.instances {
            let same =
                |old: &Instance| old.endpoint.id == endpoint.id && old.endpoint.address == endpoint.address;
            let instance = match former.iter().position(same) {
                Some(place) => former.swap_remove(place).now_as(endpoint),
                None => self.newcomer(endpoint),
            };
            self.instances.push(instance);
        }
    }

    fn newcomer(&mut self, endpoint: &InstanceEndpoint) -> Instance {
        let key = Key(self.next_key);
        self.next_key += 1;
        Instance { key, endpoint: endpoint.clone(), health: Health::default(), under_way: 0 }
    }

    /// All instances in the table.
    pub fn instances(&self) -> impl Iterator<Item = (Key, &InstanceEndpoint)> {
        self.instances.iter().map(|instance| (instance.key, &instance.endpoint))
    }

    /// Chooses an instance that is not in `avoid` and counts the request as under way there. An instance whose ejection
    /// is over is tried with this request if it is `repeatable`. `draw` is a random number.
    pub fn choose(&mut self, avoid: &[Key], repeatable: bool, now: Moment, draw: u64) -> Option<Pick> {
        let trial = if repeatable { self.trial(avoid, now) } else { None };
        let place = match trial {
            Some(place) => place,
            None => self.least_of_two(avoid, draw)?,
        };
        let instance = &mut self.instances[place];
        instance.under_way += 1;
        Some(Pick { key: instance.key, deadline: self.latency.deadline() })
    }

    fn trial(&mut self, avoid: &[Key], now: Moment) -> Option<usize> {
        self.instances.iter_mut().position(|instance| {
            instance.endpoint.state == InstanceRouteState::Ready
                && !avoid.contains(&instance.key)
                && instance.health.try_again(now)
        })
    }

    fn least_of_two(&mut self, avoid: &[Key], draw: u64) -> Option<usize> {
        let usable = |instance: &Instance| instance.tier().filter(|_| !avoid.contains(&instance.key));
        let best = self.instances.iter().filter_map(usable).min()?;
        if avoid.is_empty() {
            self.panic = best != Tier::Fit;
        }
        let candidates: Vec<usize> =
            (0..self.instances.len()).filter(|place| usable(&self.instances[*place]) == Some(best)).collect();
        let count = candidates.len() as u64;
        let first = draw % count;
        // The second is drawn among the others, so that two candidates are always both looked at.
        let second = if count > 1 { (first + 1 + (draw >> 32) % (count - 1)) % count } else { first };
        let at = |number: u64| candidates[usize::try_from(number).unwrap_or(0)];
        let (one, other) = (at(first), at(second));
        let less = self.instances[other].under_way < self.instances[one].under_way;
        Some(if less { other } else { one })
    }

    /// Counts a request.
    pub fn request(&mut self, now: Moment) {
        self.counters.accepted += 1;
        self.budget.request(now);
    }

    /// Takes the right to send a request once more. What was never sent costs nothing.
    pub fn repeat(&mut self, was_sent: bool, now: Moment) -> bool {
        let granted = !was_sent || self.budget.take(now);
        self.counters.retried += u64::from(granted);
        granted
    }

    /// Counts an answer of the proxy's own.
    pub fn failed_request(&mut self) {
        self.counters.failed += 1;
    }

    /// The instance answered as it should, after `taken`.
    pub fn succeeded(&mut self, key: Key, taken: Duration) {
        self.latency.observe(taken);
        if let Some(instance) = self.get(key) {
            instance.health.succeeded();
        }
    }

    /// The instance failed.
    pub fn failed(&mut self, key: Key, failure: Failure, now: Moment) {
        if let Some(instance) = self.get(key) {
            instance.health.failed(failure, now);
        }
    }

    /// The request at the instance has ended in some way. After `succeeded` or `failed` this changes nothing of its
    /// health; without, a trial is still owed.
    pub fn ended(&mut self, key: Key, now: Moment) {
        if let Some(instance) = self.get(key) {
            instance.under_way = instance.under_way.saturating_sub(1);
            instance.health.abandoned(now);
        }
    }

    /// Counts since the start.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Whether the last choice had to do with unfit instances.
    pub fn is_in_panic(&self) -> bool {
        self.panic
    }

    /// The ids of instances that live traffic has ejected.
    pub fn ejected(&self) -> Vec<String> {
        let ejected = |instance: &&Instance| {
            instance.endpoint.state == InstanceRouteState::Ready && !instance.health.is_fit()
        };
        self.instances.iter().filter(ejected).map(|instance| instance.endpoint.id.clone()).collect()
    }

    /// Why no instance can take a request, for a reader who knows the instances' names.
    pub fn why_nobody(&self) -> String {
        if self.instances.is_empty() {
            return "it has no instance".to_owned();
        }
        let each = |instance: &Instance| {
            let state = match instance.endpoint.state {
                InstanceRouteState::Ready => "does not answer",
                InstanceRouteState::NotReady => "is not ready",
                InstanceRouteState::Draining => "is stopping",
                InstanceRouteState::Gone => "is gone",
            };
            format!("{} {state}", instance.endpoint.id)
        };
        self.instances.iter().map(each).collect::<Vec<_>>().join(", ")
    }

    fn get(&mut self, key: Key) -> Option<&mut Instance> {
        self.instances.iter_mut().find(|instance| instance.key == key)
    }
}

impl Instance {
    fn now_as(mut self, endpoint: &InstanceEndpoint) -> Self {
        let became_ready =
            endpoint.state == InstanceRouteState::Ready && self.endpoint.state != endpoint.state;
        if became_ready {
            self.health = Health::default();
        }
        self.endpoint = endpoint.clone();
        self
    }

    fn tier(&self) -> Option<Tier> {
        match self.endpoint.state {
            InstanceRouteState::Ready if self.health.is_fit() => Some(Tier::Fit),
            InstanceRouteState::Ready => Some(Tier::Ejected),
            InstanceRouteState::NotReady => Some(Tier::NotReady),
            InstanceRouteState::Draining | InstanceRouteState::Gone => None,
        }
    }
}

#[cfg(test)]
#[path = "balancer_tests.rs"]
mod tests;
