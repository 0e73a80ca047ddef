//! What a run says at its end.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::run::Placed;
use super::verify::Verified;

/// The report; its JSON form is what `shop load --json` prints.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Requests sent.
    attempts: u64,
    /// Orders acknowledged.
    ok: usize,
    /// Orders never acknowledged.
    failed: usize,
    /// Requests that failed; their orders were sent again.
    errors: u64,
    errors_by_reason: BTreeMap<String, u64>,
    longest_gap_ms: f64,
    latency_ms: Latency,
    seconds: f64,
    /// The comparison, if the shop answered.
    verified: Option<Verified>,
    /// Why there is none.
    not_verified_because: Option<String>,
}

/// From an order's turn to its acknowledgement, with all repetitions.
#[derive(Debug, Serialize)]
struct Latency {
    p50: f64,
    p99: f64,
    max: f64,
}

impl Report {
    pub(super) fn new(placed: &Placed, verified: Result<Verified, String>) -> Self {
        let (verified, not_verified_because) = match verified {
            Ok(verified) => (Some(verified), None),
            Err(reason) => (None, Some(reason)),
        };
        Self {
            attempts: placed.attempts,
            ok: placed.acknowledged.len(),
            failed: placed.unanswered.len(),
            errors: placed.errors.values().sum(),
            errors_by_reason: placed.errors.clone(),
            longest_gap_ms: milliseconds(placed.longest_gap),
            latency_ms: Latency::of(&placed.latencies),
            seconds: placed.took.as_secs_f64(),
            verified,
            not_verified_because,
        }
    }

    /// Every acknowledged order is booked exactly once and the books are in order.
    pub(super) fn consistent(&self) -> bool {
        self.verified
            .as_ref()
            .is_some_and(|found| found.lost.is_empty() && found.doubled.is_empty() && found.audit.in_order)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let latency = &self.latency_ms;
        writeln!(f, "orders acknowledged   {} in {:.1} s", self.ok, self.seconds)?;
        writeln!(f, "never acknowledged    {}", self.failed)?;
        writeln!(
            f,
            "requests              {}, {} of them failed and were repeated",
            self.attempts, self.errors
        )?;
        for (reason, number) in &self.errors_by_reason {
            writeln!(f, "                      {number} x {reason}")?;
        }
        writeln!(f, "longest gap           {:.0} ms between two acknowledgements", self.longest_gap_ms)?;
        writeln!(
            f,
            "latency               {:.1} ms median, {:.1} ms p99, {:.1} ms max",
            latency.p50, latency.p99, latency.max
        )?;
        match (&self.verified, &self.not_verified_because) {
            (Some(found), _) => write_verified(f, found),
            (None, reason) => {
                writeln!(f, "not verified          {}", reason.as_deref().unwrap_or("no reason known"))
            }
        }
    }
}

impl Latency {
    fn of(ascending: &[Duration]) -> Self {
        let at = |percent: usize| {
            let last = ascending.len().saturating_sub(1);
            ascending.get(last * percent / 100).copied().map_or(0.0, milliseconds)
        };
        Self { p50: at(50), p99: at(99), max: at(100) }
    }
}

fn write_verified(f: &mut fmt::Formatter<'_>, found: &Verified) -> fmt::Result {
    writeln!(f, "booked                {} ({} of them unanswered)", found.booked, found.booked_unanswered)?;
    writeln!(f, "acknowledged and lost {}", found.lost.len())?;
    writeln!(f, "booked twice          {}", found.doubled.len())?;
    let audit = &found.audit;
    let word = if audit.in_order { "in order" } else { "NOT in order" };
    writeln!(
        f,
        "the books             {word}: {} orders, ledger sum {}, {} unbalanced, {} duplicates",
        audit.orders, audit.ledger_sum_cents, audit.unbalanced, audit.duplicates
    )
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
