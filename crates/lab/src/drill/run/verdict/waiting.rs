//! Faults that writes have to wait for: that they waited, and how soon they flowed again.

use std::time::Duration;

use model::NodeName;
use model::time::Moment;

use super::{Case, Course, UNDER_WAY, Writes, checker, millis};
use crate::drill::history::Writer;

/// When writes flowed again after the first of the nodes had been started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Resumption {
    /// From the moment the node could be reached.
    pub(super) since_reachable: Duration,
    /// From the moment it was switched on.
    pub(super) since_start: Duration,
}

/// When writes flowed again; `None` where they need not wait, or never flowed.
pub(super) fn resumption(case: &Case<'_>) -> Option<Resumption> {
    let Course { healing, returned, .. } = *case.course;
    let resumed = checker::first_after(case.history, healing)?;
    let reachable = match (case.plan.expectation.writes, &case.course.first) {
        (Writes::GoOn, _) | (Writes::WaitForFirst(_), None) => return None,
        (Writes::WaitForFirst(_), Some(node)) => reachable(case, node)?,
        (Writes::WaitForAll(_) | Writes::MayWait(_), _) => returned,
    };
    Some(Resumption { since_reachable: resumed.since(reachable), since_start: resumed.since(healing) })
}

/// When the agent of the node, or its PostgreSQL, answered first.
fn reachable(case: &Case<'_>, node: &NodeName) -> Option<Moment> {
    let Course { healing, .. } = *case.course;
    let agent =
        case.watched.iter().find(|watched| watched.at >= healing && watched.answering.contains_key(node));
    let answers = case.history.answers.iter();
    let postgres = answers.filter(|answer| answer.member == *node && answer.received >= healing);
    agent.map(|watched| watched.at).into_iter().chain(postgres.map(|answer| answer.received)).min()
}

/// What is wrong with how writes waited.
pub(super) fn failures(case: &Case<'_>, resumption: Option<Resumption>) -> Vec<String> {
    let (limit, early) = match case.plan.expectation.writes {
        Writes::GoOn => return vec![],
        Writes::WaitForFirst(limit) | Writes::WaitForAll(limit) => (limit, acknowledged_meanwhile(case)),
        Writes::MayWait(limit) => (limit, 0),
    };
    let mut failures = Vec::new();
    if early > 0 {
        failures.push(format!("{early} writes were acknowledged while nobody could confirm them"));
    }
    match resumption {
        Some(resumption) if resumption.since_reachable > limit => failures.push(format!(
            "writes flowed {} ms after the return, later than {} ms",
            millis(resumption.since_reachable),
            millis(limit)
        )),
        Some(_) => {}
        None => failures.push("writes did not flow again after the return".to_owned()),
    }
    failures
}

fn acknowledged_meanwhile(case: &Case<'_>) -> usize {
    let Course { struck, healing, .. } = *case.course;
    let meanwhile = |at: Moment| at >= struck + UNDER_WAY && at < healing;
    let writes = case.history.writes.iter();
    writes
        .filter(|write| match write.by {
            Writer::Client | Writer::Prober => write.server().is_some() && meanwhile(write.ended),
        })
        .count()
}
