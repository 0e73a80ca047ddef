//! How slow is the network between the voters, and how slow should Raft's clock be for it?
//!
//! Every node asks every other voter twice a second for nothing but an answer. What counts is what it usually takes until
//! a majority has answered: a single sick node makes nobody slow, and a moment in which a machine was busy neither.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use model::NodeName;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::message::{Request, RequestBody, Response, encode};
use super::network;
use super::node::Node;
use super::pace::{FULL_SPEED, Slowness};

/// How often a voter is asked.
const EVERY: Duration = Duration::from_millis(500);
/// How often while too little is known.
const AT_FIRST: Duration = Duration::from_millis(100);
/// A voter that has not answered after so long counts as silent.
const ANSWER_LIMIT: Duration = Duration::from_millis(1500);
/// Of so many answers of late the third slowest says what is usual.
const KEPT: usize = 9;
/// Fewer answers say nothing.
const FEWEST: usize = 3;
/// A heartbeat that must have come back within one interval is given so many usual round trips.
const ROUND_TRIPS: u32 = 2;
/// The slowest clock, for round trips of a second: an election then takes half a minute.
const SLOWEST: Slowness = 2_000;
/// A clock is set a fifth slower than needed, so that the next little change of the network changes nothing.
const SPARE: (u32, u32) = (6, 5);
/// A clock is made faster only when it was half as slow again as needed for so long.
const LOWER_AFTER: Duration = Duration::from_secs(30);

/// What is known of the voters' answers.
#[derive(Default)]
struct RoundTrips {
    voters: BTreeMap<NodeName, Seen>,
}

#[derive(Default)]
struct Seen {
    took: VecDeque<Duration>,
    silent: bool,
}

impl RoundTrips {
    fn answered(&mut self, voter: NodeName, took: Option<Duration>) {
        let seen = self.voters.entry(voter).or_default();
        seen.silent = took.is_none();
        seen.took.extend(took);
        while seen.took.len() > KEPT {
            seen.took.pop_front();
        }
    }

    /// Whether nothing can be said of one that answers.
    fn knows_little_of(&self, voter: &NodeName) -> bool {
        self.voters.get(voter).is_none_or(|seen| !seen.silent && seen.took.len() < FEWEST)
    }

    /// How long it usually takes until `needed` of `others` have answered. When too few answer, all that is known of
    /// them counts: an election will need one that is far.
    fn usual(&self, others: &BTreeSet<NodeName>, needed: usize) -> Option<Duration> {
        let known = others.iter().filter_map(|voter| self.voters.get(voter));
        let mut usual: Vec<(bool, Duration)> =
            known.filter_map(|seen| Some((seen.silent, seen.usual()?))).collect();
        usual.sort_unstable();
        let answering = usual.iter().filter(|(silent, _)| !silent).count();
        match needed {
            0 => None,
            _ if needed <= answering => usual.get(needed - 1).map(|(_, took)| *took),
            _ => usual.iter().map(|(_, took)| *took).max(),
        }
    }
}

impl Seen {
    fn usual(&self) -> Option<Duration> {
        let mut took: Vec<Duration> = self.took.iter().copied().collect();
        took.sort_unstable_by(|a, b| b.cmp(a));
        (took.len() >= FEWEST).then(|| took[took.len() / 4])
    }
}

/// Decides how slow the clock shall be.
struct Governor {
    slowness: Slowness,
    /// Since when it has been slower than it need be.
    too_slow_since: Option<Instant>,
}

impl Governor {
    fn new() -> Self {
        Self { slowness: FULL_SPEED, too_slow_since: None }
    }

    /// The new slowness, when it should change.
    fn adjust(&mut self, usual: Duration, heartbeat: Duration, now: Instant) -> Option<Slowness> {
        let needed = needed(usual, heartbeat);
        let with_spare = match needed {
            FULL_SPEED => FULL_SPEED,
            _ => (needed * SPARE.0 / SPARE.1).min(SLOWEST),
        };
        if needed <= self.slowness {
            let too_slow = with_spare < self.slowness && needed * 3 / 2 <= self.slowness.max(150);
            if !too_slow {
                self.too_slow_since = None;
                return None;
            }
            let since = *self.too_slow_since.get_or_insert(now);
            if now.duration_since(since) < LOWER_AFTER {
                return None;
            }
        }
        self.too_slow_since = None;
        self.slowness = with_spare;
        Some(with_spare)
    }
}

fn needed(usual: Duration, heartbeat: Duration) -> Slowness {
    let percent = usual.as_micros() * u128::from(ROUND_TRIPS * FULL_SPEED) / heartbeat.as_micros().max(1);
    u32::try_from(percent).unwrap_or(SLOWEST).clamp(FULL_SPEED, SLOWEST)
}

