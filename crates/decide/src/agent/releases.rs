//! Releases as the leader carries them through, and what every agent tells it for that.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::release::{Digest, Phase, Release, Releases, Rollout};
use model::routes::Tally;
use model::status::NodeStatus;
use model::system::Service;
use model::time::Moment;
use model::{NodeName, ServiceName};

use super::commands::{Store, Value};
use super::{Agent, Command};
use crate::placement::{Group, Origin, Placed};
use crate::release::before::{self, Errand};
use crate::release::{self, Decision, News, Question};

/// What the leader has seen of a rollout. A new leader begins the step that is under way anew.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    number: u64,
    phase: Phase,
    /// Since when it has been in this phase.
    since: Moment,
    /// Since when its instances have worked and every proxy has obeyed.
    baking: Option<Moment>,
    /// Instances of the new release that were ready once.
    were_ready: BTreeSet<String>,
    /// What each node's proxy had counted at each instance when the phase began.
    before: Counts,
    /// And when the first step began.
    at_first: Counts,
}

/// What a service's instances run from.
pub(super) struct Plan {
    pub(super) groups: Vec<Group>,
    pub(super) expelled: Option<u64>,
}

impl Agent {
    /// Carries every rollout on.
    pub(super) fn release(&mut self, commands: &mut Vec<Command>) {
        if self.paused.is_some() || self.awaits_commit(&Store::Releases) {
            return;
        }
        let under_way: Vec<ServiceName> = self
            .releases
            .value
            .iter()
            .filter(|(name, service)| service.rollout.is_some() && self.system.services.contains_key(*name))
            .map(|(name, _)| name.clone())
            .collect();
        self.watches.retain(|name, _| under_way.contains(name));
        for name in under_way {
            match self.decide_release(&name) {
                Some(Decision::Wait(because)) => {
                    self.said.sentence(format!("service/{name} release"), &because);
                }
                Some(Decision::Next(next)) => {
                    let subject = format!("service/{name}");
                    let (what, because) = told(&next);
                    self.said.info(&subject, &self.me, &what, &because);
                    self.said.sentence(format!("{subject} release"), &because);
                    let mut releases = self.releases.value.clone();
                    releases.insert(name, *next);
                    self.committing.insert(Store::Releases, self.now);
                    let expected = self.releases.revision;
                    commands.push(Command::Commit { expected, value: Value::Releases(Box::new(releases)) });
                    return;
                }
                None => {}
            }
        }
    }

    fn decide_release(&mut self, name: &ServiceName) -> Option<Decision> {
        let service = self.releases.value.get(name)?.clone();
        let rollout = service.rollout.as_ref()?;
        let instances = self.instances_of(name);
        let (news, unstaged, obeyed) =
            (self.news(name, rollout), self.unstaged(name, rollout), self.is_obeyed());
        let errand = self.errand(name, rollout);
        let wanted = release::step(rollout, instances).map_or(0, |step| step.new);
        let counts = self.counts(name);
        let now = self.now;
        let watch = self.watch(name, rollout, &counts);
        let works = news.ready >= wanted && obeyed;
        watch.baking = watch.baking.or(works.then_some(now)).filter(|_| works);
        let waited = now.since(watch.since);
        let (before, at_first) = (watch.before.clone(), watch.at_first.clone());
        let baked = watch.baking.map_or(Duration::ZERO, |since| now.since(since));
        let (old, new) = self.tallies(name, rollout.release.number, &counts, &before);
        let (earlier, _) = self.tallies(name, rollout.release.number, &counts, &at_first);
        let question = Question {
            service: &service,
            instances,
            unstaged: &unstaged,
            news: &news,
            obeyed,
            waited,
            baked,
            old: &old,
            earlier: &earlier,
            new: &new,
            errand: errand.as_ref(),
        };
        release::decide(&question)
    }

    /// How far the run is that a rollout needs before its first step.
    fn errand(&self, name: &ServiceName, rollout: &Rollout) -> Option<Errand> {
        let job = rollout.before.as_ref()?;
        let (config, by) = (self.system.jobs.get(job), before::words(name, rollout.release.number));
        Some(before::errand(job, config, self.runs.get(job), &by))
    }

    fn watch(&mut self, name: &ServiceName, rollout: &Rollout, counts: &Counts) -> &mut Watch {
        let (number, phase, now) = (rollout.release.number, rollout.phase.clone(), self.now);
        let fresh = || Watch {
            number,
            phase: phase.clone(),
            since: now,
            baking: None,
            were_ready: BTreeSet::new(),
            before: counts.clone(),
            at_first: counts.clone(),
        };
        let watch = self.watches.entry(name.clone()).or_insert_with(fresh);
        if watch.number != number {
            *watch = fresh();
        } else if watch.phase != phase {
            let were_ready = std::mem::take(&mut watch.were_ready);
            let at_first = match watch.phase {
                Phase::Staging | Phase::Before => counts.clone(),
                Phase::Step(_) | Phase::RollingBack => std::mem::take(&mut watch.at_first),
            };
            *watch = Watch { were_ready, at_first, ..fresh() };
        }
        watch
    }

