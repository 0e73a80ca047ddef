//! Which instance takes a request: of two random ones among the fit, the one with less to do for its share.

use std::time::Duration;

use model::SiteName;
use model::routes::{InstanceReport, InstanceRouteState, ServiceTarget, Tally};
use model::system::traffic::Traffic;
use model::system::{self, Probe};
use model::time::Moment;

use super::asked::Asked;
use super::budget::Budget;
use super::endpoint::Endpoint;
use super::health::{Failure, Health};
use super::latency::Latency;
use super::queue::Queue;
use super::share::{self, Share};

/// Another site is asked only if the own one's instance has at least so many requests under way,
const LOADED: u64 = 8;
/// and that many times as many as the other one, each by its share.
const OVERLOAD: u64 = 2;
/// So many answers between two looks at who is slow.
const LOOK_EVERY: u32 = 16;

/// One life of an instance on this proxy: the same id at another address is another life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub(super) u64);

/// The state of one service route.
#[derive(Debug)]
pub struct Balancer {
    instances: Vec<Instance>,
    next_key: u64,
    traffic: Traffic,
    /// What instances that nobody supervises are asked, if there are such and they are to be asked.
    question: Option<system::Health>,
    /// The site this proxy stands in.
    site: Option<SiteName>,
    latency: Latency,
    until_look: u32,
    budget: Budget,
    queue: Queue,
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

/// What a request asks of the instance that is to take it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish<'a> {
    /// Instances that have had it.
    pub avoid: &'a [Key],
    /// Whether it may be sent again.
    pub repeatable: bool,
    /// The instance that its client has been at.
    pub stay: Option<Key>,
    /// Whether it is its turn among those that wait, or it is a repeat: others that wait need not come first.
    pub first: bool,
}

/// Who takes a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// This instance; the request counts as under way there.
    Instance(Pick),
    /// There are instances, but each has as many requests as it may have, or others wait for one.
    Full,
    /// There is nobody.
    Nobody,
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
    endpoint: Endpoint,
    /// What the proxy's own questions say, where there is no supervisor's word.
    asked: Option<Asked>,
    health: Health,
    share: Share,
    /// Requests that it has not answered to the end.
    under_way: u64,
    /// Upgraded connections.
    tunnels: u64,
    tally: Tally,
}

/// How desirable an instance is; lower is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Tier {
    /// Ready, and live traffic agrees.
    Fit,
    /// Ready, but live traffic has ejected it.
    Ejected,
    /// Its supervisor, or without one its answers to the proxy, say that it is not ready.
    NotReady,
}

/// An instance beside how much it should do.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    place: usize,
    share: u64,
    under_way: u64,
}

impl Balancer {
    /// The balancer of a new route, for a proxy in `site`.
    pub fn new(target: &ServiceTarget, site: Option<&SiteName>, now: Moment) -> Self {
        let mut balancer = Self {
            instances: Vec::new(),
            next_key: 0,
            traffic: Traffic::default(),
            question: None,
            site: None,
            latency: Latency::default(),
            until_look: LOOK_EVERY,
            budget: Budget::default(),
            queue: Queue::default(),
            counters: Counters::default(),
        };
        balancer.swap(target, site, now);
        balancer
    }

    /// Puts a new table in force. Instances that stay keep what is known of them; one that its supervisor declares
    /// ready again is believed.
    pub fn swap(&mut self, target: &ServiceTarget, site: Option<&SiteName>, now: Moment) {
        self.traffic = target.traffic.clone();
        self.site = site.cloned();
        let question = target.external.as_ref().map(|external| external.health.clone());
        self.question = question.filter(|health| health.probe != Probe::Process);
        let mut former = std::mem::take(&mut self.instances);
        for endpoint in Endpoint::all(target) {
            let same =
                |old: &Instance| old.endpoint.id == endpoint.id && old.endpoint.address == endpoint.address;
            let weight = endpoint.weight;
            let mut instance = match former.iter().position(same) {
                Some(place) => former.swap_remove(place).now_as(endpoint, now),
                None => self.newcomer(endpoint, now),
            };
            instance.share.set_weight(weight);
            instance.asked = self.question.is_some().then(|| instance.asked.take().unwrap_or_default());
            self.instances.push(instance);
        }
    }

    fn newcomer(&mut self, endpoint: Endpoint, now: Moment) -> Instance {
        let key = Key(self.next_key);
        self.next_key += 1;
        let (health, share, tally) = (Health::default(), Share::new(1, now), Tally::default());
        Instance { key, endpoint, asked: None, health, share, under_way: 0, tunnels: 0, tally }
    }

