//! What lists say by themselves: whose values they hold, in which order, and what is missing.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use model::time::Moment;

use super::{Action, Claim, Key, Level, Step};
use crate::{Anomaly, Operation, Outcome, Violation};

/// A transaction's place in the history.
pub(super) type Txn = usize;

/// The order of each list's values, and everything that is wrong without looking at cycles.
#[derive(Default)]
pub(super) struct Orders<'a> {
    /// The longest list that was read of each key.
    pub(super) longest: BTreeMap<&'a Key, &'a [u64]>,
    /// Where a value stands in the longest list.
    places: HashMap<(&'a Key, u64), usize>,
    /// Who appended a value.
    pub(super) writers: HashMap<(&'a Key, u64), Txn>,
    /// Transactions that were acknowledged or whose effects somebody else saw.
    pub(super) committed: BTreeSet<Txn>,
    /// Values of committed transactions that are in no list that was read: they come behind all that are.
    pub(super) unseen: BTreeMap<&'a Key, Vec<u64>>,
    pub(super) violations: Vec<Violation>,
    pub(super) undecided: Option<String>,
}

/// One answered read.
pub(super) struct View<'a> {
    pub(super) reader: Txn,
    pub(super) key: &'a Key,
    pub(super) found: &'a [u64],
    /// What the reader itself had appended to this key before.
    pub(super) own: Vec<u64>,
}

impl View<'_> {
    /// What others had written: the list without the reader's own appends at its end.
    pub(super) fn others(&self) -> &[u64] {
        self.found.strip_suffix(self.own.as_slice()).unwrap_or(self.found)
    }
}

impl<'a> Orders<'a> {
    pub(super) fn infer(claim: Claim, history: &'a [Operation<Action>]) -> Self {
        let mut orders = Self::default();
        orders.collect_writers(history);
        let views: Vec<View<'a>> = history.iter().enumerate().flat_map(|(txn, o)| views(txn, o)).collect();
        for view in &views {
            orders.judge(history, view);
            let longest = orders.longest.entry(view.key).or_default();
            if view.found.len() > longest.len() {
                *longest = view.found;
            }
        }
        orders.places = places(&orders.longest);
        orders.compare_orders(history, &views);
        if claim.level >= Level::RepeatableRead {
            orders.judge_snapshots(history);
        }
        orders.judge_pieces(history);
        orders.look_for_missing(claim, history, &views);
        orders.collect_unseen(history);
        orders
    }

    /// Who appended a value, if anybody did.
    pub(super) fn writer(&self, key: &Key, value: u64) -> Option<Txn> {
        self.writers.get(&(key, value)).copied()
    }

    fn collect_unseen(&mut self, history: &'a [Operation<Action>]) {
        for &txn in &self.committed {
            for (key, value) in
                appends(&history[txn].action).filter(|append| !self.places.contains_key(append))
            {
                self.unseen.entry(key).or_default().push(value);
            }
        }
    }

    fn collect_writers(&mut self, history: &'a [Operation<Action>]) {
        for (txn, operation) in history.iter().enumerate() {
            if operation.acknowledged().is_some() {
                self.committed.insert(txn);
            }
            for (key, value) in appends(&operation.action) {
                if self.writers.insert((key, value), txn).is_some() {
                    self.undecided = Some(format!("the workload appended {value} to {key} more than once"));
                }
            }
        }
    }

