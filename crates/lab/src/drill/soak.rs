//! Drills one after another for a long time, in an order that a seed gives, and what came of all of them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::catalogue::Drill;
use super::mix::Mix;
use super::report::{Run, Spread, in_ms};
use crate::workload::Finding;

/// At most so many faults go on beside a drill.
const MOST_BESIDE: u64 = 2;

/// Which drills come next: the same seed gives the same order (`SplitMix64`; Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub struct Order {
    state: u64,
    drills: Vec<&'static Drill>,
    objective: Option<Duration>,
}

impl Order {
    /// An order of these drills, in none of which writes may stand still for longer than `objective`.
    pub const fn new(seed: u64, drills: Vec<&'static Drill>, objective: Option<Duration>) -> Self {
        Self { state: seed, drills, objective }
    }

    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn choose(&mut self, among: &[&'static Drill]) -> Option<&'static Drill> {
        let count = u64::try_from(among.len()).ok().filter(|count| *count > 0)?;
        let place = usize::try_from(self.random() % count).ok()?;
        among.get(place).copied()
    }
}

impl Iterator for Order {
    type Item = Mix;

    fn next(&mut self) -> Option<Mix> {
        let main = self.choose(&self.drills.clone())?;
        let mut beside = vec![];
        for _ in 0..self.random() % (MOST_BESIDE + 1) {
            let free = |drill: &&'static Drill| {
                let clashes = |other: &&'static Drill| drill == other || drill.clashes(other);
                drill.is_light() && !main.is_for_async() && !clashes(&main) && !beside.iter().any(clashes)
            };
            let light: Vec<&'static Drill> = self.drills.iter().copied().filter(free).collect();
            beside.extend(self.choose(&light));
        }
        Some(Mix { main, beside, objective: self.objective })
    }
}

/// What came of all runs so far. It can be kept and gone on with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// The seed of the order.
    pub seed: u64,
    /// For how long it has gone on, in seconds.
    pub seconds: f64,
    /// How many runs there were.
    pub runs: u64,
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
    /// Reads that a former primary answered as primary although they were asked after its lease.
    pub late_reads: u64,
    /// What clients did beside the one that measures the outage, by workload.
    #[serde(default)]
    pub workloads: BTreeMap<String, Work>,
    /// By drill.
    pub drills: BTreeMap<String, Row>,
    /// Why runs did not pass, with their number.
    pub failures: Vec<String>,
}

/// What came of one workload in all runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Operations that were acknowledged.
    pub ok: u64,
    /// Operations that certainly failed.
    pub failed: u64,
    /// Operations whose outcome the client cannot know.
    pub unknown: u64,
    /// Runs whose history breaks what is claimed.
    pub violated: u64,
    /// Runs in which something could not be looked at.
    pub undecided: u64,
}

/// What came of the runs of one drill.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// How many there were.
    pub runs: u64,
    /// How many did not pass.
    pub failed: u64,
    /// How often it went on beside another.
    pub beside: u64,
    /// Write outages in milliseconds.
    pub outages_ms: Vec<Option<f64>>,
    /// Times to full redundancy in milliseconds.
    pub redundancies_ms: Vec<Option<f64>>,
}

impl Tally {
    /// Nothing yet.
    pub fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// Adds a run, and for how long all of them together have gone on.
    pub fn add(&mut self, mix: &Mix, run: &Run, spent: Duration) {
        self.seconds = spent.as_secs_f64();
        self.runs += 1;
        self.faults += mix.faults();
        self.acknowledged += run.acknowledged;
        self.lost += run.lost;
        self.doubled += run.doubled;
        self.two_primaries += run.two_primaries;
        self.late_reads += run.late_reads;
        let number = self.runs;
        self.failures.extend(run.failures.iter().map(|failure| format!("run {number}, {mix}: {failure}")));
        for judged in &run.workloads {
            let work = self.workloads.entry(judged.workload.to_owned()).or_default();
            work.ok += judged.counts.ok;
            work.failed += judged.counts.failed;
            work.unknown += judged.counts.unknown;
            work.violated += u64::from(judged.verdict == Finding::Violated);
            work.undecided += u64::from(judged.verdict == Finding::Undecided);
        }
        for drill in &mix.beside {
            self.row(drill).beside += 1;
        }
        let row = self.row(mix.main);
        row.runs += 1;
        row.failed += u64::from(!run.passed);
        row.outages_ms.push(run.outage_ms);
        row.redundancies_ms.push(run.redundancy_ms);
    }

    fn row(&mut self, drill: &'static Drill) -> &mut Row {
        self.drills.entry(drill.name().to_owned()).or_default()
    }