    /// All instances in the table.
    pub fn instances(&self) -> impl Iterator<Item = (Key, &Endpoint)> {
        self.instances.iter().map(|instance| (instance.key, &instance.endpoint))
    }

    /// How traffic is spread.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Chooses an instance and counts the request as under way there. One that has been ejected and answers probes again is
    /// tried with this request. `draw` is a random number.
    pub fn choose(&mut self, wish: &Wish<'_>, now: Moment, draw: u64) -> Choice {
        let Some(best) = self.instances.iter().filter_map(|instance| instance.tier(wish.avoid)).min() else {
            return Choice::Nobody;
        };
        if !wish.first && self.queue.waiting() > 0 {
            return Choice::Full;
        }
        let place = self
            .stays(wish)
            .or_else(|| self.trial(wish, now))
            .or_else(|| self.least(wish.avoid, best, now, draw))
            .or_else(|| {
                // Those left cannot take it, and they are few: the ejected ones may be better than nothing.
                let spill = best == Tier::Fit && self.is_in_panic();
                if spill { self.least(wish.avoid, Tier::Ejected, now, draw) } else { None }
            });
        let Some(place) = place else { return Choice::Full };
        let instance = &mut self.instances[place];
        instance.under_way += 1;
        Choice::Instance(Pick { key: instance.key, deadline: self.latency.deadline() })
    }

    /// The place of the instance that the client has been at, if that can take it.
    fn stays(&self, wish: &Wish<'_>) -> Option<usize> {
        let key = wish.stay?;
        self.instances.iter().position(|instance| {
            instance.key == key && instance.tier(wish.avoid) == Some(Tier::Fit) && self.has_room(instance)
        })
    }

    fn trial(&mut self, wish: &Wish<'_>, now: Moment) -> Option<usize> {
        let limit = self.traffic.limit.map_or(u64::MAX, u64::from);
        self.instances.iter_mut().position(|instance| {
            instance.tier(wish.avoid) == Some(Tier::Ejected)
                && instance.under_way < limit
                && instance.health.begin_trial(wish.repeatable, now)
        })
    }

    fn has_room(&self, instance: &Instance) -> bool {
        self.traffic.limit.is_none_or(|limit| instance.under_way < u64::from(limit))
    }

    /// Among the instances of `tier` with room: one of the own site, unless another site has much less to do.
    fn least(&self, avoid: &[Key], tier: Tier, now: Moment, draw: u64) -> Option<usize> {
        let usable = |instance: &Instance| instance.tier(avoid) == Some(tier) && self.has_room(instance);
        let near = |instance: &Instance| match (&self.site, &instance.endpoint.site) {
            (Some(own), Some(site)) => !self.traffic.prefer_site || own == site,
            (None, _) | (_, None) => true,
        };
        let own = self.least_of_two(&|instance| usable(instance) && near(instance), now, draw);
        let Some(own) = own else { return self.least_of_two(&usable, now, draw).map(|found| found.place) };
        if own.under_way < LOADED {
            return Some(own.place);
        }
        let other = self.least_of_two(&|instance| usable(instance) && !near(instance), now, draw);
        let spills =
            |other: &Candidate| own.under_way * other.share > OVERLOAD * (other.under_way + 1) * own.share;
        Some(other.filter(spills).unwrap_or(own).place)
    }

    /// Two different ones, drawn by their shares, of which the one with less to do for its share.
    fn least_of_two(&self, usable: &dyn Fn(&Instance) -> bool, now: Moment, draw: u64) -> Option<Candidate> {
        let first = self.drawn(usable, None, now, draw & 0xffff_ffff)?;
        // The second is drawn among the others, so that two candidates are always both looked at.
        let Some(second) = self.drawn(usable, Some(first.place), now, draw >> 32) else {
            return Some(first);
        };
        let less = second.under_way * first.share < first.under_way * second.share;
        Some(if less { second } else { first })
    }

