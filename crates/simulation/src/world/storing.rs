//! Who can use the coordination, who leads it, and what its users are told.

use std::time::Duration;

use decide::agent::{Input, Value};
use model::time::Moment;

use super::{Event, World};
use crate::store::ELECTION;
use crate::system;

impl World {
    fn reaches_quorum(&self, node: usize) -> bool {
        let healthy = |other: &usize| {
            let machine = &self.machines[*other];
            machine.up && !machine.is_deaf() && machine.agent.is_some()
        };
        let reached =
            (0..self.machines.len()).filter(healthy).filter(|other| self.network.connects(node, *other));
        healthy(&node) && reached.count() * 2 > self.machines.len()
    }

    /// Whether `node` can use the store now.
    pub(crate) fn reaches_store(&self, node: usize) -> bool {
        self.store
            .leader
            .is_some_and(|leader| self.network.connects(node, leader) && self.reaches_quorum(leader))
    }

    pub(super) fn keep_store(&mut self) {
        self.agenda.after(Duration::from_millis(10), Event::Store);
        let now = self.agenda.now();
        let led = self.store.leader.is_some_and(|leader| self.reaches_quorum(leader));
        if led {
            self.store.unled_since = None;
        } else {
            let since = *self.store.unled_since.get_or_insert(now);
            if now.since(since) >= ELECTION && !self.store.cannot_elect {
                let able: Vec<usize> =
                    (0..self.machines.len()).filter(|node| self.reaches_quorum(*node)).collect();
                self.store.leader = (!able.is_empty()).then(|| able[self.random.below(able.len())]);
                if let Some(leader) = self.store.leader {
                    self.note(format!("{} is elected leader", system::node_name(leader)));
                    self.store.unled_since = None;
                }
            }
        }
        for node in 0..self.machines.len() {
            self.tell_store(node);
        }
    }

    /// The watch: whatever a node that can reach the store has not yet seen.
    fn tell_store(&mut self, node: usize) {
        if !self.machines[node].up || self.machines[node].is_deaf() {
            return;
        }
        let hint = self
            .store
            .leader
            .filter(|_| self.reaches_store(node))
            .map(|leader| self.machines[leader].name.clone());
        if self.machines[node].agent.as_ref().is_some_and(|agent| agent.leader() != hint.as_ref()) {
            self.feed(node, Input::Leader(hint));
        }
        if !self.reaches_store(node) {
            return;
        }
        if self.machines[node].seen_paused != self.store.paused {
            self.machines[node].seen_paused.clone_from(&self.store.paused);
            self.feed(node, Input::Paused(self.store.paused.clone()));
        }
        let revision = self.store.leadership.as_ref().map_or(0, |stored| stored.revision);
        let is_first = self.machines[node].seen_placement == 0;
        if revision > self.machines[node].seen_revision || is_first {
            self.machines[node].seen_revision = revision;
            self.machines[node].seen_placement = 1;
            for input in self.store.inputs(&system::database()) {
                self.feed(node, input);
            }
            if is_first {
                self.feed(node, Input::StoreLoaded);
            }
        }
    }

    pub(super) fn commit(&mut self, node: usize, run: u64, expected: u64, value: Value) {
        if !self.is_current(node, run) {
            return;
        }
        // Whoever stands still now may have sent it before, and hears the answer later; or nothing comes of it, ever: the
        // mind must not depend on being answered.
        if self.machines[node].is_deaf() && self.random.once_in(2) {
            return;
        }
        let place = value.store();
        let done = if self.reaches_store(node) { self.store.commit(expected, &value) } else { None };
        if let (Some(_), Value::Leadership(_, record)) = (done, &value) {
            if record.primary().is_some() {
                self.elected_at.entry(record.term).or_insert(self.agenda.now());
            }
            self.note(format!(
                "committed by {}: term {} {:?} sync {} before {:?}",
                system::node_name(node),
                record.term,
                record.phase,
                record.sync,
                record.previous_sync.iter().map(ToString::to_string).collect::<Vec<_>>()
            ));
        }
        // Now and then the answer is lost although it was committed.
        let known = done.filter(|_| !self.random.once_in(50));
        let delay = self.random.between(200, 1500);
        let input =
            Box::new(Input::Committed { store: place, revision: known.map(|revision| (revision, value)) });
        self.agenda.after(delay, Event::Deliver { to: node, input, run: Some(run) });
    }

    pub(super) fn read(&mut self, node: usize, run: u64, asked: Moment) {
        if !self.is_current(node, run) {
            return;
        }
        if self.reaches_store(node)
            && !self.machines[node].is_deaf()
            && let Some(stored) = &self.store.leadership
        {
            let (term, as_of) = (stored.value.term, self.shown(node, asked));
            self.feed(node, Input::Read { database: system::database(), term, as_of });
        }
        let asked = self.agenda.now() + Duration::from_millis(250);
        self.agenda.after(Duration::from_millis(252), Event::Read { node, run, asked });
    }
}