    /// Whether every run passed.
    pub fn passed(&self) -> bool {
        self.drills.values().all(|row| row.failed == 0)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<25} {:>5} {:>7} {:>7} {:>36} {:>12}",
            "drill", "runs", "failed", "beside", "outage", "redundant"
        )?;
        for (drill, row) in &self.drills {
            let Spread { min, median, max } = Spread::of(&row.outages_ms);
            let outage = match row.runs {
                0 => String::new(),
                _ => format!("{} ({} - {})", in_ms(median), in_ms(min), in_ms(max)),
            };
            let redundant =
                if row.runs == 0 { String::new() } else { in_ms(Spread::of(&row.redundancies_ms).max) };
            let Row { runs, failed, beside, .. } = row;
            writeln!(f, "{drill:<25} {runs:>5} {failed:>7} {beside:>7} {outage:>36} {redundant:>12}")?;
        }
        let Self {
            seed, seconds, runs, faults, acknowledged, lost, doubled, two_primaries, late_reads, ..
        } = self;
        writeln!(
            f,
            "{faults} faults in {runs} runs and {minutes:.1} minutes, {acknowledged} acknowledged writes: {lost} lost, {doubled} doubled, \
             {two_primaries} times two primaries, {late_reads} stale reads (seed {seed})",
            minutes = seconds / 60.0,
        )?;
        for (workload, work) in &self.workloads {
            let Work { ok, failed, unknown, violated, undecided } = work;
            writeln!(
                f,
                "{workload}: {ok} operations acknowledged, {failed} failed, {unknown} unknown; {violated} runs violated, {undecided} undecided"
            )?;
        }
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
        let order = |seed| Order::new(seed, drills.clone(), None).take(50).collect::<Vec<_>>();
        assert_eq!(order(7), order(7));
        assert_ne!(order(7), order(8));
        assert!(drills.iter().all(|drill| order(7).iter().any(|mix| mix.main == *drill)));
        assert_eq!(Order::new(7, vec![], None).next(), None);
    }

    #[test]
    fn only_what_costs_no_member_goes_on_beside_another_and_never_twice() {
        let order = Order::new(3, Drill::all().filter(|drill| !drill.is_for_async()).collect(), None);
        let mixes: Vec<Mix> = order.take(500).collect();
        assert!(mixes.iter().flat_map(|mix| &mix.beside).all(|drill| drill.is_light()));
        assert!(mixes.iter().all(|mix| !mix.beside.contains(&mix.main)));
        assert!(mixes.iter().any(|mix| mix.faults() == 3) && mixes.iter().any(|mix| mix.faults() == 1));
        assert!(mixes.iter().all(|mix| mix.beside.len() < 2 || mix.beside[0] != mix.beside[1]));
    }

    #[test]
    fn faults_that_one_step_would_take_back_never_go_on_at_once() {
        let slow = drill("standby-slow");
        assert!(slow.clashes(drill("network-scrambled")) && !slow.clashes(drill("standby-slim")));
        let mixes = Order::new(77, Drill::all().collect(), None).take(500);
        for mix in mixes {
            let all: Vec<&Drill> = mix.beside.iter().copied().chain([mix.main]).collect();
            for (at, one) in all.iter().enumerate() {
                assert!(!all[at + 1..].iter().any(|other| one.clashes(other)), "{mix}");
            }
        }
    }

    #[test]
    fn together_faults_are_never_more_than_the_loss_of_one_node() {
        let agent = drill("agent-kill");
        // No agent would be left, or one of three.
        assert!(
            agent.clashes(drill("coordination-quorum-loss")) && agent.clashes(drill("standby-agent-hang"))
        );
        // An agent that is not there, and a member that nobody hears any more: as if the node were dead.
        assert!(agent.clashes(drill("replication-end")) && drill("replication-end").clashes(agent));
        assert!(!agent.clashes(drill("agent-hang")) && !agent.clashes(drill("disk-hang-primary")));
        assert!(!drill("standby-agent-hang").clashes(drill("replication-end")));
        // On every line a third of all exchanges fails.
        assert!(
            drill("network-lossy").clashes(drill("standby-slow")) && agent.clashes(drill("network-lossy"))
        );
        assert!(!drill("primary-lossy").clashes(drill("standby-slow")));
    }

    #[test]
    fn a_tally_counts_what_happened_and_keeps_why_a_run_failed() {
        let mut tally = Tally::new(7);
        let good = Run { outage_ms: Some(400.0), acknowledged: 100, passed: true, ..Run::default() };
        let mix = Mix { beside: vec![drill("agent-kill")], ..Mix::from(drill("node-kill")) };
        tally.add(&mix, &good, Duration::from_secs(60));
        tally.add(
            &drill("switchover").into(),
            &Run { outage_ms: Some(200.0), ..good.clone() },
            Duration::from_secs(70),
        );
        assert!(tally.passed());
        let bad = Run { lost: 2, passed: false, failures: vec!["2 are lost".to_owned()], ..good };
        tally.add(&mix, &bad, Duration::from_secs(90));
        assert!(!tally.passed());
        assert_eq!((tally.runs, tally.faults, tally.acknowledged, tally.lost), (3, 5, 300, 2));
        assert_eq!((tally.drills["node-kill"].runs, tally.drills["agent-kill"].beside), (2, 2));
        let told = tally.to_string();
        assert!(
            told.contains("run 3, node-kill + agent-kill: 2 are lost") && told.contains("(seed 7)"),
            "{told}"
        );
        assert!(told.contains("5 faults in 3 runs and 1.5 minutes"), "{told}");
    }

    #[test]
    fn a_tally_that_was_kept_can_be_gone_on_with() {
        let mut tally = Tally::new(7);
        let run = Run { outage_ms: Some(400.5), passed: true, ..Run::default() };
        tally.add(&drill("node-kill").into(), &run, Duration::from_secs(6));
        let text = serde_json::to_string(&tally).unwrap();
        assert_eq!(serde_json::from_str::<Tally>(&text).unwrap(), tally);
    }
}