    /// One of the usable ones, `draw` of 2^32 along their shares.
    fn drawn(
        &self,
        usable: &dyn Fn(&Instance) -> bool,
        except: Option<usize>,
        now: Moment,
        draw: u64,
    ) -> Option<Candidate> {
        let candidates = || {
            let all = self.instances.iter().enumerate();
            all.filter(|(place, instance)| Some(*place) != except && usable(instance)).map(
                |(place, instance)| {
                    let share = instance.share.now(self.traffic.slow_start, now);
                    Candidate { place, share, under_way: instance.under_way + instance.tunnels }
                },
            )
        };
        let whole: u64 = candidates().map(|candidate| candidate.share).sum();
        let mut rest = u64::try_from((u128::from(whole) * u128::from(draw)) >> 32).unwrap_or(0);
        candidates().find(|candidate| {
            let found = rest < candidate.share;
            rest = rest.saturating_sub(candidate.share);
            found
        })
    }

    /// Lets a request wait until an instance has room. False: too many wait already.
    pub fn enter_queue(&mut self) -> bool {
        self.queue.enter(self.traffic.queue)
    }

    /// A request waits no longer, for whatever reason.
    pub fn leave_queue(&mut self) {
        self.queue.leave();
    }

    /// How many requests wait.
    pub fn waiting(&self) -> u32 {
        self.queue.waiting()
    }

    /// Counts a request.
    pub fn request(&mut self, now: Moment) {
        self.counters.accepted += 1;
        self.budget.request(now);
    }

    /// Takes the right to send a request once more that `from` has had, to another one than all of `avoid`. Leaving an
    /// instance that is ejected or gone while another is fit is never denied: that moves load. It counts all the same, so
    /// that the sum keeps its bound when it turns out that all are failing.
    pub fn repeat(&mut self, from: Key, avoid: &[Key], now: Moment) -> bool {
        if !self.instances.iter().any(|instance| instance.tier(avoid).is_some() && self.has_room(instance)) {
            return false;
        }
        let fit = |instance: &Instance| instance.tier(&[]) == Some(Tier::Fit);
        let leaves = !self.instances.iter().any(|instance| instance.key == from && fit(instance));
        let moves = leaves && self.instances.iter().any(fit);
        if moves {
            self.budget.note(now);
        }
        let granted = moves || self.budget.take(now);
        self.counters.retried += u64::from(granted);
        granted
    }

    /// Counts an answer of the proxy's own.
    pub fn failed_request(&mut self) {
        self.counters.failed += 1;
    }

    /// The instance answered as it should, after `taken`.
    pub fn succeeded(&mut self, key: Key, taken: Duration, now: Moment) {
        self.latency.observe(taken);
        if let Some(instance) = self.get(key) {
            instance.tally.good(u64::try_from(taken.as_micros()).unwrap_or(u64::MAX));
            instance.share.latency.observe(taken);
            if instance.health.succeeded(now) {
                instance.share.restart(now);
            }
        }
        self.until_look -= 1;
        if self.until_look == 0 {
            self.until_look = LOOK_EVERY;
            self.look_for_slow_ones();
        }
    }

    fn look_for_slow_ones(&mut self) {
        let fit = self.instances.iter().filter(|instance| instance.tier(&[]) == Some(Tier::Fit));
        let usual = share::usual(fit.filter_map(|instance| instance.share.latency.get()));
        if let Some(usual) = usual {
            self.instances.iter_mut().for_each(|instance| instance.share.compare(usual));
        }
    }

    /// The instance failed. True: it is ejected now and was not before, so that it is to be probed.
    pub fn failed(&mut self, key: Key, failure: Failure, now: Moment) -> bool {
        self.get(key).is_some_and(|instance| {
            instance.tally.bad();
            instance.health.failed(failure, now)
        })
    }

    /// The request at the instance has ended in some way. After `succeeded` or `failed` this changes nothing of its
    /// health; without, a trial is still owed.
    pub fn ended(&mut self, key: Key, was_tunnel: bool) {
        if let Some(instance) = self.get(key) {
            let count = if was_tunnel { &mut instance.tunnels } else { &mut instance.under_way };
            *count = count.saturating_sub(1);
            instance.health.abandoned();
        }
    }

    /// A request has become a tunnel, which may last for ever: it is load, but no limit counts it.
    pub fn becomes_tunnel(&mut self, key: Key) {
        if let Some(instance) = self.get(key) {
            instance.under_way = instance.under_way.saturating_sub(1);
            instance.tunnels += 1;
        }
    }

    /// Whether the instance takes requests like any other.
    pub fn is_fit(&self, key: Key) -> bool {
        self.instances.iter().any(|instance| instance.key == key && instance.tier(&[]) == Some(Tier::Fit))
    }

