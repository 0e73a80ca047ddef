//! Connections between agents: made when both live and hear each other, closed with a word by a kernel that lives, given
//! up in silence by one that does not hear.

use std::time::Duration;

use decide::agent::Input;
use model::status::PeerMessage;

use super::{Event, World};

/// After this long without a message a connection is given up.
const SILENT_AFTER: Duration = Duration::from_millis(1200);

impl World {
    pub(super) fn is_linked(&self, a: usize, b: usize) -> bool {
        self.linked.contains_key(&(a.min(b), a.max(b)))
    }

    fn unlink(&mut self, a: usize, b: usize) -> bool {
        self.unheard.remove(&(a, b));
        self.unheard.remove(&(b, a));
        self.linked.remove(&(a.min(b), a.max(b))).is_some()
    }

    /// Sends over a connection: what does not arrive now is repeated while the connection lives. Heartbeats that are late say
    /// nothing and are left out.
    pub(super) fn say(&mut self, node: usize, to: usize, message: PeerMessage) {
        if !self.is_linked(node, to) {
            return;
        }
        if self.network.carries(node, to) {
            self.send(self.machines[node].name.clone(), to, message);
        } else if matches!(message, PeerMessage::Status(_)) {
            self.unheard.entry((node, to)).or_default().push(message);
        }
    }

    fn repeat(&mut self, node: usize, to: usize) {
        for message in self.unheard.remove(&(node, to)).unwrap_or_default() {
            self.send(self.machines[node].name.clone(), to, message);
        }
    }

    /// Makes what can be made, drops what has been silent for too long.
    pub(super) fn keep_lines(&mut self) {
        self.agenda.after(Duration::from_millis(100), Event::Lines);
        let now = self.agenda.now();
        for a in 0..self.machines.len() {
            for b in a + 1..self.machines.len() {
                let both = self.talks(a) && self.talks(b);
                let frozen = self.machines[a].is_deaf() || self.machines[b].is_deaf();
                let heard = both && !frozen && self.network.connects(a, b);
                match self.linked.get_mut(&(a, b)) {
                    Some(last) if heard => {
                        *last = now;
                        self.repeat(a, b);
                        self.repeat(b, a);
                    }
                    Some(last) if now.since(*last) >= SILENT_AFTER => {
                        self.unlink(a, b);
                        self.tell_line(a, b, Some(false));
                        self.tell_line(b, a, Some(false));
                    }
                    None if heard => {
                        self.linked.insert((a, b), now);
                        self.tell_line(a, b, None);
                        self.tell_line(b, a, None);
                    }
                    Some(_) | None => {}
                }
            }
        }
    }

    fn talks(&self, node: usize) -> bool {
        self.machines[node].up && self.machines[node].agent.is_some()
    }

    /// `closed`: `None` for a new connection.
    fn tell_line(&mut self, node: usize, other: usize, closed: Option<bool>) {
        let peer = self.machines[other].name.clone();
        let line = "main".into();
        let input = match closed {
            None => Input::LineUp { peer, line },
            Some(closed) => Input::LineDown { peer, line, closed },
        };
        self.feed(node, input);
    }

    /// A node that starts anew knows nothing of the connections of before: whoever uses one is told that it is closed.
    pub(super) fn forget_lines(&mut self, node: usize) {
        for other in 0..self.machines.len() {
            if self.unlink(node, other) {
                let told = self.network.connects(node, other);
                self.tell_line(other, node, Some(told));
            }
        }
    }

    /// A node's kernel closes its agent's connections; whoever is not cut off hears it.
    pub(crate) fn close_lines(&mut self, node: usize) {
        for other in 0..self.machines.len() {
            let pair = (node.min(other), node.max(other));
            if other != node && self.linked.contains_key(&pair) && self.network.connects(node, other) {
                self.unlink(node, other);
                self.tell_line(other, node, Some(true));
            }
        }
    }
}
