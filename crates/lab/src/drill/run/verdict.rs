//! From what was seen to a verdict, without touching anything.

mod waiting;

use std::collections::BTreeSet;
use std::time::Duration;

use effects::clock;
use model::NodeName;
use model::time::Moment;

use super::super::act::Shows;
use super::super::checker::{self, Findings, Window};
use super::super::history::{Answer, Copy, History, Member, Outcome, Write, Writer};
use super::super::plan::{Change, Plan, Writes};
use super::super::prober::ASK_EVERY;
use super::super::report::{Run, millis};
use super::super::step::Step;
use super::super::timeline::{Timeline, changes, longest, relative};
use super::Options;
use super::course::Course;
use super::watch::{Watched, redundant_from};
use crate::workload::{Judged, Kind};

/// Answers that were under way when the links went may still arrive.
const UNDER_WAY: Duration = Duration::from_millis(20);

/// All that a verdict rests on.
pub(super) struct Case<'a> {
    pub(super) plan: &'a Plan,
    pub(super) options: &'a Options,
    pub(super) primary: &'a NodeName,
    pub(super) members: &'a [Member],
    pub(super) course: &'a Course,
    pub(super) watched: &'a [Watched],
    pub(super) history: &'a History,
    pub(super) copies: &'a [Copy],
    pub(super) unread: &'a [String],
    pub(super) workloads: &'a [Judged],
    /// How many processes that were to be ended send log as before.
    pub(super) same_senders: usize,
}

/// The run's measurements and whether it passed.
pub(super) fn judge(case: &Case<'_>) -> Run {
    let Course { begun, healing, returned, settled, .. } = *case.course;
    let findings = checker::check(case.history, case.copies, case.members, case.options.lease);
    let outage = checker::longest_gap(case.history, Window { from: begun, until: healing });
    let heal = checker::longest_gap(case.history, Window { from: healing, until: settled });
    let redundancy = redundant_from(case.watched, returned).map(|at| at.since(returned));
    let after = case.watched.last().and_then(|last| last.primary.clone());
    let resumption = waiting::resumption(case);
    let left = left_set_after(case);
    let mut failures = broken(case, &findings);
    failures.extend_from_slice(case.unread);
    failures.extend(outage_failures(case, outage));
    failures.extend(waiting::failures(case, resumption));
    failures.extend(client_failures(case, &findings));
    failures.extend(role_failures(case, after.as_ref()));
    failures.extend(fault_failures(case));
    failures.extend(said_failures(case));
    failures.extend(set_failures(case, left));
    failures.extend(redundancy_failures(case, redundancy));
    failures.extend(workload_failures(case));
    let size = |set: &BTreeSet<u64>| u64::try_from(set.len()).unwrap_or(u64::MAX);
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
        flowing_ms: resumption.map(|resumption| millis(resumption.since_reachable)),
        flowing_from_start_ms: resumption.map(|resumption| millis(resumption.since_start)),
        left_set_ms: left.map(millis),
        reconnects: case.course.reconnects,
        primary_before: case.primary.to_string(),
        primary_after: after.map(|node| node.to_string()).unwrap_or_default(),
        evidence: case.course.deeds.iter().map(ToString::to_string).collect(),
        timeline: timeline(case),
        passed: failures.is_empty(),
        workloads: case.workloads.to_vec(),
        failures,
    }
}

/// The run in the order of time.
fn timeline(case: &Case<'_>) -> Timeline {
    let Course { begun, healing, settled, .. } = *case.course;
    let ms = |at: Moment| relative(begun, at);
    let writes = || case.history.writes.iter().filter(|write| write.by == Writer::Client);
    let is_acknowledged = |write: &&Write| matches!(write.outcome, Outcome::Acknowledged(_));
    let mut acknowledged: Vec<f64> = writes().filter(is_acknowledged).map(|write| ms(write.ended)).collect();
    acknowledged.sort_by(f64::total_cmp);
    let watched = || case.watched.iter();
    Timeline {
        begun_us: wall_us(begun),
        errors: writes().filter(|write| !is_acknowledged(write)).map(|write| ms(write.ended)).collect(),
        outage: longest(&acknowledged, ms(healing)),
        acknowledged,
        deeds: case.course.deeds.iter().map(|deed| (ms(deed.at), deed.what.clone())).collect(),
        primaries: changes(watched().map(|w| (ms(w.at), w.primary.as_ref().map(ToString::to_string)))),
        redundant: changes(watched().map(|w| (ms(w.at), w.missing.is_none()))),
        events: vec![],
        end: ms(settled),
    }
}