    /// When the instance is to be probed next; `None` when it need not be. One that its supervisor does not call ready is
    /// not asked: when it is ready again, that word counts.
    pub fn probe_at(&self, key: Key) -> Option<Moment> {
        let instance = self.instances.iter().find(|instance| instance.key == key)?;
        let is_ready = instance.state() == InstanceRouteState::Ready;
        instance.health.probe_at().filter(|_| is_ready)
    }

    /// Begins a probe if it is due. True: send it.
    pub fn begin_probe(&mut self, key: Key, now: Moment) -> bool {
        self.get(key).is_some_and(|instance| instance.health.begin_probe(now))
    }

    /// The probe of the instance has ended.
    pub fn probed(&mut self, key: Key, answered: bool, now: Moment) {
        if let Some(instance) = self.get(key) {
            instance.health.probed(answered, now);
        }
    }

    /// Instances that nobody supervises and nobody asks yet; from now on somebody does.
    pub fn unattended(&mut self) -> Vec<Key> {
        let waits = |instance: &mut Instance| instance.asked.as_mut().is_some_and(Asked::attend);
        self.instances.iter_mut().filter_map(|instance| waits(instance).then_some(instance.key)).collect()
    }

    /// What an instance that nobody supervises is asked; `None` when it is not asked, or gone.
    pub fn question(&self, key: Key) -> Option<&system::Health> {
        let instance = self.instances.iter().find(|instance| instance.key == key)?;
        instance.asked.as_ref().and(self.question.as_ref())
    }

    /// Its answer, or what was wrong with it. One that is good again is believed, as if its supervisor had said so.
    pub fn answered(&mut self, key: Key, answer: Result<(), String>, now: Moment) {
        let Some(question) = &self.question else { return };
        let Some(instance) = self.instances.iter_mut().find(|instance| instance.key == key) else { return };
        if instance.asked.as_mut().is_some_and(|asked| asked.answered(answer, question)) {
            instance.began(now);
        }
    }

    /// Counts since the start.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// What each instance did with the requests it was given.
    pub fn tallies(&self) -> Vec<InstanceReport> {
        let report = |instance: &Instance| InstanceReport {
            id: instance.endpoint.id.clone(),
            answering: instance.asked.as_ref().map(|asked| asked.answering().clone()),
            under_way: instance.under_way + instance.tunnels,
            tally: instance.tally.clone(),
        };
        self.instances.iter().map(report).collect()
    }

    /// Whether most of the instances that are ready have been ejected.
    pub fn is_in_panic(&self) -> bool {
        let ready = self.instances.iter().filter(|instance| instance.state() == InstanceRouteState::Ready);
        self.ejected().count() * 2 > ready.count()
    }

    /// The ids of instances that live traffic has ejected and that have answered no probe since.
    pub fn ejected(&self) -> impl Iterator<Item = &str> {
        let is_out = |instance: &&Instance| {
            instance.tier(&[]) == Some(Tier::Ejected) && !instance.health.is_confirmed()
        };
        self.instances.iter().filter(is_out).map(|instance| instance.endpoint.id.as_str())
    }

    /// Why no instance can take a request, for a reader who knows the instances' names.
    pub fn why_nobody(&self) -> String {
        if self.instances.is_empty() {
            return "it has no instance".to_owned();
        }
        let each = |instance: &Instance| {
            let state = match instance.state() {
                InstanceRouteState::Ready if instance.health.is_fit() && !self.has_room(instance) => {
                    "has as many requests as it may have"
                }
                InstanceRouteState::Ready => "does not answer",
                InstanceRouteState::NotReady if instance.asked.is_some() => "does not answer as it should",
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
    fn now_as(mut self, endpoint: Endpoint, now: Moment) -> Self {
        let became_ready =
            endpoint.state == InstanceRouteState::Ready && self.endpoint.state != endpoint.state;
        if became_ready {
            self.began(now);
        }
        self.endpoint = endpoint;
        self
    }

    /// It takes requests from now on; what was thought of it before is over.
    fn began(&mut self, now: Moment) {
        self.health = Health::default();
        self.share.restart(now);
    }

    /// Its state by the word of its supervisor, or else by its answers.
    fn state(&self) -> InstanceRouteState {
        match &self.asked {
            Some(asked) if !asked.is_good() => InstanceRouteState::NotReady,
            Some(_) | None => self.endpoint.state,
        }
    }

    /// How desirable it is for a request that has not been at any of `avoid`; `None`: not at all.
    fn tier(&self, avoid: &[Key]) -> Option<Tier> {
        if avoid.contains(&self.key) {
            return None;
        }
        match self.state() {
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
