//! Drills one after another for a long time, in an order that a seed gives, and what came of all of them.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::catalogue::Drill;
use super::report::{Run, Spread, in_ms};

/// Which drill comes next: the same seed gives the same order (`SplitMix64`; Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub struct Order {
    state: u64,
    drills: Vec<&'static Drill>,
}

impl Order {
    /// An order of these drills.
    pub const fn new(seed: u64, drills: Vec<&'static Drill>) -> Self {
        Self { state: seed, drills }
    }

    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl Iterator for Order {
    type Item = &'static Drill;

    fn next(&mut self) -> Option<&'static Drill> {
        let count = u64::try_from(self.drills.len()).ok().filter(|count| *count > 0)?;
        let place = usize::try_from(self.random() % count).ok()?;
        self.drills.get(place).copied()
    }
}

/// What came of all runs so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Tally {
    /// The seed of the order.
    pub seed: u64,
    /// How many faults there were.
    pub faults: u64,
    /// Acknowledged writes.
    pub acknowledged: u64,
    /// Acknowledged writes that were not there afterwards.
    pub lost: u64,
    /// Writes that were there more than once.
    pub doubled: u64,
    /// Pairs of members that acknowledged in turn.
    pub two_primaries: u64,
    /// Reads that a former primary answered as primary after its lease.
    pub late_reads: u64,
    /// By drill.
    pub drills: BTreeMap<&'static str, Row>,
    /// Why runs did not pass, with their number.
    pub failures: Vec<String>,
}

/// What came of the runs of one drill.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Row {
    /// How many there were.
    pub runs: u64,
    /// How many did not pass.
    pub failed: u64,
    /// Write outages in milliseconds.
    pub outage_ms: Spread,
    /// Times to full redundancy in milliseconds.
    pub redundancy_ms: Spread,
    #[serde(skip)]
    outages: Vec<Option<f64>>,
    #[serde(skip)]
    redundancies: Vec<Option<f64>>,
}

impl Tally {
    /// Nothing yet.
    pub fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// Adds a run.
    pub fn add(&mut self, drill: &'static Drill, run: &Run) {
        self.faults += 1;
        self.acknowledged += run.acknowledged;
        self.lost += run.lost;
        self.doubled += run.doubled;
        self.two_primaries += run.two_primaries;
        self.late_reads += run.late_reads;
        let number = self.faults;
        self.failures.extend(run.failures.iter().map(|failure| format!("run {number}, {drill}: {failure}")));
        let row = self.drills.entry(drill.name()).or_default();
        row.runs += 1;
        row.failed += u64::from(!run.passed);
        row.outages.push(run.outage_ms);
        row.redundancies.push(run.redundancy_ms);
        row.outage_ms = Spread::of(&row.outages);
        row.redundancy_ms = Spread::of(&row.redundancies);
    }

    /// Whether every run passed.
    pub fn passed(&self) -> bool {
        self.drills.values().all(|row| row.failed == 0)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<25} {:>5} {:>7} {:>24} {:>12}", "drill", "runs", "failed", "outage", "redundant")?;
        for (drill, row) in &self.drills {
            let Spread { min, median, max } = row.outage_ms;
            let outage = format!("{} ({} - {})", in_ms(median), in_ms(min), in_ms(max));
            let redundant = in_ms(row.redundancy_ms.max);
            writeln!(f, "{drill:<25} {:>5} {:>7} {outage:>36} {redundant:>12}", row.runs, row.failed)?;
        }
        writeln!(
            f,
            "{} faults, {} acknowledged writes: {} lost, {} doubled, {} times two primaries, {} stale reads (seed {})",
            self.faults,
            self.acknowledged,
            self.lost,
            self.doubled,
            self.two_primaries,
            self.late_reads,
            self.seed
        )?;
        self.failures.iter().try_for_each(|failure| writeln!(f, "{failure}"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::catalogue::drill;
    use super::*;

    #[test]
    fn a_seed_gives_the_same_order_again_and_every_drill_has_its_turn() {
        let drills = vec![drill("node-kill"), drill("switchover"), drill("agent-kill")];
        let order = |seed| Order::new(seed, drills.clone()).take(50).collect::<Vec<_>>();
        assert_eq!(order(7), order(7));
        assert_ne!(order(7), order(8));
        assert!(drills.iter().all(|drill| order(7).contains(drill)));
        assert_eq!(Order::new(7, vec![]).next(), None);
    }

    #[test]
    fn a_tally_counts_what_happened_and_keeps_why_a_run_failed() {
        let mut tally = Tally::new(7);
        let good = Run { outage_ms: Some(400.0), acknowledged: 100, passed: true, ..Run::default() };
        tally.add(drill("node-kill"), &good);
        tally.add(drill("switchover"), &Run { outage_ms: Some(200.0), ..good.clone() });
        assert!(tally.passed());
        let bad = Run { lost: 2, passed: false, failures: vec!["2 are lost".to_owned()], ..good };
        tally.add(drill("node-kill"), &bad);
        assert!(!tally.passed());
        assert_eq!((tally.faults, tally.acknowledged, tally.lost), (3, 300, 2));
        assert_eq!(tally.drills["node-kill"].runs, 2);
        let told = tally.to_string();
        assert!(told.contains("run 3, node-kill: 2 are lost") && told.contains("(seed 7)"), "{told}");
    }
}
