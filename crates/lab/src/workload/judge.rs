//! What a history proves, for programs and for people.

use checker::Verdict;
use checker::file::{Counts, History};
use serde::Serialize;

use super::Recorded;

/// Violations told, at most; the rest is counted.
const TOLD: usize = 5;

/// The result of one workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Judged {
    /// Which workload.
    pub workload: &'static str,
    /// How its operations ended.
    #[serde(flatten)]
    pub counts: Counts,
    /// What the history proves.
    pub verdict: Finding,
    /// Where it is violated, what was seen; where it is undecided, why.
    pub because: Vec<String>,
    /// Reads that a former primary answered within its lease.
    pub old_reads: u64,
}

/// A verdict in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Finding {
    /// Everything that is claimed holds.
    Valid,
    /// Something that is claimed does not hold.
    Violated,
    /// Nothing wrong was found, but something could not be looked at.
    Undecided,
}

impl Judged {
    /// Judges a history. Takes a second and some hundred megabytes for an hour of work.
    pub fn of(history: &History, old_reads: u64) -> Self {
        let (verdict, because) = match history.verdict() {
            Verdict::Valid => (Finding::Valid, Vec::new()),
            Verdict::Undecided(why) => (Finding::Undecided, vec![why]),
            Verdict::Violated(violations) => {
                let mut told: Vec<String> = violations.iter().take(TOLD).map(ToString::to_string).collect();
                let more = violations.len().saturating_sub(TOLD);
                told.extend((more > 0).then(|| format!("and {more} more")));
                (Finding::Violated, told)
            }
        };
        Self { workload: history.workload(), counts: history.counts(), verdict, because, old_reads }
    }

    /// Why the run is no good, in words; empty when nothing was violated.
    pub fn failures(&self) -> Vec<String> {
        match self.verdict {
            Finding::Valid | Finding::Undecided => Vec::new(),
            Finding::Violated => {
                self.because.iter().map(|why| format!("{} is violated: {why}", self.workload)).collect()
            }
        }
    }
}

impl Recorded {
    /// Judges what was recorded.
    pub fn judge(&self) -> Judged {
        Judged::of(&self.history, self.old_reads)
    }
}

impl Finding {
    /// In one word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Violated => "VIOLATED",
            Self::Undecided => "undecided",
        }
    }
}
