//! Many seeds on several threads.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use crate::world::{Report, Violation};

/// What many runs did together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// Seeds that kept all invariants.
    pub seeds: u64,
    /// Seeds that faults hit one at a time.
    pub single: u64,
    /// Time simulated.
    pub simulated: Duration,
    /// Writes acknowledged.
    pub acknowledged: u64,
    /// Terms begun.
    pub terms: u64,
    /// Runs with more than two terms.
    pub failed_over: u64,
    /// Faults, by their kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Standbys restarted for new settings, and primaries restarted in place.
    pub restarts: (u64, u64),
    /// The longest time without an acknowledgement where faults came one at a time.
    pub longest_outage: Duration,
}

impl Total {
    fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.single += u64::from(report.outage.is_some());
        self.simulated += report.simulated;
        self.acknowledged += report.acknowledged;
        self.terms += report.terms;
        self.failed_over += u64::from(report.terms > 2);
        for (kind, count) in &report.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        self.restarts.0 += report.restarts.0;
        self.restarts.1 += report.restarts.1;
        self.longest_outage = self.longest_outage.max(report.outage.unwrap_or_default());
    }
}

/// Runs all seeds on so many threads until one breaks an invariant. `progress` is called after every seed, on this thread.
///
/// # Errors
/// The violation of the lowest seed among those that were under way.
pub fn sweep(
    seeds: Range<u64>,
    threads: usize,
    mut progress: impl FnMut(&Total),
) -> Result<Total, Box<Violation>> {
    let (next, (tell, told)) = (AtomicU64::new(seeds.start), mpsc::channel());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (tell, next) = (tell.clone(), &next);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || tell.send(crate::run(seed)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(tell);
        let (mut total, mut worst): (Total, Option<Box<Violation>>) = (Total::default(), None);
        for result in told {
            match result {
                Ok(report) => total.add(&report),
                Err(violation) => {
                    next.store(seeds.end, Ordering::Relaxed);
                    if worst.as_ref().is_none_or(|worst| violation.seed < worst.seed) {
                        worst = Some(Box::new(violation));
                    }
                }
            }
            progress(&total);
        }
        worst.map_or(Ok(total), Err)
    })
}
