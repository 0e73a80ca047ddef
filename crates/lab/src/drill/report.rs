//! What a drill says at its end, for programs and for people.

use std::fmt::{self, Write as _};
use std::time::Duration;

use serde::Serialize;

use super::catalogue::Drill;
use super::timeline::Timeline;
use crate::workload::{Finding, Judged, Kind};

/// The result of one drill, run one or several times. Serialises with these keys in this order; keys may be added
/// after them, none is renamed or moved.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The drill's name.
    pub drill: &'static str,
    /// Every run.
    pub runs: Vec<Run>,
    /// Write outages of all runs in milliseconds.
    pub outage_ms: Spread,
    /// What was expected, in one sentence.
    pub expected: &'static str,
    /// The objective for the median outage, in milliseconds; `null` where writes have to wait.
    pub objective_ms: Option<f64>,
    /// Whether every run passed and the median obeys the objective.
    pub passed: bool,
}

/// One run of a drill.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Run {
    /// Last acknowledgement before to first after the fault, in milliseconds; `null` when writes never came back.
    pub outage_ms: Option<f64>,
    /// Failed and unknown writes of the client.
    pub errors: u64,
    /// Acknowledged writes of the client.
    pub acknowledged: u64,
    /// Acknowledged writes that are not there afterwards.
    pub lost: u64,
    /// Writes that are there more than once.
    pub doubled: u64,
    /// Milliseconds until the system was fully redundant again: from the node's return, or from the fault where nothing
    /// has to return; `null` when it never was.
    pub redundancy_ms: Option<f64>,
    /// Writes that certainly failed.
    pub failed: u64,
    /// Writes whose outcome the client cannot know.
    pub unknown: u64,
    /// The longest time without an acknowledgement while the fault was taken back, in milliseconds.
    pub healing_ms: Option<f64>,
    /// Writes that the prober made directly at a member and that were acknowledged.
    pub direct: u64,
    /// Pairs of members that acknowledged in turn.
    pub two_primaries: u64,
    /// Reads that a former primary answered as primary after its lease.
    pub late_reads: u64,
    /// Where writes have to wait: from the moment at which a node that returned could be reached (its agent or its
    /// PostgreSQL; where all must return: from the start of the last) to the first acknowledgement, in milliseconds.
    pub flowing_ms: Option<f64>,
    /// The same from the moment at which the first node was switched on.
    pub flowing_from_start_ms: Option<f64>,
    /// When the victim was out of the sync set, in milliseconds after the fault, where that is expected.
    pub left_set_ms: Option<f64>,
    /// Connections that the client made after the fault.
    pub reconnects: u64,
    /// The primary's node before.
    pub primary_before: String,
    /// The primary's node afterwards.
    pub primary_after: String,
    /// What was done, with the evidence that it happened, in the order of time.
    pub evidence: Vec<String>,
    /// Why the run did not pass; empty when it did.
    pub failures: Vec<String>,
    /// Whether it passed.
    pub passed: bool,
    /// What each workload's checker found.
    pub workloads: Vec<Judged>,
    /// The run in the order of time; not part of the JSON.
    #[serde(skip)]
    pub timeline: Timeline,
}

/// Lowest, middle and highest of several measurements; `null` where a run has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// The lowest.
    pub min: Option<f64>,
    /// The middle one, or the mean of the middle two.
    pub median: Option<f64>,
    /// The highest.
    pub max: Option<f64>,
}

impl Report {
    /// Sums up the runs of a drill.
    pub fn new(drill: &'static Drill, runs: Vec<Run>) -> Self {
        let expectation = drill.expectation();
        let outages: Vec<Option<f64>> = runs.iter().map(|run| run.outage_ms).collect();
        let outage_ms = Spread::of(&outages);
        let objective_ms = expectation.outage.map(millis);
        let passed = is_in_time(outage_ms, objective_ms) && runs.iter().all(|run| run.passed);
        Self { drill: drill.name(), runs, outage_ms, expected: expectation.words, objective_ms, passed }
    }
}

impl Report {
    /// The run with the longest outage; one whose writes never came back is the longest.
    pub fn worst(&self) -> Option<&Run> {
        self.runs.iter().max_by(|a, b| length(a).total_cmp(&length(b)))
    }

