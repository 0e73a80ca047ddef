//! What a member's actions do to its PostgreSQL, and how long they take.

use std::time::Duration;

use decide::agent::{Input, Outcome};
use decide::member::Action;
use model::leadership::{SyncSet, Term};
use model::postgres::Lsn;
use model::status::Tenure;

use super::{Event, World};
use crate::postgres::{Postgres, Process};
use crate::system;

impl World {
    /// An action begins. A fence takes the place of whatever was under way.
    pub(super) fn begin(&mut self, node: usize, action: Action) {
        let (low, high) = match &action {
            Action::Promise(_) => (300, 3000),
            Action::Found { .. } => (300_000, 900_000),
            Action::Fence { .. } => (5_000, 40_000),
            Action::StartDetached => (80_000, 400_000),
            Action::Detach { .. } => (3_000, 60_000),
            Action::ReportStopped { .. } => (3_000, 20_000),
            Action::Promote { .. } => (30_000, 200_000),
            Action::ApplySync { .. } => (5_000, 500_000),
            Action::Follow { .. } => (3_000, 300_000),
            Action::Rejoin { .. } => (300_000, 1_500_000),
            Action::Clone { .. } => (500_000, 2_000_000),
            Action::Restart { .. } => (200_000, 900_000),
            Action::StartPrimary { .. } => (80_000, 400_000),
            Action::HandOver { .. } => (20_000, 120_000),
        };
        let duration = self.random.between(low, high);
        let machine = &mut self.machines[node];
        machine.run_action_started(&action);
        // Copies are made beside a server that has ended.
        if matches!(action, Action::Rejoin { .. } | Action::Clone { .. }) {
            machine.postgres.kill();
        }
        machine.action = Some(action);
        let run = machine.run;
        self.agenda.after(duration / 2, Event::Midway { node, run });
        self.agenda.after(duration, Event::Done { node, run });
    }

    /// Half-way: what becomes real before the agent knows.
    pub(super) fn midway(&mut self, node: usize, run: u64) {
        let machine = &self.machines[node];
        let hangs =
            machine.disk_hangs_since.is_some() && machine.action.as_ref().is_some_and(writes_to_the_volume);
        if !self.is_current(node, run) || machine.is_deaf() || hangs {
            return;
        }
        let machine = &mut self.machines[node];
        match machine.action.clone() {
            Some(Action::Fence { .. }) => machine.postgres.kill(),
            Some(Action::Promote { term, sync, .. }) if machine.durable.promised <= term => {
                self.become_primary(node, &sync)
            }
            Some(Action::Restart { .. }) => machine.postgres.kill(),
            Some(Action::StartPrimary { term, sync, .. }) if machine.durable.promised <= term => {
                self.start_as_primary(node, &sync);
            }
            Some(
                Action::Promise(_)
                | Action::Found { .. }
                | Action::StartDetached
                | Action::Detach { .. }
                | Action::ReportStopped { .. }
                | Action::Promote { .. }
                | Action::ApplySync { .. }
                | Action::Follow { .. }
                | Action::Rejoin { .. }
                | Action::Clone { .. }
                | Action::StartPrimary { .. }
                | Action::HandOver { .. },
            )
            | None => {}
        }
    }

    fn start_as_primary(&mut self, node: usize, sync: &SyncSet) {
        // Connections of before the shutdown are gone, and what waited on them is never acknowledged.
        self.client.lose(node);
        let (wanted, now_us) = (self.wanted, self.now_us());
        let postgres = &mut self.machines[node].postgres;
        if postgres.process == Process::Stopped {
            postgres.start_primary(wanted, now_us);
            postgres.in_force = vec![sync.clone()];
        }
    }

    fn become_primary(&mut self, node: usize, sync: &SyncSet) {
        let postgres = &mut self.machines[node].postgres;
        if matches!(postgres.process, Process::Standby { .. }) {
            self.histories += 1;
            postgres.process = Process::Primary;
            postgres.in_force = vec![sync.clone()];
            postgres.timeline.0 += 1;
            postgres.history = self.histories;
            postgres.announce();
        }
    }