    /// A list by itself: duplicates, strangers' values, aborted and intermediate reads, the reader's own appends.
    fn judge(&mut self, history: &'a [Operation<Action>], view: &View<'a>) {
        let (who, key, found) = (&history[view.reader], view.key, view.found);
        let mut seen = HashSet::new();
        for value in found {
            if !seen.insert(value) {
                self.report(
                    Anomaly::Doubled,
                    format!("{who} read {key} = {found:?}: {value} is there twice"),
                );
            }
            match self.writer(key, *value) {
                None => {
                    let evidence = format!("{who} read {key} = {found:?}: nobody ever appended {value}");
                    self.report(Anomaly::Foreign, evidence);
                }
                Some(writer) if history[writer].is_failed() => {
                    let evidence =
                        format!("{who} read {key} = {found:?}: {value} is of a failed transaction");
                    self.report(Anomaly::G1a, evidence);
                }
                Some(writer) if writer != view.reader => {
                    self.committed.insert(writer);
                }
                Some(_) => {}
            }
        }
        if !found.ends_with(&view.own) {
            let own = &view.own;
            let evidence = format!("{who} had appended {own:?} to {key} and then read {found:?}");
            self.report(Anomaly::Internal, evidence);
        }
        if let Some(last) = view.others().last() {
            self.judge_intermediate(history, view, *last);
        }
    }

    fn judge_intermediate(&mut self, history: &'a [Operation<Action>], view: &View<'a>, last: u64) {
        let Some(writer) = self.writer(view.key, last).filter(|writer| *writer != view.reader) else {
            return;
        };
        let mut of_writer = appends(&history[writer].action).filter(|(key, _)| *key == view.key);
        let newest = of_writer.next_back().map_or(last, |(_, value)| value);
        if newest != last {
            let (who, key) = (&history[view.reader], view.key);
            let by = &history[writer];
            let evidence = format!(
                "{who} read {key} up to {last}, which {by} had itself followed by {newest} in the same transaction"
            );
            self.report(Anomaly::G1b, evidence);
        }
    }

    /// Every list that was read is a beginning of the longest one.
    fn compare_orders(&mut self, history: &[Operation<Action>], views: &[View<'a>]) {
        for view in views {
            let longest = self.longest.get(view.key).copied().unwrap_or_default();
            if !longest.starts_with(view.found) {
                let (who, key, found) = (&history[view.reader], view.key, view.found);
                let evidence = format!("{who} read {key} = {found:?}, but another read found {longest:?}");
                self.report(Anomaly::IncompatibleOrder, evidence);
            }
        }
    }

    /// Under a snapshot, a list read again holds what it held before and the reader's own appends since, nothing else.
    fn judge_snapshots(&mut self, history: &'a [Operation<Action>]) {
        for operation in history.iter().filter(|operation| operation.acknowledged().is_some()) {
            let mut expected: BTreeMap<&Key, Vec<u64>> = BTreeMap::new();
            for step in &operation.action {
                match step {
                    Step::Append(key, value) => {
                        if let Some(list) = expected.get_mut(key) {
                            list.push(*value);
                        }
                    }
                    Step::Read(_, None) => {}
                    Step::Read(key, Some(found)) => {
                        let before = expected.insert(key, found.clone());
                        if let Some(before) = before.filter(|before| before != found) {
                            let evidence = format!(
                                "{operation} read {key} = {found:?}, but by its own first read and its own appends \
                                 it was to find {before:?}"
                            );
                            self.report(Anomaly::Internal, evidence);
                        }
                    }
                }
            }
        }
    }

    /// Of one transaction's appends to one list, none is missing before another that is there.
    fn judge_pieces(&mut self, history: &'a [Operation<Action>]) {
        for operation in history {
            let mut missing: BTreeMap<&Key, u64> = BTreeMap::new();
            for (key, value) in appends(&operation.action) {
                if !self.places.contains_key(&(key, value)) {
                    missing.insert(key, value);
                } else if let Some(lost) = missing.get(key) {
                    let evidence =
                        format!("of {operation}, {value} is in {key} and {lost}, appended before it, is not");
                    self.report(Anomaly::Lost, evidence);
                }
            }
        }
    }

    /// Who began after an acknowledgement and does not see what was acknowledged.
    fn look_for_missing(&mut self, claim: Claim, history: &'a [Operation<Action>], views: &[View<'a>]) {
        let shortest = Shortest::of(history, views);
        let mut unread = 0_usize;
        for operation in history {
            let Some(acknowledged) = operation.acknowledged() else { continue };
            for (key, value) in appends(&operation.action) {
                let place = self.places.get(&(key, value)).copied();
                let Some(view) = shortest.after(key, acknowledged).filter(|_| claim.real_time) else {
                    unread += usize::from(place.is_none());
                    continue;
                };
                // A list that is a beginning of the longest one has a value exactly when it reaches to its place.
                if place.is_some_and(|place| place < view.found.len()) {
                    continue;
                }
                let (reader, found) = (&history[view.reader], view.found);
                let evidence = format!("{operation} appended {value} to {key}, and {reader} read {found:?}");
                match place {
                    None => self.report(Anomaly::Lost, format!("{evidence}; nobody ever saw {value}")),
                    Some(_) => self.report(Anomaly::Stale, format!("{evidence}; others saw {value}")),
                }
            }
        }
        if unread > 0 && self.undecided.is_none() {
            self.undecided = Some(format!(
                "{unread} acknowledged appends were never seen, and nobody was sure to see them"
            ));
        }
    }

