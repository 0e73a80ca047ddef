//! Transactions over lists: each appends unique values to lists and reads whole lists.
//!
//! A list that was read tells the order in which its values were written. From these orders follow dependencies between
//! transactions: who overwrote whom (ww), who saw whose write (wr), who missed whose write (rw), and who was over before
//! another began. Which cycles of these may exist is what an isolation level is.

mod cycle;
mod graph;
mod orders;
mod words;

use serde::{Deserialize, Serialize};

use crate::{Operation, Verdict};

/// The name of a list.
pub type Key = String;

/// One transaction, step by step.
pub type Action = Vec<Step>;

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Put a value at the end of a list; no value is ever appended twice to one list.
    Append(Key, u64),
    /// The whole list; `None` when no answer came. A list that does not exist is empty.
    Read(Key, Option<Vec<u64>>),
}

/// What is claimed of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// The isolation level under which every transaction ran.
    pub level: Level,
    /// Whether who begins after an acknowledgement sees what was acknowledged (true for one primary, not for standbys).
    pub real_time: bool,
}

/// Isolation levels as PostgreSQL has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// No dirty write, no aborted, intermediate or circular read (PL-2).
    ReadCommitted,
    /// PostgreSQL's repeatable read is snapshot isolation: besides, every cycle has two missed writes in a row.
    RepeatableRead,
    /// No cycle at all.
    Serializable,
}

/// Judges a history.
pub fn check(claim: Claim, history: &[Operation<Action>]) -> Verdict {
    let orders = orders::Orders::infer(claim, history);
    let graph = graph::Graph::build(claim, history, &orders);
    let search = cycle::search(claim.level, &graph);
    let cycles = search.cycles.iter().map(|found| words::cycle(history, &graph, found));
    let mut violations = orders.violations.clone();
    violations.extend(cycles);
    Verdict::of(violations, orders.undecided.or(search.undecided))
}
