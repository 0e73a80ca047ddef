//! What a fault does to the world, and what takes it back.

use std::time::Duration;

use decide::leadership::{self, Question, Refusal};
use model::leadership::Leadership;
use model::script::{Fault, Target};

use crate::postgres::{Postgres, Process};
use crate::system;
use crate::world::{Event, World};

impl World {
    /// A step of the script begins.
    pub(crate) fn next_fault(&mut self, number: usize) {
        let step = self.script.steps[number];
        let node = step.fault.target().map_or(0, |target| self.target(target));
        self.note(format!("FAULT {} ({})", step.fault, system::node_name(node)));
        self.begin_chapter(step.fault.at(node).to_string());
        *self.faults.entry(step.fault.kind()).or_default() += 1;
        self.lasting += usize::from(step.fault.lasts());
        self.inject(step.fault, node);
        self.agenda.after(step.lasts, Event::Undo { fault: step.fault, node });
    }

    fn target(&self, target: Target) -> usize {
        match target {
            Target::Primary => self.primary().unwrap_or(0),
            Target::Standby => self.standby().unwrap_or(1),
            Target::Node(node) => node % self.machines.len(),
        }
    }

    /// A member whose word confirms commits.
    fn standby(&self) -> Option<usize> {
        let record = &self.store.leadership.as_ref()?.value;
        self.machines.iter().position(|machine| record.sync.members.contains(&machine.name))
    }

    fn primary(&self) -> Option<usize> {
        let is_primary = |node: &usize| {
            self.machines[*node].up && self.machines[*node].postgres.process == Process::Primary
        };
        let open = (0..self.machines.len()).filter(is_primary).find(|node| self.gate_is_open(*node));
        open.or_else(|| (0..self.machines.len()).find(is_primary))
    }

    fn inject(&mut self, fault: Fault, node: usize) {
        let now = self.agenda.now();
        let to = |other: usize| other % self.machines.len();
        match fault {
            Fault::Power(_) => self.lose_power(node),
            Fault::Agent(_) => {
                self.machines[node].agent = None;
                self.machines[node].action = None;
                self.close_lines(node);
            }
            Fault::AgentStalls(_) => self.machines[node].stalled = self.machines[node].agent.is_some(),
            Fault::Freeze(_) => self.machines[node].frozen = self.machines[node].up,
            Fault::Isolate(_) => self.network.isolate(node),
            Fault::Mute(_) => self.network.mute(node),
            Fault::OneWay(_, other) => self.network.cut(node, to(other)),
            Fault::Narrow(_) => {
                self.network.narrow(node);
                _ = self.machines[node].narrow_since.get_or_insert(now);
            }
            Fault::Slow => self.network.slow_down(),
            Fault::Postmaster(_) => {
                if matches!(self.machines[node].postgres.process, Process::Primary | Process::Standby { .. })
                {
                    self.machines[node].postgres.kill();
                    self.client.lose(node);
                    self.look(node);
                }
            }
            Fault::Disk(_) => _ = self.machines[node].disk_hangs_since.get_or_insert(now),
            Fault::Leaderless => {
                self.store.leader = None;
                self.store.cannot_elect = true;
            }
            Fault::Switchover => self.ask(|question| leadership::switchover(question, None)),
            Fault::Force(_) => {
                let (name, words) = (system::node_name(node), "the rest is lost, go on without it");
                self.ask(|question| leadership::force_failover(question, &name, words));
            }
            Fault::Pause => self.store.paused = Some("an operator wants to look first".to_owned()),
            Fault::LogGone(_) => self.machines[node].postgres.log_gone = true,
            Fault::Wipe(_) => {
                self.machines[node].postgres = Postgres::empty();
                self.client.lose(node);
                self.look(node);
            }
            Fault::Apply(connections) => self.wanted = connections,
        }
    }

    fn lose_power(&mut self, node: usize) {
        let machine = &mut self.machines[node];
        machine.up = false;
        machine.agent = None;
        machine.action = None;
        machine.frozen = false;
        machine.gate_until = None;
        machine.postgres.kill();
        machine.postgres.lose_unflushed();
        self.client.lose(node);
    }

    /// An operator asks every agent that takes itself for the leader; most requests of a seed are refused, as at a real time
    /// of trouble.
    fn ask(&mut self, what: impl Fn(&Question<'_>) -> Result<Leadership, Refusal>) {
        for node in 0..self.machines.len() {
            let Some(agent) = &self.machines[node].agent else { continue };
            if self.machines[node].is_deaf() || agent.leader() != Some(&self.machines[node].name) {
                continue;
            }
            match agent.request(&system::database(), &what) {
                Ok(command) => self.carry_out(node, command),
                Err(refusal) => {
                    self.note(format!("refused: {}", refusal.because));
                    self.add_line(format!("refused: {} ({})", refusal.because, refusal.hint));
                }
            }
        }
    }

    pub(crate) fn undo(&mut self, fault: Fault, node: usize) {
        if self.healed {
            return;
        }
        if fault.lasts() {
            self.lasting = self.lasting.saturating_sub(1);
            self.begin_chapter(format!("over: {}", fault.at(node)));
        }
        match fault {
            Fault::Power(_) | Fault::Agent(_) => {
                if self.machines[node].agent.is_none() {
                    self.boot(node);
                }
            }
            Fault::AgentStalls(_) => {
                self.machines[node].stalled = false;
                self.thaw(node);
            }
            Fault::Freeze(_) => {
                self.machines[node].frozen = false;
                self.thaw(node);
            }
            Fault::Isolate(_) => self.network.rejoin(node),
            Fault::Mute(_) => self.network.unmute(node),
            Fault::OneWay(_, other) => self.network.mend(node, other % self.machines.len()),
            Fault::Narrow(_) => {
                self.network.widen(node);
                if self.network.carries_log(node, node) {
                    self.machines[node].narrow_since = None;
                }
            }
            Fault::Slow => self.network.speed_up(),
            Fault::Disk(_) => self.machines[node].disk_hangs_since = None,
            Fault::Leaderless => self.store.cannot_elect = false,
            Fault::Pause => self.store.paused = None,
            Fault::Postmaster(_)
            | Fault::Switchover
            | Fault::Force(_)
            | Fault::LogGone(_)
            | Fault::Wipe(_)
            | Fault::Apply(_) => {}
        }
    }

    fn thaw(&mut self, node: usize) {
        if self.machines[node].is_deaf() {
            return;
        }
        let backlog = std::mem::take(&mut self.machines[node].backlog);
        if !backlog.is_empty() {
            self.note(format!("{} thaws", system::node_name(node)));
        }
        for input in backlog {
            self.agenda.after(
                Duration::from_micros(1),
                Event::Deliver { to: node, input: Box::new(input), run: Some(self.machines[node].run) },
            );
        }
    }
}
