//! Who is on a database route now, and where the next connection goes.

use std::collections::HashMap;
use std::sync::Arc;

use model::routes::{DatabaseEndpoint, DatabaseTarget};
use model::time::Moment;

use super::view::{Verdict, View};

/// The state of one database route: the view in force, the seats taken on each member, and the clients that wait.
#[derive(Debug)]
pub struct Admission {
    view: Arc<View>,
    seats: HashMap<DatabaseEndpoint, u64>,
    parked: u32,
    counters: Counters,
    drain: Drain,
}

/// What happened on a route since the proxy started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections that ended with an error made by the proxy.
    pub failed: u64,
    /// Connections that were offered to another member after one had failed.
    pub retried: u64,
}

/// The route already holds as many waiting clients as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParkFull {
    /// The limit.
    pub limit: u32,
}

/// How a draining ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Sessions that left while idle.
    pub idle: u64,
    /// Sessions cut at the deadline.
    pub cut: u64,
}

/// How far the present draining is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drain {
    /// The route does not drain, or the end was told already.
    Nothing,
    /// The agent has not yet been told that the table is in force.
    Unsettled(Drained),
    /// The end is to be told as soon as no session is left.
    Awaited(Drained),
}

impl Admission {
    /// A route that nobody uses yet.
    pub fn new(generation: u64, target: DatabaseTarget, now: Moment) -> Self {
        let view = Arc::new(View::following(None, generation, target, now));
        let drain = Drain::begin(&view);
        Self { view, seats: HashMap::new(), parked: 0, counters: Counters::default(), drain }
    }

    /// Puts a new table in force.
    pub fn swap(&mut self, generation: u64, target: DatabaseTarget, now: Moment) {
        let view = Arc::new(View::following(Some(&self.view), generation, target, now));
        if view.target.state != self.view.target.state {
            self.drain = Drain::begin(&view);
        }
        self.view = view;
    }

    /// What the table in force says.
    pub fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// Takes a seat on the eligible member with the fewest, leaving out those in `avoid` as long as there are others;
    /// `draw` decides between equals. `None`: no member takes connections now.
    pub fn take_seat(&mut self, avoid: &[DatabaseEndpoint], draw: u64) -> Option<DatabaseEndpoint> {
        let eligible = self.view.eligible();
        let fresh: Vec<_> = eligible.iter().filter(|member| !avoid.contains(member)).collect();
        let candidates = if fresh.is_empty() { eligible.iter().collect() } else { fresh };
        let fewest = candidates.iter().map(|member| self.taken(member)).min()?;
        let least: Vec<_> = candidates.into_iter().filter(|member| self.taken(member) == fewest).collect();
        let pick = usize::try_from(draw % least.len() as u64).unwrap_or(0);
        let chosen = least[pick].clone();
        *self.seats.entry(chosen.clone()).or_default() += 1;
        Some(chosen)
    }

    /// Gives a seat back.
    pub fn leave_seat(&mut self, endpoint: &DatabaseEndpoint) {
        if let Some(taken) = self.seats.get_mut(endpoint) {
            *taken = taken.saturating_sub(1);
            if *taken == 0 {
                self.seats.remove(endpoint);
            }
        }
    }

    /// Lets one more client wait.
    pub fn park(&mut self) -> Result<(), ParkFull> {
        let limit = self.view.target.park_limit_count;
        if self.parked >= limit {
            return Err(ParkFull { limit });
        }
        self.parked += 1;
        Ok(())
    }

    /// One client waits no longer.
    pub fn unpark(&mut self) {
        self.parked = self.parked.saturating_sub(1);
    }

    /// Seats that the table in force does not allow; the table is in force for everyone when there are none.
    pub fn forbidden(&self) -> u64 {
        let gone = |member: &DatabaseEndpoint| self.view.verdict(member) == Verdict::Close;
        self.seats.iter().filter(|(member, _)| gone(member)).map(|(_, taken)| taken).sum()
    }

    /// Seats taken now.
    pub fn open(&self) -> u64 {
        self.seats.values().sum()
    }

    /// Clients waiting now.
    pub fn parked(&self) -> u32 {
        self.parked
    }

    /// Counts since the start.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Changes the counts.
    pub fn count(&mut self, change: impl FnOnce(&mut Counters)) {
        change(&mut self.counters);
    }

    /// Counts a session that draining has ended, `idle` or cut.
    pub fn count_drained(&mut self, idle: bool) {
        match &mut self.drain {
            Drain::Nothing => {}
            Drain::Unsettled(sum) | Drain::Awaited(sum) => {
                if idle {
                    sum.idle += 1;
                } else {
                    sum.cut += 1;
                }
            }
        }
    }

