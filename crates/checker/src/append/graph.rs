//! Who must have come before whom.

use std::collections::BTreeSet;

use model::time::Moment;

use super::orders::{Orders, Txn, views};
use super::{Action, Claim, Key};
use crate::Operation;

/// Why one transaction comes before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// It was over before the other began.
    RealTime,
    /// The other overwrote its write.
    WriteWrite,
    /// The other saw its write.
    WriteRead,
    /// It missed the other's write.
    ReadWrite,
}

/// One dependency between nodes of the graph.
#[derive(Clone, Debug)]
pub(super) struct Edge<'a> {
    pub(super) to: usize,
    pub(super) kind: Kind,
    /// The list and the values of it by which it is known; none for time.
    pub(super) because: Option<Because<'a>>,
}

/// A dependency's evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Because<'a> {
    pub(super) key: &'a Key,
    /// ww: what was overwritten. wr: what was seen. rw: the newest value that was seen, if any.
    pub(super) earlier: Option<u64>,
    /// ww: what came after it. rw: the value that was missed.
    pub(super) later: Option<u64>,
}

/// Nodes are the transactions of the history and, behind them, one node for each moment at which one of them ended: with
/// these, "over before the other began" needs few edges instead of one for each pair.
pub(super) struct Graph<'a> {
    pub(super) edges: Vec<Vec<Edge<'a>>>,
    pub(super) transactions: usize,
}

impl<'a> Graph<'a> {
    pub(super) fn build(claim: Claim, history: &'a [Operation<Action>], orders: &Orders<'a>) -> Self {
        let mut graph = Self { edges: vec![Vec::new(); history.len()], transactions: history.len() };
        graph.add_writes(orders);
        for (reader, operation) in history.iter().enumerate() {
            graph.add_reads(reader, operation, orders);
        }
        if claim.real_time {
            graph.add_time(history, orders);
        }
        graph
    }

    fn add(&mut self, from: Txn, to: Txn, kind: Kind, because: Because<'a>) {
        if from != to {
            self.edges[from].push(Edge { to, kind, because: Some(because) });
        }
    }

    /// Who appended right behind whom; what was acknowledged and never seen comes behind all that was seen.
    fn add_writes(&mut self, orders: &Orders<'a>) {
        for (&key, list) in &orders.longest {
            for pair in list.windows(2) {
                let because = Because { key, earlier: Some(pair[0]), later: Some(pair[1]) };
                if let (Some(from), Some(to)) = (orders.writer(key, pair[0]), orders.writer(key, pair[1])) {
                    self.add(from, to, Kind::WriteWrite, because);
                }
            }
        }
        for (&key, values) in &orders.unseen {
            let last = orders.longest.get(key).and_then(|list| list.last()).copied();
            let Some((from, last)) = last.and_then(|last| Some((orders.writer(key, last)?, last))) else {
                continue;
            };
            for &value in values {
                let because = Because { key, earlier: Some(last), later: Some(value) };
                if let Some(to) = orders.writer(key, value) {
                    self.add(from, to, Kind::WriteWrite, because);
                }
            }
        }
    }

    fn add_reads(&mut self, reader: Txn, operation: &'a Operation<Action>, orders: &Orders<'a>) {
        for view in views(reader, operation) {
            let (key, seen) = (view.key, view.others());
            let newest = seen.last().copied();
            if let Some((writer, value)) = newest.and_then(|value| Some((orders.writer(key, value)?, value)))
            {
                let because = Because { key, earlier: Some(value), later: None };
                self.add(writer, reader, Kind::WriteRead, because);
            }
            let longest = orders.longest.get(key).copied().unwrap_or_default();
            let missed = match longest.get(seen.len()) {
                Some(value) => vec![*value],
                None => orders.unseen.get(key).cloned().unwrap_or_default(),
            };
            for value in missed {
                let because = Because { key, earlier: newest, later: Some(value) };
                if let Some(writer) = orders.writer(key, value) {
                    self.add(reader, writer, Kind::ReadWrite, because);
                }
            }
        }
    }

    /// From the end of one to the beginning of another, along the moments at which transactions ended. What is not
    /// acknowledged has a beginning only.
    fn add_time(&mut self, history: &[Operation<Action>], orders: &Orders<'_>) {
        let ends: BTreeSet<Moment> = history.iter().filter_map(Operation::acknowledged).collect();
        let ends: Vec<Moment> = ends.into_iter().collect();
        let time = |to| Edge { to, kind: Kind::RealTime, because: None };
        let first = self.edges.len();
        self.edges.extend((1..=ends.len()).map(|next| match next {
            next if next < ends.len() => vec![time(first + next)],
            _ => Vec::new(),
        }));
        for &txn in &orders.committed {
            let operation = &history[txn];
            if let Some(place) = operation.acknowledged().and_then(|at| ends.binary_search(&at).ok()) {
                self.edges[txn].push(time(first + place));
            }
            let before = ends.partition_point(|end| *end < operation.invoked);
            if let Some(newest) = before.checked_sub(1) {
                self.edges[first + newest].push(time(txn));
            }
        }
    }
}
