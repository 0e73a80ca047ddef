//! Clients that write through the routes, and what they were told.

use std::time::Duration;

use model::leadership::Term;
use model::time::Moment;

/// One acknowledged write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acknowledged {
    pub(crate) write: u64,
    pub(crate) node: usize,
    pub(crate) term: Term,
    pub(crate) at: Moment,
    /// How long the log of that member was with this write, and its digest: who holds that holds the write, and all before.
    pub(crate) log: (usize, u64),
}

/// A write that waits for confirmation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pending {
    pub(crate) write: u64,
    node: usize,
    history: u64,
    pub(crate) length: usize,
}

/// All clients together.
#[derive(Debug, Default)]
pub(crate) struct Client {
    writes: u64,
    pending: Vec<Pending>,
    pub(crate) acknowledged: Vec<Acknowledged>,
    pub(crate) healed_at: Option<Moment>,
    /// The longest time between two acknowledgements.
    pub(crate) longest_gap: Duration,
}

impl Client {
    pub(crate) fn next_write(&mut self) -> u64 {
        self.writes += 1;
        self.writes
    }

    /// A write waits at `node`, on its log's history, for `length` entries to be confirmed.
    pub(crate) fn pending(&mut self, write: u64, node: usize, history: u64, length: usize) {
        self.pending.push(Pending { write, node, history, length });
    }

    /// Writes that wait at `node` on this history, the oldest first.
    pub(crate) fn pending_at(&self, node: usize, history: u64) -> impl Iterator<Item = &Pending> {
        self.pending.iter().filter(move |pending| pending.node == node && pending.history == history)
    }

    /// How many writes wait at `node` on this history.
    pub(crate) fn waiting_at(&self, node: usize, history: u64) -> u32 {
        u32::try_from(self.pending_at(node, history).count()).unwrap_or(u32::MAX)
    }

    pub(crate) fn acknowledge(&mut self, acknowledged: Acknowledged) {
        self.pending.retain(|pending| pending.write != acknowledged.write);
        self.longest_gap = self
            .acknowledged
            .last()
            .map_or(Duration::ZERO, |last| acknowledged.at.since(last.at))
            .max(self.longest_gap);
        self.acknowledged.push(acknowledged);
    }

    /// A server's connections are gone: what waited there is unknown for ever.
    pub(crate) fn lose(&mut self, node: usize) {
        self.pending.retain(|pending| pending.node != node);
    }
}