    /// The same, to be changed.
    pub fn worst_mut(&mut self) -> Option<&mut Run> {
        self.runs.iter_mut().max_by(|a, b| length(a).total_cmp(&length(b)))
    }
}

fn length(run: &Run) -> f64 {
    run.outage_ms.unwrap_or(f64::INFINITY)
}

/// Whether the median obeys the objective, if there is one.
fn is_in_time(outage_ms: Spread, objective_ms: Option<f64>) -> bool {
    objective_ms.is_none_or(|objective| outage_ms.median.is_some_and(|median| median <= objective))
}

impl Spread {
    /// The spread of measurements; one that is missing counts as longer than any other.
    pub fn of(values: &[Option<f64>]) -> Self {
        let mut sorted: Vec<f64> = values.iter().map(|value| value.unwrap_or(f64::INFINITY)).collect();
        sorted.sort_by(f64::total_cmp);
        let finite = |value: f64| value.is_finite().then_some(round(value));
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::INFINITY);
        let (low, high) = (sorted.len().saturating_sub(1) / 2, sorted.len() / 2);
        Self {
            min: finite(at(0)),
            median: finite(f64::midpoint(at(low), at(high))),
            max: finite(at(sorted.len().saturating_sub(1))),
        }
    }
}

/// A duration in milliseconds, to a tenth.
pub(super) fn millis(duration: Duration) -> f64 {
    round(duration.as_secs_f64() * 1000.0)
}

pub(super) fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "drill {}: {}", self.drill, verdict(self.passed))?;
        match self.objective_ms {
            Some(objective) => writeln!(
                f,
                "expected: {}; writes stand still for at most {objective} ms (median)",
                self.expected
            )?,
            None => writeln!(f, "expected: {}", self.expected)?,
        }
        writeln!(f)?;
        writeln!(f, "  run     outage  errors  acknowledged  lost  doubled  redundant after  verdict")?;
        for (number, run) in self.runs.iter().enumerate() {
            writeln!(
                f,
                "{:>5} {:>10}  {:>6}  {:>12}  {:>4}  {:>7}  {:>15}  {}",
                number + 1,
                in_ms(run.outage_ms),
                run.errors,
                run.acknowledged,
                run.lost,
                run.doubled,
                in_ms(run.redundancy_ms),
                verdict(run.passed)
            )?;
        }
        let Spread { min, median, max } = self.outage_ms;
        writeln!(f)?;
        writeln!(f, "write outage: min {}, median {}, max {}", in_ms(min), in_ms(median), in_ms(max))?;
        self.spread_of(f, "out of the sync set after", |run| run.left_set_ms)?;
        self.spread_of(f, "writes after the return of a node", |run| run.flowing_ms)?;
        self.spread_of(f, "writes after its start", |run| run.flowing_from_start_ms)?;
        f.write_str(&self.workloads())?;
        f.write_str(&self.reasons())
    }
}

impl Report {
    /// A line for something that not every drill measures.
    fn spread_of(
        &self,
        f: &mut fmt::Formatter<'_>,
        what: &str,
        measured: impl Fn(&Run) -> Option<f64>,
    ) -> fmt::Result {
        let values: Vec<Option<f64>> = self.runs.iter().map(measured).collect();
        if values.iter().all(Option::is_none) {
            return Ok(());
        }
        let Spread { min, median, max } = Spread::of(&values);
        writeln!(f, "{what}: min {}, median {}, max {}", in_ms(min), in_ms(median), in_ms(max))
    }

    /// What came of the workloads, where there are others than the one that measures the outage.
    fn workloads(&self) -> String {
        let runs = || self.runs.iter().zip(1..);
        let all =
            || runs().flat_map(|(run, number)| run.workloads.iter().map(move |judged| (number, judged)));
        if all().all(|(_, judged)| judged.workload == Kind::Set.name()) {
            return String::new();
        }
        let mut text = "\n  run  workload        ok  failed  unknown  verdict\n".to_owned();
        for (number, judged) in all() {
            let Judged { workload, counts, verdict, old_reads, .. } = judged;
            let old = match old_reads {
                0 => String::new(),
                old => format!(" ({old} reads of a former primary within its lease)"),
            };
            let _ = writeln!(
                text,
                "{number:>5}  {workload:<9} {:>8} {:>7} {:>8}  {}{old}",
                counts.ok,
                counts.failed,
                counts.unknown,
                verdict.name()
            );
        }
        for (number, judged) in all().filter(|(_, judged)| judged.verdict == Finding::Undecided) {
            let _ = writeln!(
                text,
                "run {number}: {} is undecided: {}",
                judged.workload,
                judged.because.join("; ")
            );
        }
        text
    }

