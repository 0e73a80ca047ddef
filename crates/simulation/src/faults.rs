//! What a fault does to the world, and what takes it back.

use std::time::Duration;

use decide::leadership;

use crate::postgres::Process;
use crate::script::{Fault, Target};
use crate::system;
use crate::world::{Event, World};

impl World {
    /// A step of the script begins.
    pub(crate) fn next_fault(&mut self, number: usize) {
        let step = self.script.steps[number];
        let node = match step.fault {
            Fault::Power(target)
            | Fault::Agent(target)
            | Fault::AgentStalls(target)
            | Fault::Freeze(target)
            | Fault::Isolate(target)
            | Fault::OneWay(target, _)
            | Fault::Postmaster(target)
            | Fault::Disk(target) => self.target(target),
            Fault::Slow | Fault::Leaderless | Fault::Switchover | Fault::Apply(_) => 0,
        };
        self.note(format!("FAULT {} (n{node})", step.fault));
        *self.faults.entry(step.fault.kind()).or_default() += 1;
        self.inject(step.fault, node);
        self.agenda.after(step.lasts, Event::Undo { fault: step.fault, node });
    }

    fn target(&self, target: Target) -> usize {
        match target {
            Target::Primary => self.primary().unwrap_or(0),
            Target::Node(node) => node % self.machines.len(),
        }
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
            Fault::OneWay(_, other) => self.network.cut(node, to(other)),
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
            Fault::Switchover => self.ask_for_switchover(),
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

    /// Every agent that takes itself for the leader is asked; most requests are refused, as at a real time of trouble.
    fn ask_for_switchover(&mut self) {
        for node in 0..self.machines.len() {
            let Some(agent) = &self.machines[node].agent else { continue };
            if self.machines[node].is_deaf() || agent.leader() != Some(&self.machines[node].name) {
                continue;
            }
            let asked = agent.request(&system::database(), |question| leadership::switchover(question, None));
            match asked {
                Ok(command) => self.carry_out(node, command),
                Err(refusal) => self.note(format!("refused: {}", refusal.because)),
            }
        }
    }

    pub(crate) fn undo(&mut self, fault: Fault, node: usize) {
        if self.healed {
            return;
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
            Fault::OneWay(_, other) => self.network.mend(node, other % self.machines.len()),
            Fault::Slow => self.network.speed_up(),
            Fault::Disk(_) => self.machines[node].disk_hangs_since = None,
            Fault::Leaderless => self.store.cannot_elect = false,
            Fault::Postmaster(_) | Fault::Switchover | Fault::Apply(_) => {}
        }
    }

    fn thaw(&mut self, node: usize) {
        if self.machines[node].is_deaf() {
            return;
        }
        let backlog = std::mem::take(&mut self.machines[node].backlog);
        if !backlog.is_empty() {
            self.note(format!("n{node} thaws"));
        }
        for input in backlog {
            self.agenda.after(
                Duration::from_micros(1),
                Event::Deliver { to: node, input: Box::new(input), run: Some(self.machines[node].run) },
            );
        }
    }
}