/// A moment of this boot by the wall clock, in microseconds since the Unix epoch.
fn wall_us(at: Moment) -> i64 {
    let ago = i64::try_from(clock::now().since(at).as_micros()).unwrap_or(i64::MAX);
    clock::wall_us().saturating_sub(ago)
}

/// Rules of the history that were broken. Where writes must be lost, having lost none is what breaks the rule.
fn broken(case: &Case<'_>, findings: &Findings) -> Vec<String> {
    if !case.plan.expectation.loses {
        return findings.broken();
    }
    let mut broken = Findings { lost: BTreeSet::new(), ..findings.clone() }.broken();
    if findings.lost.is_empty() {
        broken.push(
            "no acknowledged write is missing: the check found nothing where there must be something"
                .to_owned(),
        );
    }
    broken
}

fn outage_failures(case: &Case<'_>, outage: Option<Duration>) -> Vec<String> {
    let expectation = &case.plan.expectation;
    let mut failures = Vec::new();
    match (outage, expectation.outage) {
        (Some(outage), Some(objective)) if outage > objective * expectation.worst => {
            let (outage, worst, objective) = (millis(outage), expectation.worst, millis(objective));
            failures.push(match worst {
                1 => format!("writes stood still for {outage} ms, more than {objective} ms"),
                _ => format!(
                    "writes stood still for {outage} ms, more than {worst} times the objective of {objective} ms"
                ),
            });
        }
        (Some(_), Some(_) | None) => {}
        (None, _) => failures.push("no write was acknowledged after the fault".to_owned()),
    }
    if !case.course.flows {
        let patience = case.options.patience.as_secs();
        let words = expectation.words;
        failures.push(format!("the system did not do what is expected within {patience} s: {words}"));
    }
    failures
}

/// What the client saw and should not have seen.
fn client_failures(case: &Case<'_>, findings: &Findings) -> Vec<String> {
    let expectation = &case.plan.expectation;
    let mut failures = Vec::new();
    if findings.errors() > 0 && !expectation.errors_allowed {
        let by_client = case.history.writes.iter().filter(|write| write.by == Writer::Client);
        let errors = by_client.filter_map(|write| match &write.outcome {
            Outcome::Acknowledged(_) => None,
            Outcome::Failed(why) | Outcome::Unknown(why) => Some(why),
        });
        let first = errors.map(String::as_str).next().unwrap_or_default();
        failures.push(format!(
            "the client saw {} errors where none may be, the first: {first}",
            findings.errors()
        ));
    }
    if case.course.reconnects > 0 && !expectation.reconnects_allowed {
        failures.push(format!(
            "the client had to connect anew {} times, where its connection should have lived on",
            case.course.reconnects
        ));
    }
    failures
}

fn role_failures(case: &Case<'_>, after: Option<&NodeName>) -> Vec<String> {
    match case.plan.expectation.primary {
        Change::Any => vec![],
        Change::Stays => other_primaries(case, case.primary, case.course.begun)
            .map(|_| format!("the primary changed from {} although nothing called for it", case.primary))
            .into_iter()
            .collect(),
        Change::Changes => match after {
            Some(after) if after != case.primary => unsteady(case, after).into_iter().collect(),
            Some(_) | None => vec![format!("{} is still the primary", case.primary)],
        },
    }
}

