//! What a run tells about itself.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// What a run that kept all invariants did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Time simulated.
    pub simulated: Duration,
    /// Writes acknowledged.
    pub acknowledged: u64,
    /// Terms begun.
    pub terms: u64,
    /// Faults injected, by their kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Standbys restarted, and primaries restarted in place.
    pub restarts: (u64, u64),
    /// The longest time without an acknowledgement, where faults came one at a time.
    pub outage: Option<Duration>,
    /// Of everything that happened, with its moment: the same seed has the same.
    pub digest: u64,
}

/// A broken invariant.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The seed that shows it again.
    pub seed: u64,
    /// When, in virtual time since the start.
    pub at: Duration,
    /// Which invariant.
    pub invariant: &'static str,
    /// Which sentence is not true.
    pub what: String,
    /// What happened before.
    pub trace: Vec<String>,
    /// Of everything that happened, with its moment.
    pub digest: u64,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.trace {
            writeln!(f, "{line}")?;
        }
        f.write_str(&self.sentence())
    }
}

impl Violation {
    /// The violation without what happened before it.
    pub fn sentence(&self) -> String {
        format!("seed {} after {} ms: {}: {}", self.seed, self.at.as_millis(), self.invariant, self.what)
    }
}
