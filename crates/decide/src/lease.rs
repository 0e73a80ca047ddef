//! Until when may this member serve as the primary? Answered by its own agent, several times a second.
//!
//! Two proofs count, each from the moment before it was asked for: a linearizable read of the leadership record, or the
//! word of enough members that they have promised nothing higher. A database whose sync set lives does not stop because
//! the coordination is down. Neither is needed for the safety of writes; they bound how long a deposed primary can
//! answer reads.

use std::collections::BTreeMap;

use model::NodeName;
use model::leadership::{Leadership, SyncSet, Term};
use model::time::Moment;

use crate::view::Rules;

/// One member's word about the highest term it has promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confirmation {
    /// The highest term it has promised.
    pub promised: Term,
    /// When we sent what its word answers: it was true after this moment.
    pub as_of: Moment,
}

/// A linearizable read of the leadership record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreRead {
    /// The term it held.
    pub term: Term,
    /// When the read was asked for.
    pub as_of: Moment,
}

/// Until when `me` may serve as the primary of `record`, judged by the latest confirmations and the latest read.
pub fn valid_until(
    rules: &Rules,
    record: &Leadership,
    me: &NodeName,
    confirmations: &BTreeMap<NodeName, Confirmation>,
    read: Option<StoreRead>,
) -> Option<Moment> {
    if record.primary() != Some(me) {
        return None;
    }
    let by_store = read.filter(|read| read.term == record.term).map(|read| read.as_of);
    let word =
        |node: &NodeName| confirmations.get(node).filter(|c| c.promised <= record.term).map(|c| c.as_of);
    let by_members = if rules.k == 0 {
        // Nothing must be revoked before another member is promoted, but the one promoted must promise first.
        let others: Vec<_> = rules.members.iter().filter(|node| *node != me).map(word).collect();
        others.into_iter().collect::<Option<Vec<_>>>().and_then(|moments| moments.into_iter().min())
    } else {
        record.sets().filter_map(|set| kth_latest(set, word)).max()
    };
    by_store.max(by_members).map(|as_of| as_of + rules.lease)
}

/// The latest moment at which `k` members of the set had promised nothing higher. A revocation needs `|set| - k + 1`
/// of them, so at that moment none was complete.
fn kth_latest(set: &SyncSet, word: impl Fn(&NodeName) -> Option<Moment>) -> Option<Moment> {
    let mut moments: Vec<Moment> = set.members.iter().filter_map(word).collect();
    moments.sort_unstable_by(|a, b| b.cmp(a));
    moments.get(usize::try_from(set.k).ok()?.checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::{at, led, rules};

    fn word(promised: u64, ms: u64) -> Confirmation {
        Confirmation { promised: Term(promised), as_of: at(ms) }
    }

    #[test]
    fn the_store_or_enough_members_suffice() {
        let (rules, record, me) = (rules(), led(5, "a", &["b", "c"]), NodeName::from("a"));
        let read = Some(StoreRead { term: Term(5), as_of: at(100) });
        let words = BTreeMap::from([("b".into(), word(5, 300)), ("c".into(), word(6, 900))]);
        assert_eq!(valid_until(&rules, &record, &me, &BTreeMap::new(), read), Some(at(2100)));
        assert_eq!(valid_until(&rules, &record, &me, &words, None), Some(at(2300)));
        assert_eq!(valid_until(&rules, &record, &me, &words, read), Some(at(2300)));
    }

    #[test]
    fn a_higher_promise_or_another_term_confirms_nothing() {
        let (rules, record, me) = (rules(), led(5, "a", &["b", "c"]), NodeName::from("a"));
        let words = BTreeMap::from([("b".into(), word(6, 300)), ("c".into(), word(6, 300))]);
        let read = Some(StoreRead { term: Term(6), as_of: at(900) });
        assert_eq!(valid_until(&rules, &record, &me, &words, read), None);
        assert_eq!(valid_until(&rules, &record, &"b".into(), &words, None), None);
    }

    #[test]
    fn an_asynchronous_primary_needs_every_other_member() {
        let rules = Rules { k: 0, ..rules() };
        let (mut record, me) = (led(5, "a", &[]), NodeName::from("a"));
        record.sync.k = 0;
        let one = BTreeMap::from([("b".into(), word(5, 300))]);
        let both = BTreeMap::from([("b".into(), word(5, 300)), ("c".into(), word(5, 200))]);
        assert_eq!(valid_until(&rules, &record, &me, &one, None), None);
        assert_eq!(valid_until(&rules, &record, &me, &both, None), Some(at(2200)));
    }
}
