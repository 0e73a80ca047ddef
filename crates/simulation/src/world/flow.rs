//! Log flows from primaries to standbys, and commits are acknowledged.

use super::{Event, STEP, World};
use crate::client::Acknowledged;
use crate::postgres::Process;

impl World {
    /// Log flows, and commits are acknowledged.
    pub(super) fn step(&mut self) {
        self.agenda.after(STEP, Event::Step);
        self.flush();
        for primary in 0..self.members {
            for standby in 0..self.members {
                let streams = self.streams(primary, standby);
                let follows = matches!(&self.machines[standby].postgres.process, Process::Standby { follows: Some(of), .. } if *of == primary);
                if follows
                    && let Process::Standby { streaming, .. } = &mut self.machines[standby].postgres.process
                {
                    *streaming = streams;
                }
                if streams {
                    self.replicate(primary, standby);
                }
            }
        }
        self.acknowledge();
    }

    /// What was written reaches the disk sooner or later, unless the disk hangs.
    fn flush(&mut self) {
        for node in 0..self.members {
            let works = self.machines[node].up
                && !self.machines[node].frozen
                && self.machines[node].disk_hangs_since.is_none();
            if works && !self.random.once_in(4) {
                self.machines[node].postgres.flush();
            }
        }
    }

    pub(super) fn replicate(&mut self, primary: usize, standby: usize) {
        let has = self.machines[standby].postgres.log.len();
        let much = self.random.below(12);
        let Ok([source, target]) = self.machines.get_disjoint_mut([primary, standby]) else { return };
        let (source, target) = (&source.postgres, &mut target.postgres);
        // Nothing is sent that is not flushed: a standby may not hold what its primary can lose.
        let entries = &source.log[has.min(source.flushed)..source.flushed.min(has + much)];
        if let Some(floor) = entries.iter().rev().find_map(|entry| entry.connections) {
            target.floor = floor;
        }
        target.log.extend_from_slice(entries);
        target.timeline = source.timeline;
        target.history = source.history;
    }

    /// How many members of `set` have flushed `length` entries of `primary`'s log and are connected to say so.
    pub(crate) fn flushed(&self, primary: usize, set: &model::leadership::SyncSet, length: usize) -> usize {
        let is_in = |other: &usize| set.members.contains(&self.machines[*other].name);
        (0..self.members)
            .filter(is_in)
            .filter(|other| self.streams(primary, *other) && self.machines[*other].postgres.flushed >= length)
            .count()
    }

    fn acknowledge(&mut self) {
        for node in 0..self.members {
            let machine = &self.machines[node];
            if !machine.up
                || machine.frozen
                || machine.postgres.process != Process::Primary
                || !self.gate_is_open(node)
            {
                continue;
            }
            let run = machine.postgres.history;
            let pending = self.client.pending_at(node, run);
            for (write, length) in pending {
                if self.machines[node].postgres.flushed < length {
                    continue;
                }
                let enough = |set: &model::leadership::SyncSet| {
                    set.k == 0
                        || self.flushed(node, set, length) >= usize::try_from(set.k).unwrap_or(usize::MAX)
                };
                if self.machines[node].postgres.in_force.iter().any(enough) {
                    let term = self.machines[node].durable.led.unwrap_or_default();
                    let digest = self.machines[node].postgres.digest_at(length).unwrap_or_default();
                    let (at, log) = (self.agenda.now(), (length, digest));
                    self.client.acknowledge(Acknowledged { write, node, term, at, log });
                }
            }
        }
    }
}
