//! Log flows from primaries to standbys, and commits are acknowledged.

use std::time::Duration;

use model::leadership::SyncSet;

use super::{Event, STEP, World};
use crate::client::Acknowledged;
use crate::postgres::Process;

/// After so long without a packet a receiver gives its connection up (the probes of its kernel, see `effects`).
const RECEIVER_TIMEOUT: Duration = Duration::from_secs(4);

impl World {
    /// Log flows, and commits are acknowledged.
    pub(super) fn step(&mut self) {
        self.agenda.after(STEP, Event::Step);
        self.flush();
        for primary in 0..self.members {
            for standby in 0..self.members {
                let streams = self.streams(primary, standby);
                self.keep_receiver(primary, standby, streams);
                if streams && self.network.carries_log(primary, standby) {
                    self.replicate(primary, standby);
                }
            }
        }
        self.acknowledge();
        self.watch_writes();
    }

    /// A receiver knows at once that its primary's process has ended, and only late that nothing comes any more: a packet that is
    /// dropped by a gate, a cut or a machine that stands still says nothing.
    fn keep_receiver(&mut self, primary: usize, standby: usize, streams: bool) {
        let now = self.agenda.now();
        let source = &self.machines[primary];
        let ended = source.up
            && !source.frozen
            && matches!(source.postgres.process, Process::Stopped | Process::Empty)
            && self.network.connects(primary, standby);
        let server = &mut self.machines[standby].postgres;
        let Process::Standby { follows: Some(of), streaming } = &mut server.process else { return };
        if *of != primary {
            return;
        }
        if streams {
            (*streaming, server.fed_at) = (true, Some(now));
        } else if ended || server.fed_at.is_none_or(|fed| now.since(fed) >= RECEIVER_TIMEOUT) {
            *streaming = false;
        }
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
        // The receiver is on the timeline of the last log it got (`received_tli`); it goes over where the old one ends.
        // What the source wrote on its own timeline is the end of its log.
        let begins = source.log.partition_point(|entry| entry.history != source.history);
        match target.log.last() {
            Some(last) if begins < source.log.len() && target.log.len() < begins => {
                (target.timeline, target.history) = (last.timeline, last.history);
            }
            Some(_) | None => (target.timeline, target.history) = (source.timeline, source.history),
        }
    }

    /// How many members of `set` have flushed `length` entries of `primary`'s log and are connected to say so.
    pub(crate) fn flushed(&self, primary: usize, set: &SyncSet, length: usize) -> usize {
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
            let (history, term) = (machine.postgres.history, machine.durable.led.unwrap_or_default());
            let at = self.agenda.now();
            let confirmed: Vec<Acknowledged> = self
                .client
                .pending_at(node, history)
                .filter(|pending| self.is_confirmed(node, pending.length))
                .map(|pending| {
                    let digest = machine.postgres.digest_at(pending.length).unwrap_or_default();
                    Acknowledged { write: pending.write, node, term, at, log: (pending.length, digest) }
                })
                .collect();
            for acknowledged in confirmed {
                self.client.acknowledge(acknowledged);
            }
        }
    }

    /// Whether the primary and enough members of a set that is in force have flushed so much of its log.
    fn is_confirmed(&self, node: usize, length: usize) -> bool {
        let postgres = &self.machines[node].postgres;
        let enough = |set: &SyncSet| {
            set.k == 0 || self.flushed(node, set, length) >= usize::try_from(set.k).unwrap_or(usize::MAX)
        };
        postgres.flushed >= length && postgres.in_force.iter().any(enough)
    }
}