    fn report(&mut self, anomaly: Anomaly, evidence: String) {
        self.violations.push(Violation::new(anomaly, evidence));
    }
}

fn places<'a>(longest: &BTreeMap<&'a Key, &'a [u64]>) -> HashMap<(&'a Key, u64), usize> {
    let each =
        longest.iter().flat_map(|(key, list)| list.iter().zip(0..).map(|(value, at)| ((*key, *value), at)));
    each.collect()
}

/// For each list: which read that began after a moment found the shortest list.
struct Shortest<'v, 'a> {
    /// Per key, by the readers' beginnings; each with the shortest view from there on.
    by_key: HashMap<&'a Key, Vec<(Moment, &'v View<'a>)>>,
}

impl<'v, 'a> Shortest<'v, 'a> {
    fn of(history: &[Operation<Action>], views: &'v [View<'a>]) -> Self {
        let mut by_key: HashMap<&Key, Vec<(Moment, &View<'a>)>> = HashMap::new();
        for view in views {
            by_key.entry(view.key).or_default().push((history[view.reader].invoked, view));
        }
        for views in by_key.values_mut() {
            views.sort_by_key(|(invoked, _)| *invoked);
            for at in (1..views.len()).rev() {
                if views[at].1.found.len() < views[at - 1].1.found.len() {
                    views[at - 1].1 = views[at].1;
                }
            }
        }
        Self { by_key }
    }

    fn after(&self, key: &Key, moment: Moment) -> Option<&'v View<'a>> {
        let views = self.by_key.get(key)?;
        let first = views.partition_point(|(invoked, _)| *invoked <= moment);
        views.get(first).map(|(_, view)| *view)
    }
}

/// What a transaction appends, in order.
pub(super) fn appends(action: &Action) -> impl DoubleEndedIterator<Item = (&Key, u64)> {
    action.iter().filter_map(|step| match step {
        Step::Append(key, value) => Some((key, *value)),
        Step::Read(..) => None,
    })
}

/// The answered reads of an acknowledged transaction. What others read proves nothing: an aborted transaction may have
/// read anything.
pub(super) fn views(reader: Txn, operation: &Operation<Action>) -> Vec<View<'_>> {
    match operation.outcome {
        Outcome::Failed | Outcome::Unknown => return Vec::new(),
        Outcome::Ok(_) => {}
    }
    let mut own: BTreeMap<&Key, Vec<u64>> = BTreeMap::new();
    let mut views = Vec::new();
    for step in &operation.action {
        match step {
            Step::Append(key, value) => own.entry(key).or_default().push(*value),
            Step::Read(_, None) => {}
            Step::Read(key, Some(found)) => {
                let own = own.get(key).cloned().unwrap_or_default();
                views.push(View { reader, key, found, own });
            }
        }
    }
    views
}