    /// Why it did not pass, run by run.
    fn reasons(&self) -> String {
        let mut text = String::new();
        for (number, run) in self.runs.iter().enumerate() {
            for failure in &run.failures {
                let _ = writeln!(text, "run {}: {failure}", number + 1);
            }
        }
        if let Some(objective) = self.objective_ms
            && !is_in_time(self.outage_ms, self.objective_ms)
        {
            let _ = writeln!(text, "the median outage is above the objective of {objective} ms");
        }
        text
    }
}

fn verdict(passed: bool) -> &'static str {
    if passed { "passed" } else { "FAILED" }
}

pub(super) fn in_ms(value: Option<f64>) -> String {
    value.map_or_else(|| "never".to_owned(), |value| format!("{value:.1} ms"))
}

#[cfg(test)]
mod tests {
    use super::super::catalogue::drill;
    use super::*;

    #[test]
    fn the_median_of_an_even_count_is_the_mean_of_the_middle_two() {
        let spread = Spread::of(&[Some(40.0), Some(10.0), Some(20.0), Some(31.0)]);
        assert_eq!(spread, Spread { min: Some(10.0), median: Some(25.5), max: Some(40.0) });
        assert_eq!(Spread::of(&[Some(3.0), Some(1.0), Some(2.0)]).median, Some(2.0));
        assert_eq!(Spread::of(&[]), Spread::default());
    }

    #[test]
    fn a_run_that_never_came_back_is_the_worst() {
        let spread = Spread::of(&[Some(1.0), None, Some(2.0)]);
        assert_eq!(spread, Spread { min: Some(1.0), median: Some(2.0), max: None });
        assert_eq!(Spread::of(&[Some(1.0), None]).median, None);
    }

    #[test]
    fn the_json_begins_with_the_promised_keys_in_order() {
        let run = Run { outage_ms: Some(97.25), acknowledged: 400, passed: true, ..Run::default() };
        let text = serde_json::to_string(&Report::new(drill("switchover"), vec![run])).unwrap();
        let begins = r#"{"drill":"switchover","runs":[{"outage_ms":97.25,"errors":0,"acknowledged":400,"lost":0,"doubled":0,"redundancy_ms":null,"#;
        assert!(text.starts_with(begins), "{text}");
        assert!(text.contains(r#"],"outage_ms":{"min":97.3,"median":97.3,"max":97.3},"expected""#), "{text}");
    }

    #[test]
    fn people_read_why_a_drill_failed() {
        let run =
            Run { outage_ms: None, failures: vec!["writes never came back".to_owned()], ..Run::default() };
        let text = Report::new(drill("node-kill"), vec![run]).to_string();
        assert!(text.contains("drill node-kill: FAILED"), "{text}");
        assert!(text.contains("run 1: writes never came back"), "{text}");
        assert!(text.contains("max never"), "{text}");
    }

    #[test]
    fn people_read_what_each_workload_proved() {
        let text = "{\"bank\":{\"accounts\":{\"1\":5}}}\n{\"client\":1,\"from\":1,\"is\":\"unknown\",\
                    \"do\":{\"read\":null}}\n";
        let judged = Judged::of(&checker::file::History::parse(text).unwrap(), 2);
        let run = Run { workloads: vec![judged], passed: true, ..Run::default() };
        let report = Report::new(drill("node-kill"), vec![run]);
        let told = report.to_string();
        assert!(told.contains("    1  bank             0       0        1  undecided (2 reads of"), "{told}");
        assert!(told.contains("run 1: bank is undecided: nobody read the balances"), "{told}");
        let json = serde_json::to_string(&report).unwrap();
        let row = r#""workloads":[{"workload":"bank","ok":0,"failed":0,"unknown":1,"verdict":"undecided","#;
        assert!(json.contains(row), "{json}");
    }
}
