//! Reads of a former primary, within its lease.

use std::collections::BTreeMap;
use std::time::Duration;

use checker::Operation;
use model::postgres::Timeline;
use model::time::Moment;

use super::client::Seen;

/// What is known of a leadership.
#[derive(Clone, Copy)]
struct Heard {
    /// The beginning of the first operation that it acknowledged: it led at this moment or later.
    asked: Moment,
    /// Its first acknowledgement.
    acknowledged: Moment,
}

/// The operations, and how many of them are reads that a member answered from an older timeline after a newer one had
/// acknowledged something, but no later than `lease` after that.
///
/// Such a read shows the database as the former primary left it: as it was before the newer timeline's first change. So
/// it is counted as begun when the newer one was first heard of, and everything else that it says is judged as ever. All
/// that was acknowledged on the newer timeline took effect after that moment, so nobody is accused wrongly; and the
/// former primary's own log is its past, so nothing else is forgiven.
pub(super) fn allow<A>(seen: Vec<Seen<A>>, lease: Duration) -> (Vec<Operation<A>>, u64) {
    let heard = heard(&seen);
    let mut count = 0;
    let operations = seen.into_iter().map(|mut seen| {
        if let Some(begun) = earlier(&seen, &heard, lease) {
            seen.operation.invoked = begun;
            count += 1;
        }
        seen.operation
    });
    (operations.collect(), count)
}

fn heard<A>(seen: &[Seen<A>]) -> BTreeMap<Timeline, Heard> {
    let mut heard: BTreeMap<Timeline, Heard> = BTreeMap::new();
    for seen in seen {
        let (Some(timeline), Some(acknowledged)) = (seen.timeline, seen.operation.acknowledged()) else {
            continue;
        };
        let asked = seen.operation.invoked;
        let first = heard.entry(timeline).or_insert(Heard { asked, acknowledged });
        first.asked = first.asked.min(asked);
        first.acknowledged = first.acknowledged.min(acknowledged);
    }
    heard
}

/// From when an old read counts; `None` for everything else.
fn earlier<A>(seen: &Seen<A>, heard: &BTreeMap<Timeline, Heard>, lease: Duration) -> Option<Moment> {
    let ended = seen.operation.acknowledged().filter(|_| !seen.changes)?;
    let newer = heard.range(seen.timeline?..).skip(1);
    let asked = newer.clone().map(|(_, heard)| heard.asked).min()?;
    let acknowledged = newer.map(|(_, heard)| heard.acknowledged).min()?;
    let is_late = ended > acknowledged + lease;
    (!is_late && seen.operation.invoked > asked).then_some(asked)
}

#[cfg(test)]
mod tests {
    use checker::register::{Action, Answer, Bounds, What, check};
    use checker::{Outcome, Verdict};

    use super::*;

    fn seen(timeline: u32, from: u64, until: u64, what: What) -> Seen<Action> {
        let (invoked, outcome) = (Moment::from_millis(from), Outcome::Ok(Moment::from_millis(until)));
        let changes = matches!(what, What::Write(_));
        let action = Action { key: "k".to_owned(), what };
        let operation = Operation { client: timeline, invoked, outcome, action };
        Seen { operation, timeline: Some(Timeline(timeline)), changes }
    }

    fn judged(read: Seen<Action>) -> (Verdict, u64) {
        let writes = [seen(1, 0, 10, What::Write(1)), seen(2, 1000, 1010, What::Write(2))];
        let (history, old) = allow(writes.into_iter().chain([read]).collect(), Duration::from_secs(2));
        (check(&history, Bounds::default()), old)
    }

    #[test]
    fn a_former_primary_may_read_its_past_until_its_lease_ends() {
        let read = |timeline, at, value| seen(timeline, at, at + 10, What::Read(Answer::Value(value)));
        assert_eq!(judged(read(1, 500, 1)), (Verdict::Valid, 0));
        assert_eq!(judged(read(2, 2000, 2)), (Verdict::Valid, 0));
        assert_eq!(judged(read(1, 2990, 1)), (Verdict::Valid, 1));
        assert!(matches!(judged(read(1, 3100, 1)), (Verdict::Violated(_), 0)), "the lease has ended");
        assert!(matches!(judged(read(2, 2000, 1)), (Verdict::Violated(_), 0)), "the new primary must know");
        assert!(matches!(judged(read(1, 2000, 7)), (Verdict::Violated(_), 1)), "nobody ever wrote that");
    }
}