    /// The end: the outcome becomes known.
    pub(super) fn done(&mut self, node: usize, run: u64) {
        if !self.is_current(node, run) {
            return;
        }
        let machine = &self.machines[node];
        let hangs =
            machine.disk_hangs_since.is_some() && machine.action.as_ref().is_some_and(writes_to_the_volume);
        if machine.is_deaf() || hangs {
            self.agenda.after(Duration::from_millis(50), Event::Done { node, run });
            return;
        }
        let Some(action) = self.machines[node].action.take() else { return };
        let outcome = self.outcome(node, &action);
        self.restarts.0 += u64::from(outcome.is_ok() && matches!(action, Action::Restart { .. }));
        self.restarts.1 += u64::from(outcome.is_ok() && matches!(action, Action::StartPrimary { .. }));
        let outcome = outcome.unwrap_or_else(|because| Outcome::Failed { action, because });
        self.machines[node].keep(&outcome);
        let server = Some(self.server(node));
        self.feed(node, Input::Done { database: system::database(), outcome, server });
    }

    fn outcome(&mut self, node: usize, action: &Action) -> Result<Outcome, String> {
        let promised = self.machines[node].durable.promised;
        match action {
            Action::Promise(term) => Ok(Outcome::Promised(*term)),
            Action::Fence { .. } => {
                self.machines[node].postgres.kill();
                Ok(Outcome::Fenced)
            }
            Action::Found { term } => self.found(node, *term),
            Action::StartDetached => self.start_detached(node),
            Action::Detach { term } => self.detach(node, *term),
            Action::ReportStopped { term, led } => {
                Ok(Outcome::Stopped { term: promised.max(*term), led: *led, clean_end: None })
            }
            Action::Promote { term, sync, version } => self.promoted(node, *term, sync, *version, promised),
            Action::ApplySync { term, sync, version } => Ok(self.sync_applied(node, *term, sync, *version)),
            Action::Follow { primary, term } => self.follow(node, primary, *term, promised),
            Action::Rejoin { primary, term, .. } if self.looks_alike(node, primary) => {
                self.follow(node, primary, *term, promised).map(|_| Outcome::Rejoined(*term))
            }
            Action::Rejoin { primary, term, .. } | Action::Clone { primary, term } => {
                self.copy(node, primary, *term, promised)
            }
            Action::Restart { primary, term } => self.follow(node, primary, *term, promised),
            Action::StartPrimary { term, .. } => self.started_as_primary(node, *term, promised),
            Action::HandOver { term } => self.hand_over(node, *term),
        }
    }

    fn found(&mut self, node: usize, term: Term) -> Result<Outcome, String> {
        self.histories += 1;
        let histories = self.histories;
        let (wanted, now_us) = (self.wanted, self.now_us());
        let postgres = &mut self.machines[node].postgres;
        if postgres.process == Process::Empty {
            *postgres = Postgres::empty();
            postgres.timeline.0 = 1;
            postgres.history = histories;
            postgres.identifier = Some(histories);
        }
        postgres.start_primary(wanted, now_us);
        postgres.in_force = vec![];
        let begins = postgres.lsn();
        Ok(Outcome::Leads { tenure: self.tenure(node, term, begins, None) })
    }

    fn start_detached(&mut self, node: usize) -> Result<Outcome, String> {
        let (wanted, now_us) = (self.wanted, self.now_us());
        let postgres = &mut self.machines[node].postgres;
        if postgres.process == Process::Empty {
            return Err("there is no data".to_owned());
        }
        if postgres.process == Process::Stopped {
            postgres.start_standby(None, wanted, now_us);
        }
        Ok(Outcome::StartedDetached)
    }