/// Taking the fault back is a fault too: it may not cost the new primary its place, not even for a moment.
fn unsteady(case: &Case<'_>, after: &NodeName) -> Option<String> {
    if case.plan.recovery.is_empty() {
        return None;
    }
    let Course { healing, settled, .. } = *case.course;
    let led =
        checker::leaderships(case.history, case.members, Window { from: healing, until: settled }).len();
    match (other_primaries(case, after, healing), led) {
        (Some(other), _) => Some(format!(
            "taking the fault back moved the primary: {other} was one meanwhile, {after} is now"
        )),
        (None, 0 | 1) => None,
        (None, led) => Some(format!(
            "taking the fault back demoted {after} for a moment: {led} leaderships acknowledged writes"
        )),
    }
}

/// A primary other than `this` that the system named since `from`.
fn other_primaries<'c>(case: &'c Case<'_>, this: &NodeName, from: Moment) -> Option<&'c NodeName> {
    let since = case.watched.iter().filter(|watched| watched.at >= from);
    since.filter_map(|watched| watched.primary.as_ref()).find(|primary| *primary != this)
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
    for victim in case.plan.silenced() {
        let heard = answers(victim, struck + UNDER_WAY, healing);
        if heard > 0 {
            failures.push(format!("{victim} answered {heard} times while it should have been silent"));
        }
    }
    failures.extend(case.plan.fault.iter().filter_map(|step| process_untouched(case, step)));
    let links: BTreeSet<String> =
        case.plan.fault.iter().flat_map(|step| links_untouched(case, step)).collect();
    failures.extend(links);
    if case.course.deeds.iter().any(|deed| deed.proof.trim().is_empty()) {
        failures.push("there is no evidence that the fault happened".to_owned());
    }
    failures
}

/// That an agent which was killed is another one now, one that was stopped did not answer, and connections that were to end did.
fn process_untouched(case: &Case<'_>, step: &Step) -> Option<String> {
    let Course { begun, struck, healing, .. } = *case.course;
    let node = step.nodes().first()?;
    match step.shows() {
        Shows::AnotherAgent => {
            let run_at = |when: &dyn Fn(Moment) -> bool| {
                let seen = case.watched.iter().filter(|watched| when(watched.at));
                seen.filter_map(|watched| watched.answering.get(node)).next_back().copied()
            };
            let (before, after) = (run_at(&|at| at < begun), run_at(&|at| at >= struck));
            (before.is_some() && before == after)
                .then(|| format!("the agent of {node} is the one it was before: nobody killed it"))
        }
        Shows::SilentAgent => {
            let meanwhile = |watched: &&Watched| watched.at >= struck + UNDER_WAY && watched.at < healing;
            let answered = |watched: &Watched| watched.answering.contains_key(node);
            let mut during = case.watched.iter().filter(meanwhile).peekable();
            (during.peek().is_some() && during.all(answered))
                .then(|| format!("the agent of {node} answered all the time: nobody stopped it"))
        }
        Shows::EndedConnection => (case.course.reconnects == 0)
            .then(|| format!("the client's connection through {node} lived on: nobody ended it")),
        Shows::OtherSenders => (case.same_senders > 0).then(|| {
            format!("{} WAL senders of {node} are those of before: nobody ended them", case.same_senders)
        }),
        Shows::Silence | Shows::Nothing | Shows::Late { .. } | Shows::Pause(_) => None,
    }
}

/// How many answers of a member the prober's two askers get in so long when nothing is in their way.
fn at_rest(within: Duration) -> usize {
    usize::try_from(2 * within.as_millis() / ASK_EVERY.as_millis()).unwrap_or(usize::MAX)
}

