//! What happens to the world.

use decide::agent::{Input, Value};
use model::script::Fault;
use model::time::Moment;

/// What happens.
#[derive(Debug)]
pub(crate) enum Event {
    Tick { node: usize, run: u64 },
    Observe { node: usize, run: u64 },
    Deliver { to: usize, input: Box<Input>, run: Option<u64> },
    Commit { node: usize, run: u64, expected: u64, value: Box<Value> },
    Read { node: usize, run: u64, asked: Moment },
    Midway { node: usize, run: u64 },
    Done { node: usize, run: u64 },
    Lines,
    Store,
    Step,
    Write,
    Fault(usize),
    Undo { fault: Fault, node: usize },
    Heal,
    End,
}

impl Event {
    /// A number of its own for each kind, for the digest of a run.
    pub(super) fn number(&self) -> u64 {
        match self {
            Self::Tick { .. } => 1,
            Self::Observe { .. } => 2,
            Self::Deliver { .. } => 3,
            Self::Commit { .. } => 4,
            Self::Read { .. } => 5,
            Self::Midway { .. } => 6,
            Self::Done { .. } => 7,
            Self::Lines => 8,
            Self::Store => 9,
            Self::Step => 10,
            Self::Write => 11,
            Self::Fault(_) => 12,
            Self::Undo { .. } => 13,
            Self::Heal => 14,
            Self::End => 15,
        }
    }

    /// Whether a server, a record or an acknowledgement can be another after it. The steps in between, every 2 ms, also
    /// see what the passing of time does.
    pub(super) fn changes_what_is_judged(&self) -> bool {
        match self {
            Self::Commit { .. }
            | Self::Midway { .. }
            | Self::Done { .. }
            | Self::Step
            | Self::Fault(_)
            | Self::Undo { .. }
            | Self::Heal
            | Self::End => true,
            Self::Tick { .. }
            | Self::Observe { .. }
            | Self::Deliver { .. }
            | Self::Read { .. }
            | Self::Lines
            | Self::Store
            | Self::Write => false,
        }
    }
}