    fn detach(&mut self, node: usize, term: Term) -> Result<Outcome, String> {
        let postgres = &mut self.machines[node].postgres;
        match &mut postgres.process {
            Process::Standby { follows, streaming } => {
                *follows = None;
                *streaming = false;
                // The receiver flushes what it has before it ends.
                postgres.flushed = postgres.log.len();
                Ok(Outcome::Detached(term, postgres.position()))
            }
            Process::Empty | Process::Stopped | Process::Primary => {
                Err("the server is no standby".to_owned())
            }
        }
    }

    fn promoted(
        &mut self,
        node: usize,
        term: Term,
        sync: &SyncSet,
        version: u64,
        promised: Term,
    ) -> Result<Outcome, String> {
        if promised > term {
            return Err("a higher term is promised".to_owned());
        }
        let postgres = &self.machines[node].postgres;
        if postgres.process != Process::Primary {
            return Err("the server is not out of recovery".to_owned());
        }
        let length = postgres.log.len();
        let first = postgres.log.iter().position(|entry| entry.history == postgres.history).unwrap_or(length);
        let begins = Lsn(u64::try_from(first).unwrap_or(u64::MAX));
        let proved = self.is_proved(node, sync);
        Ok(Outcome::Leads { tenure: self.tenure(node, term, begins, proved.then_some(version)) })
    }

    /// What a node proves that has just made its timeline.
    fn tenure(&self, node: usize, term: Term, begins: Lsn, sync_applied: Option<u64>) -> Tenure {
        let Postgres { timeline, identifier: system_identifier, .. } = self.machines[node].postgres;
        Tenure { term, timeline, begins, made_in: Some(term), system_identifier, sync_applied }
    }

    fn started_as_primary(&mut self, node: usize, term: Term, promised: Term) -> Result<Outcome, String> {
        if promised > term {
            return Err("a higher term is promised".to_owned());
        }
        let before = self.machines[node].durable.tenure.clone();
        let postgres = &self.machines[node].postgres;
        match before {
            Some(before) if postgres.process == Process::Primary => {
                Ok(Outcome::Leads { tenure: Tenure { term, sync_applied: None, ..before } })
            }
            Some(_) | None => Err("the server does not run".to_owned()),
        }
    }

    fn is_proved(&self, node: usize, sync: &SyncSet) -> bool {
        let length = self.machines[node].postgres.log.len();
        self.flushed(node, sync) >= length
    }

    fn sync_applied(&mut self, node: usize, term: Term, sync: &SyncSet, version: u64) -> Outcome {
        let proved = self.is_proved(node, sync);
        if proved {
            self.machines[node].postgres.in_force = vec![sync.clone()];
        }
        Outcome::SyncApplied { term, version, proved }
    }

    fn follow(
        &mut self,
        node: usize,
        primary: &model::NodeName,
        term: Term,
        promised: Term,
    ) -> Result<Outcome, String> {
        if promised > term {
            return Err("a higher term is promised".to_owned());
        }
        let of = self.machines.iter().position(|machine| machine.name == *primary);
        let (wanted, now_us) = (self.wanted, self.now_us());
        let postgres = &mut self.machines[node].postgres;
        match postgres.process {
            Process::Stopped | Process::Standby { .. } => {
                if postgres.process == Process::Stopped {
                    postgres.start_standby(of, wanted, now_us);
                }
                postgres.process = Process::Standby { follows: of, streaming: false };
                postgres.follows_term = term;
                Ok(Outcome::Follows(term))
            }
            Process::Empty | Process::Primary => Err("the server is no standby".to_owned()),
        }
    }

    /// Whether a rewind has nothing to do: all that PostgreSQL has of a timeline is its number.
    fn looks_alike(&self, node: usize, primary: &model::NodeName) -> bool {
        let source = self.machines.iter().find(|machine| machine.name == *primary);
        let own = &self.machines[node].postgres;
        source.is_some_and(|source| source.postgres.timeline == own.timeline && !own.log_gone)
    }

