//! A sweep of seeds, small enough for every test run; `cargo run --release -p simulation --example sweep` runs more.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const SEEDS: u64 = 60;

#[test]
fn no_seed_breaks_an_invariant() {
    let next = AtomicU64::new(0);
    let reports: Vec<simulation::Report> = std::thread::scope(|scope| {
        let worker = || {
            let mut reports = vec![];
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= SEEDS {
                    return reports;
                }
                reports.push(simulation::run(seed).unwrap_or_else(|violation| panic!("{violation}")));
            }
        };
        let workers: Vec<_> = (0..2).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    let simulated: Duration = reports.iter().map(|report| report.simulated).sum();
    let acknowledged: u64 = reports.iter().map(|report| report.acknowledged).sum();
    println!("{SEEDS} seeds: {} s simulated, {acknowledged} writes acknowledged", simulated.as_secs());
    // A model in which nothing happens would keep every invariant.
    assert!(acknowledged > SEEDS * 1000, "only {acknowledged} writes were acknowledged in all seeds");
    assert!(
        reports.iter().filter(|report| report.terms > 2).count() > 30,
        "too few failovers to prove anything"
    );
    let restarts = |of: fn(&simulation::Report) -> u64| reports.iter().map(of).sum::<u64>();
    let (standbys, primaries) = (restarts(|report| report.restarts.0), restarts(|report| report.restarts.1));
    println!("{standbys} standbys restarted for new settings, {primaries} primaries in place");
    assert!(standbys > SEEDS && primaries > SEEDS / 4, "too few restarts to prove anything");
}

#[test]
fn a_seed_replays_identically() {
    assert_eq!(simulation::run(7).unwrap(), simulation::run(7).unwrap());
}
