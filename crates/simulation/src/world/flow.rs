//! Log flows from primaries to standbys, and commits are acknowledged.

use std::cmp::Reverse;
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
        if target.history == source.history
            && target.log.last().is_some_and(|last| last.history == source.history)
        {
            return;
        }
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

    /// How much of its log members of `set` have flushed and are connected to say so, so many of them as a commit needs.
    pub(super) fn flushed(&self, primary: usize, set: &SyncSet) -> usize {
        let is_in = |other: &usize| set.members.contains(&self.machines[*other].name);
        let mut lengths: Vec<usize> = (0..self.members)
            .filter(|other| self.streams(primary, *other) && is_in(other))
            .map(|other| self.machines[other].postgres.flushed)
            .collect();
        lengths.sort_unstable_by_key(|length| Reverse(*length));
        let needed = usize::try_from(set.k).unwrap_or(usize::MAX);
        needed.checked_sub(1).map_or(usize::MAX, |last| lengths.get(last).copied().unwrap_or_default())
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
            let (at, length) = (self.agenda.now(), self.confirmed(node));
            let confirmed: Vec<Acknowledged> = self
                .client
                .pending_at(node, history)
                .filter(|pending| pending.length <= length)
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

    /// How much of its log the primary and enough members of a set that is in force have flushed.
    fn confirmed(&self, node: usize) -> usize {
        let postgres = &self.machines[node].postgres;
        let of_sets = postgres.in_force.iter().map(|set| self.flushed(node, set)).max();
        of_sets.unwrap_or_default().min(postgres.flushed)
    }
}
