//! Faults: what can happen to nodes, links, processes and disks. Each returns the evidence that it really happened.
//!
//! Faults that are meant to end do so by themselves, by the kernel's clock or by a guard process, even when the one who made
//! them is dead; until then the lab's record knows of them.

pub(crate) mod clocks;
pub(crate) mod disk;
pub(crate) mod flaws;
pub(crate) mod freeze;
pub(crate) mod guard;
pub(crate) mod lasting;
pub(crate) mod limits;
pub(crate) mod links;
pub(crate) mod load;
pub(crate) mod operator;
pub(crate) mod power;
pub(crate) mod process;
pub(crate) mod slow;

use std::fmt;

use effects::clock::now;
use model::time::Moment;
use serde::Serialize;

pub use crate::clocks::Clocks;
pub use crate::network::flaw::Flaw;
pub use crate::network::relay::Pace;
pub use disk::DiskFreeze;
pub use flaws::ActiveFlaw;
pub use lasting::{Lasting, TakenBack};
pub use links::{ActiveCut, CutOptions, Direction, Lines};
pub use load::Door;
pub use process::Target;

/// That a fault happened: when, and what was seen of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// Just before the lab acted, on this machine's boot clock, which nodes and clients share.
    pub begun: Moment,
    /// When it was verified.
    pub seen: Moment,
    /// What was seen, in one sentence; empty when nothing was.
    pub what: String,
}

impl Evidence {
    /// Evidence of something that began at `begun` and is seen now.
    pub(crate) fn since(begun: Moment, what: impl Into<String>) -> Self {
        Self { begun, seen: now(), what: what.into() }
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.what.is_empty() {
            // No evidence: the time alone would look like some.
            return Ok(());
        }
        write!(f, "{} ({:.1} ms)", self.what, self.seen.since(self.begun).as_secs_f64() * 1000.0)
    }
}
