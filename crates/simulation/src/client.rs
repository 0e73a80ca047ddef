//! Clients that write through the routes, and what they were told.

use std::collections::BTreeMap;

use model::leadership::Term;
use model::time::Moment;

/// One acknowledged write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acknowledged {
    pub(crate) write: u64,
    pub(crate) node: usize,
    pub(crate) term: Term,
    pub(crate) at: Moment,
}

/// All clients together.
#[derive(Debug, Default)]
pub(crate) struct Client {
    writes: u64,
    pending: BTreeMap<u64, (usize, u64, usize)>,
    pub(crate) acknowledged: Vec<Acknowledged>,
    pub(crate) healed_at: Option<Moment>,
}

impl Client {
    pub(crate) fn next_write(&mut self) -> u64 {
        self.writes += 1;
        self.writes
    }

    /// A write waits at `node`, on its log's history, for `length` entries to be confirmed.
    pub(crate) fn pending(&mut self, write: u64, node: usize, history: u64, length: usize) {
        self.pending.insert(write, (node, history, length));
    }

    /// Writes that wait at `node` on this history.
    pub(crate) fn pending_at(&self, node: usize, history: u64) -> Vec<(u64, usize)> {
        let here = self.pending.iter().filter(|(_, (at, of, _))| *at == node && *of == history);
        here.map(|(write, (_, _, length))| (*write, *length)).collect()
    }

    pub(crate) fn acknowledge(&mut self, write: u64, node: usize, term: Term, at: Moment) {
        self.pending.remove(&write);
        self.acknowledged.push(Acknowledged { write, node, term, at });
    }

    /// A server's connections are gone: what waited there is unknown for ever.
    pub(crate) fn lose(&mut self, node: usize) {
        self.pending.retain(|_, (at, _, _)| *at != node);
    }
}
