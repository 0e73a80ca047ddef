//! How often an address may fail to join.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Failures allowed to one address within [`WINDOW`].
const ALLOWED: u32 = 5;
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses remembered; beyond that the one that failed longest ago is forgotten.
const REMEMBERED: usize = 1024;

/// The failed attempts of the last minute.
#[derive(Debug, Default)]
pub(crate) struct FailedAttempts {
    by_address: HashMap<IpAddr, Failures>,
}

#[derive(Debug)]
struct Failures {
    since: Instant,
    number: u32,
}

impl FailedAttempts {
    /// How long `address` must wait before it is listened to again; zero when it need not.
    pub(crate) fn penalty(&self, address: IpAddr, now: Instant) -> Duration {
        match self.by_address.get(&address) {
            Some(failures) if failures.number >= ALLOWED => {
                (failures.since + WINDOW).saturating_duration_since(now)
            }
            Some(_) | None => Duration::ZERO,
        }
    }

    /// Notes a failed attempt.
    pub(crate) fn record(&mut self, address: IpAddr, now: Instant) {
        self.by_address.retain(|_, failures| now < failures.since + WINDOW);
        let oldest =
            self.by_address.iter().min_by_key(|(_, failures)| failures.since).map(|(address, _)| *address);
        if self.by_address.len() >= REMEMBERED && !self.by_address.contains_key(&address) {
            oldest.map(|oldest| self.by_address.remove(&oldest));
        }
        self.by_address.entry(address).or_insert(Failures { since: now, number: 0 }).number += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn the_sixth_failure_in_a_minute_waits_and_only_for_its_address() {
        let now = Instant::now();
        let (bad, good) = (Ipv4Addr::new(10, 0, 0, 1).into(), Ipv4Addr::new(10, 0, 0, 2).into());
        let mut attempts = FailedAttempts::default();
        for _ in 0..ALLOWED {
            assert_eq!(attempts.penalty(bad, now), Duration::ZERO);
            attempts.record(bad, now);
        }
        assert_eq!(attempts.penalty(bad, now), WINDOW);
        assert_eq!(attempts.penalty(good, now), Duration::ZERO);
        assert_eq!(attempts.penalty(bad, now + WINDOW), Duration::ZERO);
    }

    #[test]
    fn many_addresses_do_not_fill_the_memory() {
        let now = Instant::now();
        let mut attempts = FailedAttempts::default();
        for number in 0..3000_u32 {
            attempts.record(Ipv4Addr::from_bits(number).into(), now + Duration::from_millis(number.into()));
        }
        assert_eq!(attempts.by_address.len(), REMEMBERED);
    }
}
