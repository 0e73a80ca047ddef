//! Seeds that every test run goes through, in two halves so that they run side by side;
//! `cargo run --release -p simulation --example sweep -- FIRST COUNT` runs more.

#[path = "../../examples/mutants/catalogue.rs"]
mod catalogue;
mod scripts;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use model::script::{Fault, Script, Shape, Step, Target};
use simulation::{Total, World};

/// Both halves together: 2,000 seeds.
const HALF: u64 = 1000;

fn goes_through(seeds: Range<u64>) -> Total {
    let total = simulation::sweep(seeds, 1, |_| ()).unwrap_or_else(|violation| panic!("{violation}"));
    let (seeds, hours) = (total.seeds, total.simulated.as_secs_f64() / 3600.0);
    println!("{seeds} seeds, {hours:.1} h simulated, {} writes, {} terms", total.acknowledged, total.terms);
    // A model in which nothing happens would keep every invariant.
    assert!(total.acknowledged > seeds * 1000, "only {} writes were acknowledged", total.acknowledged);
    assert!(total.failed_over > seeds / 2, "too few failovers to prove anything: {}", total.failed_over);
    let (standbys, primaries) = total.restarts;
    assert!(standbys > seeds && primaries > seeds / 4, "too few restarts: {standbys} and {primaries}");
    assert!(total.single > seeds / 10, "too few seeds with one fault at a time: {}", total.single);
    assert!(total.faults.len() == 13, "not every kind of fault happened: {:?}", total.faults);
    total
}

#[test]
fn no_seed_of_the_first_half_breaks_an_invariant() {
    goes_through(0..HALF);
}

#[test]
fn no_seed_of_the_second_half_breaks_an_invariant() {
    goes_through(HALF..2 * HALF);
}

/// What these broke was mended; they lie beyond the seeds above.
#[test]
fn seeds_that_once_broke_an_invariant_do_so_no_more() {
    for (seed, broke) in [
        (2548, "a member followed a timeline that had the number of its own, and was another one"),
        (52226, "the same, after a restart"),
        (13011, "a standby before the fork was taken for one beyond it (of the model)"),
        (15585, "who had not promised yet kept the former primary's gate open (of the invariant)"),
        (5843, "a member copied itself beside a server that still ran (of the model)"),
        (17028, "a restarted node still had the connections of before (of the model)"),
        (25585, "what was said over a connection that outlived a cut was lost (of the model)"),
        (26709, "the same, and nobody confirmed commits"),
    ] {
        let result = simulation::run(seed);
        assert!(result.is_ok(), "{broke}: {}", result.err().map(|v| v.to_string()).unwrap_or_default());
    }
}

#[test]
fn a_seed_replays_identically() {
    let digests = |seeds: Range<u64>| {
        seeds.map(|seed| simulation::run(seed).map(|report| report.digest)).collect::<Result<Vec<_>, _>>()
    };
    let (once, again) = (digests(0..6).unwrap(), digests(0..6).unwrap());
    assert_eq!(once, again);
    let distinct: std::collections::BTreeSet<_> = once.iter().collect();
    assert_eq!(distinct.len(), once.len(), "a digest that does not tell seeds apart proves nothing");
}

/// A script that cannot keep what is promised for one fault at a time: two of three nodes lose power for long.
#[test]
fn a_failing_script_replays_identically_and_shrinks_to_what_matters() {
    let hopeless = Script { single: true, ..all_lose_power() };
    let fails = || World::new(&hopeless).run().unwrap_err();
    let first = fails();
    assert_eq!(first.invariant, "outages are short");
    assert!((0..10).all(|_| fails().digest == first.digest), "it fails in another way every time");
    let (shortest, violation) = simulation::shrink(&hopeless, first);
    assert_eq!(violation.invariant, "outages are short");
    assert!(shortest.steps.len() == 2, "two of three without power stop every write: {shortest}");
    assert!(shortest.steps.iter().all(|step| matches!(step.fault, Fault::Power(_))), "{shortest}");
}

/// Three nodes without power for long, among faults that matter little.
fn all_lose_power() -> Script {
    let step = |at: u64, lasts, fault| Step {
        at: Duration::from_millis(at),
        lasts: Duration::from_secs(lasts),
        fault,
    };
    // Of three nodes, two without power are one too many.
    let shape = Some(Shape { nodes: 3, members: 3, confirm: 1 });
    let steps = vec![
        step(9000, 1, Fault::Slow),
        step(9500, 1, Fault::Postmaster(Target::Node(2))),
        step(12_000, 20, Fault::Power(Target::Node(0))),
        step(12_100, 1, Fault::Leaderless),
        step(12_200, 20, Fault::Power(Target::Node(1))),
        step(12_300, 20, Fault::Power(Target::Node(2))),
    ];
    Script { seed: 0, shape, single: false, steps }
}

#[test]
fn the_restart_of_a_lone_agent_changes_no_role() {
    for seed in 0..40 {
        let restart = |number: u64| Step {
            at: Duration::from_millis(8_000 + 4_000 * number + 37 * seed),
            lasts: Duration::from_millis(100 + 20 * seed),
            fault: Fault::Agent(if number.is_multiple_of(2) { Target::Primary } else { Target::Node(1) }),
        };
        let script = Script { seed, shape: None, single: true, steps: (0..7).map(restart).collect() };
        let report = World::new(&script).run().unwrap_or_else(|violation| panic!("{violation}"));
        assert_eq!(report.faults.values().sum::<u64>(), 7);
        assert_eq!(report.terms, 1, "another member leads: {script}");
    }
}

#[test]
fn every_mutant_still_finds_its_place() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |file: &str| std::fs::read_to_string(crates.join(file)).unwrap_or_default();
    let lost: BTreeMap<&str, usize> = catalogue::MUTANTS
        .iter()
        .map(|mutant| (mutant.name, read(mutant.file).matches(&mutant.place().0).count()))
        .filter(|(_, found)| *found != 1)
        .collect();
    assert!(lost.is_empty(), "the original of a mutant must stand in its file once, but does so: {lost:?}");
    assert!(catalogue::MUTANTS.len() >= 20);
}