    fn copy(
        &mut self,
        node: usize,
        primary: &model::NodeName,
        term: Term,
        promised: Term,
    ) -> Result<Outcome, String> {
        let Some(of) = self.machines.iter().position(|machine| machine.name == *primary) else {
            return Err("no such node".to_owned());
        };
        let source = &self.machines[of];
        let usable = source.up && !source.frozen && source.postgres.process == Process::Primary;
        let arrives = self.network.connects(node, of) && self.network.carries_log(node, of);
        if promised > term || !usable || !arrives || !self.gate_is_open(of) {
            return Err("the primary cannot be reached".to_owned());
        }
        let mut copy = source.postgres.clone();
        copy.lose_unflushed();
        copy.start_standby(Some(of), self.wanted, self.now_us());
        copy.follows_term = term;
        copy.in_force.clear();
        self.machines[node].postgres = copy;
        Ok(Outcome::Rejoined(term))
    }

    fn hand_over(&mut self, node: usize, term: Term) -> Result<Outcome, String> {
        let postgres = &mut self.machines[node].postgres;
        postgres.flush();
        let clean_end = (postgres.process == Process::Primary).then(|| postgres.position());
        let postgres = &mut self.machines[node].postgres;
        if clean_end.is_some() {
            // The shutdown checkpoint: a standby that is connected gets it, one that is not does not.
            postgres.append(None);
            postgres.flush();
            let length = postgres.log.len();
            for standby in 0..self.members {
                while self.streams(node, standby)
                    && self.network.carries_log(node, standby)
                    && self.machines[standby].postgres.log.len() < length
                {
                    self.replicate(node, standby);
                }
                if self.machines[standby].disk_hangs_since.is_none() {
                    self.machines[standby].postgres.flush();
                }
            }
        }
        self.machines[node].postgres.kill();
        Ok(Outcome::Stopped { term: term.next(), led: term, clean_end })
    }
}

/// Whether an action cannot end while the database's volume hangs.
fn writes_to_the_volume(action: &Action) -> bool {
    match action {
        Action::Promise(_) | Action::Fence { .. } | Action::ReportStopped { .. } => false,
        Action::Found { .. }
        | Action::StartDetached
        | Action::Detach { .. }
        | Action::Promote { .. }
        | Action::ApplySync { .. }
        | Action::Follow { .. }
        | Action::Rejoin { .. }
        | Action::Clone { .. }
        | Action::Restart { .. }
        | Action::StartPrimary { .. }
        | Action::HandOver { .. } => true,
    }
}

impl super::Machine {
    /// What is written down before an action begins.
    fn run_action_started(&mut self, action: &Action) {
        match action {
            Action::Promote { term, .. } | Action::StartPrimary { term, .. } => {
                self.durable.is_elected(*term);
            }
            // From here on some WAL senders obey the new set, and some the old one.
            Action::ApplySync { sync, .. } => self.postgres.in_force.push(sync.clone()),
            Action::Promise(_)
            | Action::Found { .. }
            | Action::Fence { .. }
            | Action::StartDetached
            | Action::Detach { .. }
            | Action::ReportStopped { .. }
            | Action::Follow { .. }
            | Action::Restart { .. }
            | Action::Rejoin { .. }
            | Action::Clone { .. }
            | Action::HandOver { .. } => {}
        }
    }

    /// What is written down when an action has ended.
    fn keep(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Promised(term) | Outcome::Stopped { term, .. } => {
                self.durable.promised = self.durable.promised.max(*term);
            }
            Outcome::Leads { tenure } => {
                self.durable.is_elected(tenure.term);
                self.durable.tenure = Some(tenure.clone());
            }
            Outcome::Rejoined(term) | Outcome::Follows(term) => {
                self.durable.forget_leading();
                self.durable.taken_from = Some(*term);
            }
            Outcome::Fenced
            | Outcome::StartedDetached
            | Outcome::Detached(..)
            | Outcome::SyncApplied { .. }
            | Outcome::Failed { .. } => {}
        }
    }
}
