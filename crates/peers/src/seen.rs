//! What was measured, as plain values.

use std::collections::BTreeMap;

use lab::drill::{Run, Spread};
use serde::{Deserialize, Serialize};

use crate::cost::Cost;
use crate::variant::{Fault, Subject};

/// One run of a fault, as the outside client saw it: the part of a drill's report that is compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// Last acknowledgement before to first after the fault, in milliseconds; `null` when writes never came back.
    pub(crate) outage_ms: Option<f64>,
    /// Failed and unknown writes of the client.
    pub(crate) errors: u64,
    /// Acknowledged writes of the client.
    pub(crate) acknowledged: u64,
    /// Acknowledged writes that are not there afterwards.
    pub(crate) lost: u64,
    /// Writes that are there more than once.
    pub(crate) doubled: u64,
    /// Milliseconds until the system was fully redundant again; `null` when it was not in time.
    pub(crate) redundancy_ms: Option<f64>,
    /// The longest time without an acknowledgement while the fault was taken back, in milliseconds.
    pub(crate) healing_ms: Option<f64>,
    /// Pairs of members that acknowledged in turn.
    pub(crate) two_primaries: u64,
    /// The primary's node before.
    pub(crate) primary_before: String,
    /// The primary's node afterwards.
    pub(crate) primary_after: String,
    /// What a drill of Mainstay would have said of it.
    pub(crate) failures: Vec<String>,
}

impl Seen {
    /// How long writes stood still. A system may serve for a moment between the death of its postmaster and its failover:
    /// where nothing has to be taken back, the longest gap up to full redundancy counts.
    pub(crate) fn outage(&self, fault: Fault) -> Option<f64> {
        let later = self.healing_ms.filter(|_| fault.is_momentary()).unwrap_or_default();
        self.outage_ms.map(|outage| outage.max(later))
    }
}

impl From<Run> for Seen {
    fn from(run: Run) -> Self {
        Self {
            outage_ms: run.outage_ms,
            errors: run.errors,
            acknowledged: run.acknowledged,
            lost: run.lost,
            doubled: run.doubled,
            redundancy_ms: run.redundancy_ms,
            healing_ms: run.healing_ms,
            two_primaries: run.two_primaries,
            primary_before: run.primary_before,
            primary_after: run.primary_after,
            failures: run.failures,
        }
    }
}

/// Everything about one system.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Column {
    /// Which system.
    #[serde(skip)]
    pub(crate) subject: Subject,
    /// From nothing to full redundancy, in seconds.
    pub(crate) set_up_s: Option<f64>,
    /// What a node costs at rest.
    pub(crate) cost: Option<Cost>,
    /// The runs of each fault, by its name.
    pub(crate) runs: BTreeMap<&'static str, Vec<Seen>>,
    /// What could not be measured, and why.
    pub(crate) missing: Vec<String>,
}

impl Column {
    /// Nothing yet.
    pub(crate) fn new(subject: Subject) -> Self {
        Self { subject, set_up_s: None, cost: None, runs: BTreeMap::new(), missing: vec![] }
    }

    /// Its runs of a fault.
    pub(crate) fn of(&self, fault: Fault) -> &[Seen] {
        self.runs.get(fault.name()).map(Vec::as_slice).unwrap_or_default()
    }

    /// The outages of a fault in milliseconds; `None` when it was not measured.
    pub(crate) fn outage(&self, fault: Fault) -> Option<Spread> {
        let outages: Vec<Option<f64>> = self.of(fault).iter().map(|seen| seen.outage(fault)).collect();
        (!outages.is_empty()).then(|| Spread::of(&outages))
    }

    /// The longest gap while a fault was taken back, in milliseconds.
    pub(crate) fn healing(&self) -> Option<f64> {
        let lasting = Fault::ALL.into_iter().filter(|fault| !fault.is_momentary());
        lasting.flat_map(|fault| self.of(fault)).filter_map(|seen| seen.healing_ms).reduce(f64::max)
    }

    /// A sum over all runs.
    pub(crate) fn sum(&self, of: impl Fn(&Seen) -> u64) -> u64 {
        self.runs.values().flatten().map(of).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_gap_counts_where_nothing_is_taken_back() {
        let run = Run { outage_ms: Some(1500.0), healing_ms: Some(3800.0), ..Run::default() };
        let seen = Seen::from(run);
        assert_eq!(seen.outage(Fault::Postmaster), Some(3800.0));
        assert_eq!(seen.outage(Fault::Cut), Some(1500.0));
        let never = Seen { outage_ms: None, ..seen };
        assert_eq!(never.outage(Fault::Postmaster), None);
    }
}
