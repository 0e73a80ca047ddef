//! From what was seen to a verdict, without touching anything.

use std::time::Duration;

use model::NodeName;
use model::time::Moment;

use super::super::catalogue::{Plan, Step};
use super::super::checker::{self, Findings, Window};
use super::super::history::{Copy, History, Member, Outcome};
use super::super::report::{Run, millis};
use super::Options;
use super::watch::{Watched, redundant_from};

/// How much longer than the objective for the median one run may take.
const WORST: u32 = 3;

/// Answers that were under way when the links went may still arrive.
const UNDER_WAY: Duration = Duration::from_millis(20);

/// The moments of a run, and what was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Course {
    /// Before the fault's first act.
    pub(super) begun: Moment,
    /// After its last.
    pub(super) struck: Moment,
    /// Before the recovery's first act.
    pub(super) healing: Moment,
    /// From when redundancy is timed: after the recovery's last act, or the fault where nothing has to return.
    pub(super) returned: Moment,
    /// When full redundancy was believed, or patience ran out.
    pub(super) settled: Moment,
    /// Whether writes flowed again before the recovery.
    pub(super) flows: bool,
    /// What was done and by what it is known.
    pub(super) evidence: Vec<String>,
}

/// All that a verdict rests on.
pub(super) struct Case<'a> {
    pub(super) plan: &'a Plan,
    pub(super) options: &'a Options,
    pub(super) primary: &'a NodeName,
    pub(super) victim: &'a NodeName,
    pub(super) members: &'a [Member],
    pub(super) course: &'a Course,
    pub(super) watched: &'a [Watched],
    pub(super) history: &'a History,
    pub(super) copies: &'a [Copy],
    pub(super) unread: &'a [String],
}

/// The run's measurements and whether it passed.
pub(super) fn judge(case: &Case<'_>) -> Run {
    let Course { begun, healing, returned, settled, .. } = *case.course;
    let findings = checker::check(case.history, case.copies, case.members, case.options.lease);
    let outage = checker::longest_gap(case.history, Window { from: begun, until: healing });
    let heal = checker::longest_gap(case.history, Window { from: healing, until: settled });
    let redundancy = redundant_from(case.watched, returned).map(|at| at.since(returned));
    let after = case.watched.last().and_then(|last| last.primary.clone());
    let mut failures = findings.broken();
    failures.extend_from_slice(case.unread);
    failures.extend(outage_failures(case, outage, &findings));
    failures.extend(role_failures(case, after.as_ref()));
    failures.extend(fault_failures(case));
    failures.extend(redundancy_failures(case, redundancy));
    let size = |set: &std::collections::BTreeSet<u64>| u64::try_from(set.len()).unwrap_or(u64::MAX);
    Run {
        outage_ms: outage.map(millis),
        errors: findings.errors(),
        acknowledged: findings.acknowledged,
        lost: size(&findings.lost),
        doubled: size(&findings.doubled),
        redundancy_ms: redundancy.map(millis),
        failed: findings.failed,
        unknown: findings.unknown,
        healing_ms: heal.map(millis),
        direct: findings.direct,
        two_primaries: u64::try_from(findings.overlaps.len()).unwrap_or(u64::MAX),
        late_reads: findings.late_reads,
        primary_before: case.primary.to_string(),
        primary_after: after.map(|node| node.to_string()).unwrap_or_default(),
        evidence: case.course.evidence.clone(),
        passed: failures.is_empty(),
        failures,
    }
}

fn outage_failures(case: &Case<'_>, outage: Option<Duration>, findings: &Findings) -> Vec<String> {
    let expectation = &case.plan.expectation;
    let mut failures = Vec::new();
    match outage {
        Some(outage) if outage > expectation.outage * WORST => failures.push(format!(
            "writes stood still for {} ms, more than {WORST} times the objective of {} ms",
            millis(outage),
            millis(expectation.outage)
        )),
        Some(_) => {}
        None => failures.push("no write was acknowledged after the fault".to_owned()),
    }
    if !case.course.flows {
        let patience = case.options.patience.as_secs();
        failures.push(format!(
            "the system did not do what is expected within {patience} s: {}",
            expectation.words
        ));
    }
    if findings.errors() > 0 && !expectation.errors_allowed {
        let errors = case.history.writes.iter().filter_map(|write| match &write.outcome {
            Outcome::Acknowledged(_) => None,
            Outcome::Failed(why) | Outcome::Unknown(why) => Some(why),
        });
        let first = errors.map(String::as_str).next().unwrap_or_default();
        failures.push(format!(
            "the client saw {} errors where none may be, the first: {first}",
            findings.errors()
        ));
    }
    failures
}

fn role_failures(case: &Case<'_>, after: Option<&NodeName>) -> Option<String> {
    let changed = after.is_some_and(|after| after != case.primary);
    match (case.plan.expectation.primary_changes, changed) {
        (true, false) => Some(format!("{} is still the primary", case.primary)),
        (false, true) => {
            Some(format!("the primary changed from {} although nothing called for it", case.primary))
        }
        (true, true) | (false, false) => None,
    }
}

/// That the fault really happened, as seen from outside: who is dead, frozen or cut does not answer the prober.
fn fault_failures(case: &Case<'_>) -> Vec<String> {
    let Course { begun, struck, healing, .. } = *case.course;
    let answers = |member: &NodeName, from: Moment, until: Moment| {
        let from_member = case.history.answers.iter().filter(|answer| answer.member == *member);
        from_member.filter(|answer| answer.received >= from && answer.received < until).count()
    };
    let mut failures: Vec<String> = case
        .members
        .iter()
        .filter(|member| answers(&member.node, Moment::default(), begun) == 0)
        .map(|member| {
            format!("the prober never reached {} directly, so it proves nothing of it", member.node)
        })
        .collect();
    let silences = match (case.plan.fault)(case.victim.clone()) {
        Step::KillNode(_) | Step::FreezeNode(_) | Step::CutNode(_) => true,
        Step::KillPostmaster(_)
        | Step::KillAgent(_)
        | Step::Switchover(_)
        | Step::StartNode(_)
        | Step::ThawNode(_)
        | Step::HealNode(_) => false,
    };
    let heard = answers(case.victim, struck + UNDER_WAY, healing);
    if silences && heard > 0 {
        failures.push(format!("{} answered {heard} times while it should have been silent", case.victim));
    }
    if case.course.evidence.iter().any(|line| line.trim_end().ends_with(':')) {
        failures.push("there is no evidence that the fault happened".to_owned());
    }
    failures
}

fn redundancy_failures(case: &Case<'_>, redundancy: Option<Duration>) -> Vec<String> {
    let mut failures = Vec::new();
    if redundancy.is_none() {
        let missing = case.watched.last().and_then(|last| last.missing.clone());
        let missing = missing.unwrap_or_else(|| "no primary".to_owned());
        failures.push(format!("no full redundancy within {} s: {missing}", case.options.patience.as_secs()));
    }
    let since = case.course.begun;
    let noticed = case.watched.iter().any(|watched| watched.at >= since && watched.missing.is_some());
    if case.plan.expectation.must_notice && !noticed {
        failures.push("the system never said that its redundancy was gone".to_owned());
    }
    failures
}

#[cfg(test)]
mod tests;