    /// How the instances of the new release do.
    fn news(&mut self, name: &ServiceName, rollout: &Rollout) -> News {
        let number = rollout.release.number;
        let placed = self.placement.value.get(name).into_iter().flatten();
        let of_new =
            placed.filter(|(_, placed)| placed.release.as_ref().is_some_and(|of| of.number == number));
        let mut news = News::default();
        let mut ready = BTreeSet::new();
        for (instance, placed) in of_new {
            news.any = true;
            let id = format!("{name}-{instance}@{}", placed.node);
            let Some(copy) = self.copy_of(name, *instance, &placed.node) else { continue };
            if copy.ready && !placed.leaving {
                ready.insert(id);
            } else if copy.gone {
                news.ended.push(id);
            } else if !placed.leaving
                && self.watches.get(name).is_some_and(|watch| watch.were_ready.contains(&id))
            {
                news.sick.push(id);
            }
        }
        news.ready = u32::try_from(ready.len()).unwrap_or(u32::MAX);
        if let Some(watch) = self.watches.get_mut(name).filter(|watch| watch.number == number) {
            watch.were_ready.extend(ready);
        }
        news
    }

    /// Nodes that are heard, may run the service, and have not got the artefact.
    fn unstaged(&self, name: &ServiceName, rollout: &Rollout) -> Vec<NodeName> {
        let Some(service) = self.system.services.get(name) else { return vec![] };
        let has = |node: &NodeName| {
            let own = (*node == self.me).then_some(&self.artefacts);
            let said = self.heard_status(node).map(|status| &status.artefacts);
            own.or(said).is_none_or(|artefacts| artefacts.contains(&rollout.release.digest))
        };
        let nodes = self.system.nodes_for(service).into_iter();
        nodes.filter(|node| !has(node)).cloned().collect()
    }

    pub(super) fn heard_status(&self, node: &NodeName) -> Option<&NodeStatus> {
        let peer = self.peers.get(node).filter(|peer| peer.silence(self.now).is_none())?;
        peer.status.as_ref()
    }

    /// Whether the proxies of all nodes that are heard obey the placement in force.
    fn is_obeyed(&self) -> bool {
        let others = self.peers.keys().filter(|node| !self.system.is_witness(node));
        let own = self.system.is_witness(&self.me) || self.routed.revision >= self.placement.revision;
        own && others
            .filter_map(|node| self.heard_status(node))
            .all(|status| status.routed >= self.placement.revision)
    }

    /// What each node's proxy has counted at the service's instances.
    fn counts(&self, name: &ServiceName) -> Counts {
        let prefix = format!("{name}-");
        let of = |node: &NodeName, traffic: &BTreeMap<String, Tally>| -> Vec<_> {
            let all = traffic.iter().filter(|(id, _)| id.starts_with(&prefix));
            all.map(|(id, tally)| ((node.clone(), id.clone()), tally.clone())).collect()
        };
        let others = self.peers.keys().filter_map(|node| Some(of(node, &self.heard_status(node)?.traffic)));
        others.flatten().chain(of(&self.me, &self.traffic())).collect()
    }

    /// What old and new instances did since `before`.
    fn tallies(&self, name: &ServiceName, number: u64, counts: &Counts, before: &Counts) -> (Tally, Tally) {
        let (mut old, mut new) = (Tally::default(), Tally::default());
        let Some(instances) = self.placement.value.get(name) else { return (old, new) };
        let release_of = |placed: &Placed| placed.release.as_ref().map(|of| of.number);
        let by_id: BTreeMap<String, Option<u64>> = instances
            .iter()
            .map(|(instance, placed)| (format!("{name}-{instance}@{}", placed.node), release_of(placed)))
            .collect();
        for (key, tally) in counts {
            let since = before.get(key).map_or_else(|| tally.clone(), |before| tally.since(before));
            match by_id.get(&key.1) {
                Some(Some(of)) if *of == number => new.add(&since),
                Some(_) => old.add(&since),
                None => {}
            }
        }
        (old, new)
    }

    /// What this node's proxy counted at instances of services that are being released.
    pub(super) fn traffic(&self) -> BTreeMap<String, Tally> {
        let is_watched = |id: &str| {
            let name = id.split('@').next().and_then(|name| name.rsplit_once('-'));
            let service = name.and_then(|(service, _)| self.releases.value.get(&ServiceName::new(service)));
            service.is_some_and(|service| service.rollout.is_some())
        };
        let all = self.routed.tallies.iter().filter(|(id, _)| is_watched(id));
        all.map(|(id, tally)| (id.clone(), tally.clone())).collect()
    }