/// That the answers of a node with bad links came late, or hardly ever, or not for a while.
fn links_untouched(case: &Case<'_>, step: &Step) -> Vec<String> {
    let Course { begun, healing, .. } = *case.course;
    let within = |from: Moment| move |answer: &&Answer| answer.sent >= from && answer.received < healing;
    let answers = |node: &NodeName, from: Moment| {
        let of_node = case.history.answers.iter().filter(move |answer| answer.member == *node);
        of_node.filter(within(from)).collect::<Vec<_>>()
    };
    let missed = |node: &NodeName| match step.shows() {
        Shows::Late { percent, by } => {
            let answers = answers(node, case.course.struck);
            let late = answers.iter().filter(|answer| answer.received.since(answer.sent) >= by).count();
            let silent = answers.len() < at_rest(healing.since(case.course.struck)) / 4;
            (!silent && late * 100 < answers.len() * usize::from(percent)).then(|| {
                format!(
                    "only {late} of {} answers of {node} took {} ms or more: its links were good",
                    answers.len(),
                    by.as_millis()
                )
            })
        }
        Shows::Pause(least) => {
            let mut received: Vec<Moment> =
                answers(node, begun).iter().map(|answer| answer.received).collect();
            received.sort();
            let longest = received.windows(2).map(|pair| pair[1].since(pair[0])).max().unwrap_or(least);
            (longest < least).then(|| {
                format!(
                    "{node} was never silent for longer than {} ms: nobody cut it off",
                    longest.as_millis()
                )
            })
        }
        Shows::Nothing
        | Shows::Silence
        | Shows::AnotherAgent
        | Shows::SilentAgent
        | Shows::EndedConnection
        | Shows::OtherSenders => None,
    };
    step.nodes().iter().filter_map(missed).collect()
}

/// What the system must say of itself while the fault lasts, and did not.
fn said_failures(case: &Case<'_>) -> Vec<String> {
    let said = case.course.deeds.iter().find(|deed| deed.what == Step::AskStatus.to_string());
    let lacks = |words: &&&str| !said.is_some_and(|said| said.proof.contains(**words));
    let missing = case.plan.expectation.status.iter().filter(lacks);
    missing.map(|words| format!("the status does not say \"{words}\"")).collect()
}

/// What the workloads' checkers found. The set has been judged with the outage's own client; where writes must be lost, the
/// others may find it too.
fn workload_failures(case: &Case<'_>) -> Vec<String> {
    let others = case.workloads.iter().filter(|judged| judged.workload != Kind::Set.name());
    match case.plan.expectation.loses {
        true => Vec::new(),
        false => others.flat_map(Judged::failures).collect(),
    }
}

/// How long after the fault the victim was out of the sync set.
fn left_set_after(case: &Case<'_>) -> Option<Duration> {
    case.plan.expectation.leaves_set?;
    let victims = case.plan.victims();
    let Course { begun, healing, .. } = *case.course;
    let out = |watched: &&Watched| {
        let within = watched.at >= begun && watched.at < healing;
        within
            && watched.confirming.as_ref().is_some_and(|set| !victims.iter().any(|node| set.contains(node)))
    };
    case.watched.iter().find(out).map(|watched| watched.at.since(begun))
}

fn set_failures(case: &Case<'_>, left: Option<Duration>) -> Option<String> {
    let limit = case.plan.expectation.leaves_set?;
    match left {
        Some(left) if left <= limit => None,
        Some(left) => {
            Some(format!("the sync set shrank after {} ms, later than {} ms", millis(left), millis(limit)))
        }
        None => Some("the sync set never shrank".to_owned()),
    }
}

fn redundancy_failures(case: &Case<'_>, redundancy: Option<Duration>) -> Vec<String> {
    let mut failures = Vec::new();
    match (redundancy, case.plan.expectation.redundancy) {
        (None, _) => {
            let missing = case.watched.last().and_then(|last| last.missing.clone());
            let missing = missing.unwrap_or_else(|| "no primary".to_owned());
            let patience = case.options.patience.as_secs();
            failures.push(format!("no full redundancy within {patience} s: {missing}"));
        }
        (Some(took), Some(limit)) if took > limit => {
            failures.push(format!("full redundancy took {} ms, more than {} ms", millis(took), millis(limit)))
        }
        (Some(_), Some(_) | None) => {}
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