/// Lets this node's clock follow the network, for ever.
pub(crate) async fn keep_pace(node: Arc<Node>) {
    let (sender, mut answers) = mpsc::unbounded_channel();
    let (mut trips, mut governor) = (RoundTrips::default(), Governor::new());
    let mut asked: BTreeSet<NodeName> = BTreeSet::new();
    let mut next = Instant::now();
    loop {
        tokio::select! {
            () = sleep_until(next) => {}
            answer = answers.recv() => {
                let Some((voter, took)) = answer else { return };
                asked.remove(&voter);
                trips.answered(voter, took);
                continue;
            }
        }
        let (others, needed) = node.other_voters();
        if let Some(usual) = trips.usual(&others, needed)
            && let Some(slowness) = governor.adjust(usual, node.timings.heartbeat, Instant::now())
        {
            tracing::info!(round_trip = ?usual, slowness, "the coordination's clock follows the network");
            node.pace.set(slowness);
        }
        next = Instant::now() + pause(&trips, &others);
        for voter in others.difference(&asked.clone()) {
            asked.insert(voter.clone());
            tokio::spawn(ask(node.clone(), voter.clone(), sender.clone()));
        }
    }
}

fn pause(trips: &RoundTrips, others: &BTreeSet<NodeName>) -> Duration {
    if others.iter().any(|voter| trips.knows_little_of(voter)) { AT_FIRST } else { EVERY }
}

async fn ask(node: Arc<Node>, voter: NodeName, sender: mpsc::UnboundedSender<(NodeName, Option<Duration>)>) {
    let since = Instant::now();
    let answer = match encode(&Request { to: None, body: RequestBody::Ping }, &[]) {
        Ok(message) => network::call::<()>(&*node.transport, &voter, message, ANSWER_LIMIT).await,
        Err(error) => Err(error),
    };
    let took = match answer {
        Ok(Response::Answer(()) | Response::Refused(_)) => Some(since.elapsed()),
        Err(_) => None,
    };
    let _ = sender.send((voter, took));
}

impl Node {
    /// The other voters, and how many of them make a majority with this node.
    fn other_voters(&self) -> (BTreeSet<NodeName>, usize) {
        let voters: BTreeSet<NodeName> = self.members().voters.into_values().collect();
        let needed = voters.len() / 2;
        (voters.into_iter().filter(|voter| *voter != self.name).collect(), needed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEARTBEAT: Duration = Duration::from_millis(100);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn others() -> BTreeSet<NodeName> {
        ["b".into(), "c".into()].into()
    }

    fn seen(b: &[u64], c: &[u64]) -> RoundTrips {
        let mut trips = RoundTrips::default();
        b.iter().for_each(|&took| trips.answered("b".into(), Some(ms(took))));
        c.iter().for_each(|&took| trips.answered("c".into(), Some(ms(took))));
        trips
    }

    #[test]
    fn what_a_majority_needs_counts_and_no_single_late_answer() {
        let trips = seen(&[1, 1, 900, 1, 700, 1, 1, 1, 1], &[100; 9]);
        assert_eq!(trips.usual(&others(), 1), Some(ms(1)));
        assert_eq!(trips.usual(&others(), 2), Some(ms(100)));
        assert_eq!(trips.usual(&others(), 0), None);
        assert_eq!(seen(&[1, 1], &[]).usual(&others(), 1), None);
    }

    #[test]
    fn when_the_near_one_is_silent_the_far_one_counts() {
        let mut trips = seen(&[1; 9], &[100; 9]);
        trips.answered("b".into(), None);
        assert_eq!(trips.usual(&others(), 1), Some(ms(100)));
        trips.answered("c".into(), None);
        assert_eq!(trips.usual(&others(), 1), Some(ms(100)));
    }

    #[test]
    fn a_slow_network_makes_the_clock_slow_at_once_and_with_spare() {
        let (mut governor, now) = (Governor::new(), Instant::now());
        assert_eq!(governor.adjust(ms(1), HEARTBEAT, now), None);
        assert_eq!(governor.adjust(ms(50), HEARTBEAT, now), None);
        assert_eq!(governor.adjust(ms(110), HEARTBEAT, now), Some(264));
        assert_eq!(governor.adjust(ms(130), HEARTBEAT, now), None);
        assert_eq!(governor.adjust(ms(60_000), HEARTBEAT, now), Some(SLOWEST));
    }

    #[test]
    fn a_network_that_flutters_changes_nothing_and_a_healed_one_does_after_a_while() {
        let (mut governor, now) = (Governor::new(), Instant::now());
        assert_eq!(governor.adjust(ms(100), HEARTBEAT, now), Some(240));
        for second in 0..600 {
            let usual = if second % 10 == 0 { ms(90) } else { ms(1) };
            assert_eq!(governor.adjust(usual, HEARTBEAT, now + ms(1000 * second)), None);
        }
        // The last flutter was at 590 s.
        assert_eq!(governor.adjust(ms(1), HEARTBEAT, now + ms(591_000) + LOWER_AFTER / 2), None);
        assert_eq!(governor.adjust(ms(1), HEARTBEAT, now + ms(591_000) + LOWER_AFTER), Some(FULL_SPEED));
        let healed = now + ms(700_000);
        // A little slower than needed is not worth a change; full speed is.
        assert_eq!(governor.adjust(ms(60), HEARTBEAT, healed), Some(144));
        assert_eq!(governor.adjust(ms(40), HEARTBEAT, healed), None);
        assert_eq!(governor.adjust(ms(40), HEARTBEAT, healed + LOWER_AFTER), Some(FULL_SPEED));
    }
}