    /// The agent has been told that the table is in force: from now on the end of a draining may be told too.
    pub fn settled(&mut self) {
        self.drain = match self.drain {
            Drain::Unsettled(sum) => Drain::Awaited(sum),
            Drain::Nothing => Drain::Nothing,
            Drain::Awaited(sum) => Drain::Awaited(sum),
        };
    }

    /// The end of a draining, once.
    pub fn take_drained(&mut self) -> Option<Drained> {
        match self.drain {
            Drain::Awaited(sum) if self.seats.is_empty() => {
                self.drain = Drain::Nothing;
                Some(sum)
            }
            Drain::Nothing | Drain::Unsettled(_) | Drain::Awaited(_) => None,
        }
    }

    fn taken(&self, member: &DatabaseEndpoint) -> u64 {
        self.seats.get(member).copied().unwrap_or(0)
    }
}

impl Drain {
    fn begin(view: &View) -> Self {
        if view.is_draining() { Self::Unsettled(Drained::default()) } else { Self::Nothing }
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::{draining, endpoint, open, target};
    use super::*;
    use model::routes::DatabaseRouteState;
    use proptest::prelude::*;

    const NOW: Moment = Moment::from_millis(1);

    #[test]
    fn connections_spread_over_the_members_and_avoid_those_that_failed() {
        let (a, b) = (endpoint("a", 1), endpoint("b", 1));
        let mut route = Admission::new(1, open(&[a.clone(), b.clone()]), NOW);
        assert_eq!(route.take_seat(&[], 0), Some(a.clone()));
        assert_eq!(route.take_seat(&[], 0), Some(b.clone()));
        assert_eq!(route.take_seat(std::slice::from_ref(&a), 0), Some(b.clone()));
        assert_eq!(route.take_seat(&[a.clone(), b.clone()], 0), Some(a), "all failed: all are tried again");
        assert_eq!(route.open(), 4);
    }

    #[test]
    fn a_new_term_forbids_the_seats_of_the_old_one() {
        let mut route = Admission::new(1, open(&[endpoint("a", 1)]), NOW);
        let seat = route.take_seat(&[], 0).unwrap();
        route.swap(2, open(&[endpoint("a", 2)]), NOW);
        assert_eq!(route.forbidden(), 1);
        route.leave_seat(&seat);
        assert_eq!(route.forbidden(), 0);
    }

    #[test]
    fn waiting_is_bounded() {
        let mut route = Admission::new(1, target(DatabaseRouteState::Parked { because: String::new() }), NOW);
        assert_eq!(route.take_seat(&[], 0), None);
        assert_eq!((route.park(), route.park(), route.park()), (Ok(()), Ok(()), Err(ParkFull { limit: 2 })));
        route.unpark();
        assert_eq!(route.park(), Ok(()));
    }

    #[test]
    fn the_end_of_a_draining_is_told_once_and_only_after_the_table_is_in_force() {
        let a = endpoint("a", 1);
        let mut route = Admission::new(1, open(std::slice::from_ref(&a)), NOW);
        let seat = route.take_seat(&[], 0).unwrap();
        route.swap(2, draining(std::slice::from_ref(&a), 100), NOW);
        assert_eq!(route.forbidden(), 0);
        route.count_drained(true);
        route.leave_seat(&seat);
        assert_eq!(route.take_drained(), None);
        route.settled();
        assert_eq!(route.take_drained(), Some(Drained { idle: 1, cut: 0 }));
        assert_eq!(route.take_drained(), None);
    }

    proptest! {
        /// Whatever the order of arrivals, departures and tables: seats add up, and no seat is ever given on a member
        /// that the table in force does not name.
        #[test]
        fn seats_add_up(inputs in proptest::collection::vec((0_u8..4, 0_u64..6), 1..200)) {
            let nodes = ["a", "b", "c"];
            let mut route = Admission::new(0, open(&[]), NOW);
            let mut held = Vec::new();
            for (generation, (input, value)) in inputs.into_iter().enumerate() {
                match input {
                    0 => held.extend(route.take_seat(&[], value)),
                    1 => if let Some(seat) = held.pop() { route.leave_seat(&seat) },
                    2 => route.swap(generation as u64, open(&nodes.map(|n| endpoint(n, value))[..value as usize % 4]), NOW),
                    _ => route.swap(generation as u64, draining(&nodes.map(|n| endpoint(n, value)), 1), NOW),
                }
                prop_assert_eq!(route.open(), held.len() as u64);
                let forbidden = held.iter().filter(|seat| route.view().verdict(seat) == Verdict::Close).count();
                prop_assert_eq!(route.forbidden(), forbidden as u64);
                if let Some(seat) = route.take_seat(&[], value) {
                    prop_assert_eq!(route.view().verdict(&seat), Verdict::Keep);
                    route.leave_seat(&seat);
                }
            }
        }
    }
}
