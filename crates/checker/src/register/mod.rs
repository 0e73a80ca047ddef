//! Registers with compare-and-set, each by itself: is there an order of the operations, each between its beginning and
//! its end, that explains every answer?
//!
//! Linearizability holds for a whole exactly when it holds for each register (Herlihy and Wing), so keys are judged one
//! by one. The search ([`search`]) goes along time and keeps every possible state (Lowe's just-in-time linearization).

mod search;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Anomaly, Operation, Verdict, Violation};

/// The name of a register.
pub type Key = String;

/// What a register holds; `None` when it is absent, as all are at first.
pub type Value = Option<u64>;

/// What a client asked of one register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Action {
    /// Which register.
    pub key: Key,
    /// What was asked of it.
    pub what: What,
}

/// What can be asked of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Its value; with what was answered.
    Read(Answer),
    /// A new value, whatever it holds.
    Write(u64),
    /// A new value if it holds the expected one.
    Swap {
        /// What it must hold.
        from: Value,
        /// The new value.
        to: u64,
        /// Whether it was done, if that was answered.
        done: Option<bool>,
    },
}

/// The answer to a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// There was none.
    None,
    /// The register is absent.
    Absent,
    /// It holds this value.
    Value(u64),
}

/// How much a check may cost; beyond, the verdict is "undecided".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Operations tried in possible states, for all keys together (about 10 million a second).
    pub steps: usize,
    /// Possible states kept at one moment of one key (48 bytes each).
    pub states: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { steps: 20_000_000, states: 200_000 }
    }
}

/// Judges a history.
pub fn check(history: &[Operation<Action>], bounds: Bounds) -> Verdict {
    let mut by_key: BTreeMap<&Key, Vec<&Operation<Action>>> = BTreeMap::new();
    for operation in history {
        by_key.entry(&operation.action.key).or_default().push(operation);
    }
    let mut violations = Vec::new();
    let mut undecided = None;
    let mut steps = bounds.steps;
    for (key, operations) in by_key {
        match search::linearize(&operations, bounds.states, &mut steps) {
            search::Outcome::Linearizable => {}
            search::Outcome::Stuck(evidence) => {
                let evidence = format!("register {key}: {evidence}");
                violations.push(Violation::new(Anomaly::NotLinearizable, evidence));
            }
            search::Outcome::GaveUp(why) => {
                undecided.get_or_insert_with(|| format!("register {key}: {why}"));
            }
        }
    }
    Verdict::of(violations, undecided)
}
