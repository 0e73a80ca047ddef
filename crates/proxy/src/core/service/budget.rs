//! How many requests may be repeated: a share of the traffic, so that repeats never double the load on a system that
//! is failing as a whole.

use model::time::Moment;

/// Seconds over which traffic is summed.
const WINDOW: usize = 10;
/// Repeats allowed for each hundred requests.
const SHARE_PERCENT: u64 = 20;
/// Repeats allowed in each second where the share is less, so that a quiet service has some too.
const RESERVE_PER_SECOND: u64 = 10;

/// Requests and repeats of the last ten seconds.
#[derive(Clone, Debug, Default)]
pub struct Budget {
    /// One entry for each second, in a ring.
    seconds: [Second; WINDOW],
}

#[derive(Clone, Copy, Debug, Default)]
struct Second {
    number: u64,
    requests: u64,
    repeats: u64,
}

impl Budget {
    /// Counts a request.
    pub fn request(&mut self, now: Moment) {
        self.second(now).requests += 1;
    }

    /// Takes the right to repeat one request, if the traffic of the last ten seconds allows it.
    pub fn take(&mut self, now: Moment) -> bool {
        let number = number(now);
        let recent = self.seconds.iter().filter(|second| number - second.number.min(number) < WINDOW as u64);
        let (requests, repeats) = recent.fold((0, 0), |(requests, repeats), second| {
            (requests + second.requests, repeats + second.repeats)
        });
        let allowed = (requests * SHARE_PERCENT / 100).max(RESERVE_PER_SECOND * WINDOW as u64);
        let granted = repeats < allowed;
        self.second(now).repeats += u64::from(granted);
        granted
    }

    /// Counts a repeat that needed no right.
    pub fn note(&mut self, now: Moment) {
        self.second(now).repeats += 1;
    }

    fn second(&mut self, now: Moment) -> &mut Second {
        let number = number(now);
        let second = &mut self.seconds[usize::try_from(number % WINDOW as u64).unwrap_or(0)];
        if second.number != number {
            *second = Second { number, ..Second::default() };
        }
        second
    }
}

/// The number of the second; the first is not 0, which stands for an unused entry.
fn number(now: Moment) -> u64 {
    now.as_micros() / 1_000_000 + WINDOW as u64 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_are_a_fifth_of_the_traffic_or_a_reserve() {
        let mut budget = Budget::default();
        let now = Moment::from_millis(500);
        (0..1000).for_each(|_| budget.request(now));
        assert_eq!((0..1000).filter(|_| budget.take(now)).count(), 200);
        let later = Moment::from_millis(10_600);
        assert_eq!((0..1000).filter(|_| budget.take(later)).count(), 100, "the old traffic is forgotten");
    }

    #[test]
    fn sustained_failure_is_repeated_by_a_fifth_only() {
        let mut budget = Budget::default();
        let mut granted = 0;
        for millis in 0..60_000 {
            let now = Moment::from_millis(millis);
            budget.request(now);
            granted += u64::from(budget.take(now));
        }
        assert!((11_900..=12_000).contains(&granted), "{granted} of 60000: a fifth, and not more");
    }
}