    /// What shall run of a service; `None` while it waits for its first release.
    pub(super) fn plan(&self, name: &ServiceName, config: &Service, ready_old: u32) -> Option<Plan> {
        let all = self.instances_of(name);
        let service = self.releases.value.get(name);
        let group = |release: Option<Origin>, instances, share| Group { release, instances, share };
        let current = service.and_then(|service| service.current.as_ref()).map(origin);
        // Before its first release a service that needs one has nothing to run; any other runs as the file says.
        let old = (current.is_some() || !config.needs_release()).then_some(current);
        let Some(rollout) = service.and_then(|service| service.rollout.as_ref()) else {
            return Some(Plan { groups: vec![group(old?, all, None)], expelled: None });
        };
        let number = rollout.release.number;
        let Some(step) = release::step(rollout, all) else {
            // Half of the old instances are better than those of a release that does not work.
            let expels = rollout.phase == Phase::RollingBack && (old.is_none() || ready_old * 2 >= all);
            let groups = old.into_iter().map(|old| group(old, all, None)).collect();
            return Some(Plan { groups, expelled: expels.then_some(number) });
        };
        let new = Some(origin(&rollout.release));
        let Some(old) = old else {
            return Some(Plan { groups: vec![group(new, step.new, None)], expelled: None });
        };
        let hidden = (step.share == Some(1000)).then_some(0);
        Some(Plan {
            groups: vec![group(new, step.new, step.share), group(old, step.old, hidden)],
            expelled: None,
        })
    }

    /// How many instances that are not of the release on its way take requests.
    pub(super) fn ready_old(&self, name: &ServiceName) -> u32 {
        let number = self.releases.value.get(name).and_then(|s| s.rollout.as_ref()).map(|r| r.release.number);
        let placed = self.placement.value.get(name).into_iter().flatten();
        let is_old =
            |placed: &Placed| placed.release.as_ref().map(|of| of.number) != number || number.is_none();
        let ready = placed.filter(|(instance, placed)| {
            is_old(placed)
                && !placed.leaving
                && self.copy_of(name, **instance, &placed.node).is_some_and(|copy| copy.ready)
        });
        u32::try_from(ready.count()).unwrap_or(u32::MAX)
    }

    /// Takes in what has been agreed on.
    pub(super) fn new_releases(&mut self, releases: super::Stored<Releases>, commands: &mut Vec<Command>) {
        if releases.revision > self.releases.revision {
            self.releases = releases;
            commands.push(Command::Releases(self.releases.value.clone()));
        }
    }

    /// The releases of all services.
    pub fn releases(&self) -> &super::Stored<Releases> {
        &self.releases
    }

    /// Whether an artefact lies on a node, as far as this one has heard.
    pub fn has_artefact(&self, node: &NodeName, digest: &Digest) -> bool {
        match *node == self.me {
            true => self.artefacts.contains(digest),
            false => self.heard_status(node).is_some_and(|status| status.artefacts.contains(digest)),
        }
    }

    /// The artefacts on this node, and who else has one.
    pub fn holders(&self, digest: &Digest) -> Vec<NodeName> {
        let has = |node: &&NodeName| {
            self.heard_status(node).is_some_and(|status| status.artefacts.contains(digest))
        };
        self.peers.keys().filter(has).cloned().collect()
    }
}

type Counts = BTreeMap<(NodeName, String), Tally>;

fn origin(release: &Release) -> Origin {
    Origin { number: release.number, digest: release.digest.clone() }
}

/// What has come of a rollout, and why.
fn told(service: &model::release::Service) -> (String, String) {
    match (&service.rollout, &service.current, service.history.first()) {
        (Some(rollout), _, _) => {
            let what = match &rollout.phase {
                Phase::Staging => format!("release {} is copied to all nodes", rollout.release.number),
                Phase::Before => format!("release {} waits for its job", rollout.release.number),
                Phase::Step(step) => format!("release {} comes to step {}", rollout.release.number, step + 1),
                Phase::RollingBack => format!("release {} is taken back", rollout.release.number),
            };
            (what, rollout.because.clone())
        }
        (None, _, Some(past)) if past.failed_run.is_some() => {
            (format!("release {} has not been begun", past.release.number), past.because.clone())
        }
        (None, _, Some(past)) if !past.served => {
            (format!("release {} has been taken back", past.release.number), past.because.clone())
        }
        (None, Some(current), _) => {
            (format!("release {} serves", current.number), "every step went well".to_owned())
        }
        (None, None, _) => ("no release serves".to_owned(), "none has been made".to_owned()),
    }
}
