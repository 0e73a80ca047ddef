//! What fails: chosen by the seed, several at once, undone after a while.

use std::time::Duration;

use decide::leadership;

use crate::postgres::Process;
use crate::system;
use crate::world::{Event, World};

/// One fault.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// The machine loses power: nobody says goodbye.
    Power(usize),
    /// The agent is killed; its kernel and its PostgreSQL live.
    Agent(usize),
    /// The machine stands still.
    Freeze(usize),
    /// Cut off from everybody.
    Isolate(usize),
    /// One direction of one link is cut.
    OneWay(usize, usize),
    /// The postmaster is killed.
    Postmaster(usize),
    /// No fault, but as dangerous: an operator asks for a switchover.
    Switchover,
}

impl World {
    pub(crate) fn next_fault(&mut self) {
        if self.healed {
            return;
        }
        let pause = self.random.between(50_000, 4_000_000);
        self.agenda.after(pause, Event::Fault);
        let count = self.machines.len();
        let node =
            if self.random.once_in(2) { self.primary().unwrap_or(0) } else { self.random.below(count) };
        let fault = match self.random.below(9) {
            0 | 1 => Fault::Power(node),
            2 => Fault::Agent(node),
            3 => Fault::Freeze(node),
            4 => Fault::Isolate(node),
            5 => Fault::OneWay(node, self.random.below(count)),
            6 | 7 => Fault::Switchover,
            _ => Fault::Postmaster(node),
        };
        self.inject(&fault);
        let lasts = self.random.between(30_000, 6_000_000);
        self.agenda.after(lasts, Event::Undo(fault));
    }

    fn primary(&self) -> Option<usize> {
        self.machines.iter().position(|machine| machine.up && machine.postgres.process == Process::Primary)
    }

    fn inject(&mut self, fault: &Fault) {
        self.faults += 1;
        self.note(format!("FAULT {fault:?}"));
        match *fault {
            Fault::Power(node) => {
                let machine = &mut self.machines[node];
                machine.up = false;
                machine.agent = None;
                machine.action = None;
                machine.frozen = false;
                machine.gate_until = None;
                machine.postgres.kill();
                self.client.lose(node);
            }
            Fault::Agent(node) => {
                self.machines[node].agent = None;
                self.machines[node].action = None;
                self.close_lines(node);
            }
            Fault::Freeze(node) => self.machines[node].frozen = self.machines[node].up,
            Fault::Isolate(node) => self.network.isolate(node, self.machines.len()),
            Fault::OneWay(from, to) => self.network.cut(from, to),
            Fault::Postmaster(node) => {
                if matches!(self.machines[node].postgres.process, Process::Primary | Process::Standby { .. })
                {
                    self.machines[node].postgres.kill();
                    self.client.lose(node);
                }
            }
            Fault::Switchover => self.ask_for_switchover(),
        }
    }

    /// Every agent that takes itself for the leader is asked; most requests are refused, as at a real time of trouble.
    fn ask_for_switchover(&mut self) {
        for node in 0..self.machines.len() {
            let Some(agent) = &self.machines[node].agent else { continue };
            if self.machines[node].frozen || agent.leader() != Some(&self.machines[node].name) {
                continue;
            }
            let asked = agent.request(&system::database(), |question| leadership::switchover(question, None));
            match asked {
                Ok(command) => self.carry_out(node, command),
                Err(refusal) => self.note(format!("refused: {}", refusal.because)),
            }
        }
    }

    pub(crate) fn undo(&mut self, fault: &Fault) {
        if self.healed {
            return;
        }
        match *fault {
            Fault::Power(node) | Fault::Agent(node) => {
                if self.machines[node].agent.is_none() {
                    self.boot(node);
                }
            }
            Fault::Freeze(node) => self.thaw(node),
            Fault::Isolate(_) | Fault::OneWay(..) => self.network.heal(),
            Fault::Postmaster(_) | Fault::Switchover => {}
        }
    }

    fn thaw(&mut self, node: usize) {
        if !self.machines[node].frozen {
            return;
        }
        self.note(format!("n{node} thaws"));
        self.machines[node].frozen = false;
        let backlog = std::mem::take(&mut self.machines[node].backlog);
        for input in backlog {
            self.agenda.after(
                Duration::from_micros(1),
                Event::Deliver { to: node, input: Box::new(input), run: Some(self.machines[node].run) },
            );
        }
    }
}
