//! Until when may this member serve as the primary? Answered by its own agent, several times a second.
//!
//! Three proofs count, each from the moment before it was asked for: a linearizable read of the leadership record, the
//! word of enough members' agents that they have promised nothing higher, or log written since that enough members have
//! received. A database whose sync set lives does not stop because the coordination is down, nor because the agents of
//! the standbys are. None is needed for the safety of writes; they bound how long a deposed primary can answer reads.

use std::collections::{BTreeMap, VecDeque};

use model::NodeName;
use model::leadership::{Leadership, SyncSet, Term};
use model::postgres::{Lsn, Timeline};
use model::status::Server;
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

/// Since when each standby has certainly received log from this primary.
///
/// A member reports for a higher term only after its receiver is gone, and receives from a lower term's primary never
/// again. Who has flushed more than had been written when the primary was looked at received it after that moment: it had
/// not reported then. That is as good as its word, and needs no agent on its node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// What had been written at the most, by the moment at which that was asked for.
    marks: VecDeque<(Moment, Lsn)>,
    timeline: Timeline,
    since: BTreeMap<NodeName, Moment>,
}

/// So many looks are remembered: more than a lease of them.
const MARKS: usize = 64;

impl Received {
    /// Takes in a look at the own server that was begun at `asked`.
    pub fn look(&mut self, asked: Moment, server: &Server) {
        let Server::Primary(facts) = server else {
            // A server that cannot be looked at proves nothing new; one that is no primary ends the account.
            if !matches!(server, Server::Unknown | Server::Sick { primary: true, .. }) {
                *self = Self::default();
            }
            return;
        };
        if self.timeline != facts.position.timeline {
            *self = Self { timeline: facts.position.timeline, ..Self::default() };
        }
        for (node, link) in &facts.standbys {
            let newest = self.marks.iter().rev().find(|(_, written)| link.flushed > *written);
            if let Some((asked, _)) = newest {
                self.since.insert(node.clone(), *asked);
            }
        }
        self.marks.push_back((asked, facts.position.lsn));
        if self.marks.len() > MARKS {
            self.marks.pop_front();
        }
    }

    fn as_of(&self, node: &NodeName) -> Option<Moment> {
        self.since.get(node).copied()
    }
}

/// Until when `me` may serve as the primary of `record`, judged by the latest confirmations, the latest log received by
/// others and the latest read.
pub fn valid_until(
    rules: &Rules,
    record: &Leadership,
    me: &NodeName,
    confirmations: &BTreeMap<NodeName, Confirmation>,
    received: &Received,
    read: Option<StoreRead>,
) -> Option<Moment> {
    if record.primary() != Some(me) {
        return None;
    }
    let by_store = read.filter(|read| read.term == record.term).map(|read| read.as_of);
    let word = |node: &NodeName| {
        let said = confirmations.get(node).filter(|c| c.promised <= record.term).map(|c| c.as_of);
        said.max(received.as_of(node))
    };
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
    use crate::testkit::{at, led, primary, rules, streams};

    fn word(promised: u64, ms: u64) -> Confirmation {
        Confirmation { promised: Term(promised), as_of: at(ms) }
    }

    fn none() -> Received {
        Received::default()
    }

    /// A look begun at `ms`: so much was written, so much had `b` flushed.
    fn look(received: &mut Received, ms: u64, written: u64, flushed: u64) {
        received.look(at(ms), &primary(5, written, &[("b", streams(flushed))], 1).server);
    }

    #[test]
    fn log_received_since_a_look_is_as_good_as_a_word() {
        let (rules, record, me) = (rules(), led(5, "a", &["b", "c"]), NodeName::from("a"));
        let mut received = Received::default();
        let until = |received: &Received| valid_until(&rules, &record, &me, &BTreeMap::new(), received, None);
        look(&mut received, 100, 50, 50);
        assert_eq!(until(&received), None, "what was flushed may have been received at any time before");
        look(&mut received, 200, 60, 50);
        assert_eq!(until(&received), None);
        look(&mut received, 300, 70, 60);
        assert_eq!(until(&received), Some(at(2100)), "more than 50 was received after the look at 100 ms");
        look(&mut received, 400, 80, 71);
        assert_eq!(until(&received), Some(at(2300)));
        look(&mut received, 9000, 90, 80);
        assert_eq!(
            until(&received),
            Some(at(2300)),
            "an answer that waited in a buffer is as old as its question"
        );
    }

    #[test]
    fn log_received_on_another_timeline_or_by_too_few_proves_nothing() {
        let (mut rules, mut record, me) = (rules(), led(5, "a", &["b", "c"]), NodeName::from("a"));
        let mut received = Received::default();
        look(&mut received, 100, 50, 50);
        look(&mut received, 200, 70, 60);
        let until = |rules: &Rules, record: &Leadership, received: &Received| {
            valid_until(rules, record, &me, &BTreeMap::new(), received, None)
        };
        assert_eq!(until(&rules, &record, &received), Some(at(2100)));
        received.look(at(300), &Server::Stopped { because: String::new() });
        assert_eq!(until(&rules, &record, &received), None);
        look(&mut received, 400, 80, 80);
        look(&mut received, 500, 90, 90);
        assert!(until(&rules, &record, &received).is_some());
        (rules.k, record.sync.k) = (2, 2);
        assert_eq!(until(&rules, &record, &received), None);
    }

    #[test]
    fn the_store_or_enough_members_suffice() {
        let (rules, record, me) = (rules(), led(5, "a", &["b", "c"]), NodeName::from("a"));
        let read = Some(StoreRead { term: Term(5), as_of: at(100) });
        let words = BTreeMap::from([("b".into(), word(5, 300)), ("c".into(), word(6, 900))]);
        assert_eq!(valid_until(&rules, &record, &me, &BTreeMap::new(), &none(), read), Some(at(2100)));
        assert_eq!(valid_until(&rules, &record, &me, &words, &none(), None), Some(at(2300)));
        assert_eq!(valid_until(&rules, &record, &me, &words, &none(), read), Some(at(2300)));
    }

    #[test]
    fn a_higher_promise_or_another_term_confirms_nothing() {
        let (rules, record, me) = (rules(), led(5, "a", &["b", "c"]), NodeName::from("a"));
        let words = BTreeMap::from([("b".into(), word(6, 300)), ("c".into(), word(6, 300))]);
        let read = Some(StoreRead { term: Term(6), as_of: at(900) });
        assert_eq!(valid_until(&rules, &record, &me, &words, &none(), read), None);
        assert_eq!(valid_until(&rules, &record, &"b".into(), &words, &none(), None), None);
    }

    #[test]
    fn an_asynchronous_primary_needs_every_other_member() {
        let rules = Rules { k: 0, ..rules() };
        let (mut record, me) = (led(5, "a", &[]), NodeName::from("a"));
        record.sync.k = 0;
        let one = BTreeMap::from([("b".into(), word(5, 300))]);
        let both = BTreeMap::from([("b".into(), word(5, 300)), ("c".into(), word(5, 200))]);
        assert_eq!(valid_until(&rules, &record, &me, &one, &none(), None), None);
        assert_eq!(valid_until(&rules, &record, &me, &both, &none(), None), Some(at(2200)));
    }
}
