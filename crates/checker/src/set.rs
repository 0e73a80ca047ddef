//! Unique values are added; reads say which are there.
//!
//! An add is known from its acknowledgement on, or from the end of the first read that saw it. Every read that begins
//! later must have it, exactly once.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use model::time::Moment;
use serde::{Deserialize, Serialize};

use crate::{Anomaly, Operation, Outcome, Verdict, Violation};

/// What a client asked of the set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Put this value in; no value is ever added twice.
    Add(u64),
    /// Which values are there, each as often as it is there; `None` when no answer came.
    Read(Option<Vec<u64>>),
}

/// What the history proves, value by value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Adds that were acknowledged.
    pub acknowledged: u64,
    /// Adds that surely failed.
    pub failed: u64,
    /// Adds whose outcome their client cannot know.
    pub unknown: u64,
    /// Known and missing in a later read, for good as far as anybody looked.
    pub lost: BTreeSet<u64>,
    /// Known and missing in a later read, and there again in one after that.
    pub stale: BTreeSet<u64>,
    /// There more than once.
    pub doubled: BTreeSet<u64>,
    /// There although the add failed.
    pub revived: BTreeSet<u64>,
    /// There although nobody added it, or before anybody did.
    pub foreign: BTreeSet<u64>,
    /// There although the outcome was unknown, which is fine.
    pub recovered: BTreeSet<u64>,
    /// Acknowledged after the last read had begun: nobody looked whether it is there.
    pub never_read: BTreeSet<u64>,
    /// Added more than once by the workload itself, which makes its history worthless.
    pub repeated: BTreeSet<u64>,
}

/// One answered read.
struct Seen {
    invoked: Moment,
    ended: Moment,
    times: HashMap<u64, u64>,
}

/// Judges a history.
pub fn check(history: &[Operation<Action>]) -> Findings {
    let seen: Vec<Seen> = history.iter().filter_map(seen).collect();
    let mut findings = Findings::default();
    let mut adds: BTreeMap<u64, Moment> = BTreeMap::new();
    for operation in history {
        let Action::Add(value) = operation.action else { continue };
        if adds.insert(value, operation.invoked).is_some() {
            findings.repeated.insert(value);
        }
        judge(&mut findings, operation, value, &seen);
    }
    for read in &seen {
        for (&value, &times) in &read.times {
            if adds.get(&value).is_none_or(|invoked| *invoked > read.ended) {
                findings.foreign.insert(value);
            } else if times > 1 {
                findings.doubled.insert(value);
            }
        }
    }
    findings
}

fn seen(operation: &Operation<Action>) -> Option<Seen> {
    let Action::Read(Some(values)) = &operation.action else { return None };
    let ended = operation.acknowledged()?;
    let mut times = HashMap::new();
    for value in values {
        *times.entry(*value).or_insert(0) += 1;
    }
    Some(Seen { invoked: operation.invoked, ended, times })
}

fn judge(findings: &mut Findings, add: &Operation<Action>, value: u64, seen: &[Seen]) {
    let has = |read: &&Seen| read.times.contains_key(&value);
    let first_seen = seen.iter().filter(has).map(|read| read.ended).min();
    let known = match add.outcome {
        Outcome::Failed => {
            findings.failed += 1;
            if first_seen.is_some() {
                findings.revived.insert(value);
            }
            return;
        }
        Outcome::Unknown => {
            findings.unknown += 1;
            let Some(first_seen) = first_seen else { return };
            findings.recovered.insert(value);
            first_seen
        }
        Outcome::Ok(at) => {
            findings.acknowledged += 1;
            if seen.iter().all(|read| read.invoked <= at) {
                findings.never_read.insert(value);
            }
            first_seen.map_or(at, |seen| seen.min(at))
        }
    };
    for without in seen.iter().filter(|read| read.invoked > known && !has(read)) {
        let is_back = seen.iter().filter(has).any(|read| read.invoked > without.ended);
        let found = if is_back { &mut findings.stale } else { &mut findings.lost };
        found.insert(value);
    }
}

impl Findings {
    /// The verdict with its evidence.
    pub fn verdict(&self) -> Verdict {
        let kinds = [
            (Anomaly::Lost, &self.lost, "acknowledged (or already seen) and missing in a later read"),
            (Anomaly::Stale, &self.stale, "missing in a read that began after the acknowledgement"),
            (Anomaly::Doubled, &self.doubled, "there more than once"),
            (Anomaly::Revived, &self.revived, "there although the add had failed"),
            (Anomaly::Foreign, &self.foreign, "there although nobody had added it"),
        ];
        let found = kinds.into_iter().filter(|(_, values, _)| !values.is_empty());
        let violations = found.map(|(anomaly, values, what)| {
            Violation::new(anomaly, format!("{} values are {what}: {}", values.len(), some_of(values)))
        });
        Verdict::of(violations.collect(), self.undecided())
    }

    fn undecided(&self) -> Option<String> {
        if !self.repeated.is_empty() {
            let values = some_of(&self.repeated);
            return Some(format!(
                "the workload added values more than once, so no answer tells which: {values}"
            ));
        }
        let unread = self.never_read.len();
        (unread > 0).then(|| {
            let values = some_of(&self.never_read);
            format!("nobody looked after {unread} acknowledged values were added: {values}")
        })
    }
}

/// The first few values, for a message.
fn some_of(values: &BTreeSet<u64>) -> String {
    let shown: Vec<String> = values.iter().take(5).map(ToString::to_string).collect();
    let more = if values.len() > shown.len() { ", ..." } else { "" };
    format!("{}{more}", shown.join(", "))
}
