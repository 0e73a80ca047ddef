//! When does a job run, where, and what is known of how it ended?
//!
//! Every answer is the record as it should be next, to be committed by compare-and-set. A run is begun in two steps: the
//! leader gives it to a node, and that node says that it begins before it does. Between the two nothing has happened yet,
//! so that a run may be given to another node; after the second, a node that dies leaves an unknown outcome.

use std::collections::BTreeSet;
use std::time::Duration;

use model::jobs::{Cause, Ended, JobRecord, Run, RunState};
use model::system::Job;
use model::{JobName, NodeName};

use crate::leadership::Refusal;

/// How often in a row a run of unknown outcome is repeated.
const REPEATS: usize = 3;

/// How long nobody may begin a run that a release waits for.
const BEGIN_LIMIT: Duration = Duration::from_secs(120);

/// How long a leader may not have heard of a release that waits for a run.
const HEARSAY: Duration = Duration::from_secs(5);

/// The words by which operators ask for runs.
pub const OPERATOR: &str = "an operator";

/// A record that has seen to times further ahead than this was written by a clock that was wrong.
const WRONG_CLOCK: i64 = 2 * 24 * 3600;

/// What the leader knows about one job.
pub struct Question<'q> {
    /// What the file says.
    pub job: &'q Job,
    /// What was agreed on, if anything was.
    pub record: Option<&'q JobRecord>,
    /// The wall clock, in microseconds since the Unix epoch.
    pub now_us: i64,
    /// The nodes that may run it and are heard, in the order of their names.
    pub able: &'q [NodeName],
    /// The nodes that are dead by the word of a majority.
    pub lost: &'q BTreeSet<NodeName>,
    /// Whether the newest run is still to begin.
    pub standing: &'q Standing,
}

/// Whether a run that has not begun, or is to be repeated, is still to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is.
    Wanted,
    /// The leader has not heard of the release that asked for it, or not yet.
    Unclear,
    /// It is not, for this reason.
    Withdrawn(String),
}

/// What the record should be next, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The record.
    pub next: JobRecord,
    /// One sentence, where something worth telling has changed.
    pub because: Option<String>,
}

/// What the leader does about a job; `None` when nothing.
pub fn lead(question: &Question<'_>) -> Option<Decision> {
    let now = question.now_us.div_euclid(1_000_000);
    let none = JobRecord::default();
    let record = question.record.unwrap_or(&none);
    let schedule = question.job.schedule;
    if record.schedule != schedule {
        let latest = schedule.map_or(record.seen_to, |schedule| schedule.latest(now));
        let next = JobRecord { schedule, seen_to: latest.max(record.seen_to), ..record.clone() };
        return Some(Decision { next, because: None });
    }
    match record.open() {
        Some(run) => see_to(question, record, run),
        None => begin(question, record, now),
    }
}

/// What becomes of a run that is not over.
fn see_to(question: &Question<'_>, record: &JobRecord, run: &Run) -> Option<Decision> {
    let number = run.number;
    let give = |because: String| {
        let node = choose(question.able, number)?;
        let next = record.turned(number, RunState::Given { node: node.clone() });
        Some(Decision { next, because: Some(format!("run {number} begins on {node}: {because}")) })
    };
    if let (RunState::Waiting | RunState::Given { .. }, standing) = (&run.state, question.standing) {
        match standing {
            Standing::Wanted => {}
            Standing::Unclear => return None,
            Standing::Withdrawn(because) => {
                let state = RunState::Withdrawn { at_us: question.now_us, because: because.clone() };
                let told = format!("run {number} never began: {because}");
                return Some(Decision { next: record.turned(number, state), because: Some(told) });
            }
        }
    }
    match &run.state {
        RunState::Waiting => give(run.cause.to_string()),
        RunState::Given { node } if !question.able.contains(node) && question.lost.contains(node) => {
            give(format!("{node} was lost before it began"))
        }
        RunState::Running { node, since_us, .. } if question.lost.contains(node) => {
            let because = format!("{node} was lost while it ran");
            let told = format!("nobody can tell how run {number} ended: {because}");
            let ended = Ended { node: node.clone(), since_us: *since_us, until_us: question.now_us };
            let next = record.turned(number, RunState::Unknown { ended, because });
            Some(Decision { next, because: Some(told) })
        }
        RunState::Given { .. }
        | RunState::Running { .. }
        | RunState::Succeeded(_)
        | RunState::Failed { .. }
        | RunState::Unknown { .. }
        | RunState::Withdrawn { .. } => None,
    }
}

/// Whether another run begins.
fn begin(question: &Question<'_>, record: &JobRecord, now: i64) -> Option<Decision> {
    if let Some(of) = to_repeat(question.job, record).filter(|_| *question.standing == Standing::Wanted) {
        return Some(given(question, record, Cause::Repeat { of }));
    }
    let schedule = question.job.schedule?;
    let latest = schedule.latest(now);
    if record.seen_to > now.saturating_add(WRONG_CLOCK).max(schedule.next(now)) {
        let because = "times that a wrong clock took for past are still to come".to_owned();
        let next = JobRecord { seen_to: latest, ..record.clone() };
        return Some(Decision { next, because: Some(because) });
    }
    if latest <= record.seen_to {
        return None;
    }
    let record = JobRecord { seen_to: latest, ..record.clone() };
    let cause = Cause::Due { at: latest };
    if record.runs.iter().any(|run| run.cause == cause) {
        // Clocks differ: another leader's was ahead, and was put right meanwhile.
        return Some(Decision { next: record, because: None });
    }
    Some(given(question, &record, cause))
}

/// A further run, given to a node where there is one.
fn given(question: &Question<'_>, record: &JobRecord, cause: Cause) -> Decision {
    let number = record.last().map_or(1, |run| run.number + 1);
    let why = cause.to_string();
    let (state, because) = match choose(question.able, number) {
        Some(node) => {
            (RunState::Given { node: node.clone() }, format!("run {number} begins on {node}: {why}"))
        }
        None => (RunState::Waiting, format!("run {number} waits for a node that may run it: {why}")),
    };
    Decision { next: record.with(cause, state).0, because: Some(because) }
}

/// Whether a run is still to begin, for which releases with these words wait, and which has been to begin for so long.
pub fn standing(record: &JobRecord, waiting: &BTreeSet<String>, waited: Duration) -> Standing {
    let Some(by) = record.last().and_then(|run| asked_by(record, run)).filter(|by| *by != OPERATOR) else {
        return Standing::Wanted;
    };
    if waiting.contains(by) {
        return match waited >= BEGIN_LIMIT {
            false => Standing::Wanted,
            true => Standing::Withdrawn(format!("no node began it within {} s", BEGIN_LIMIT.as_secs())),
        };
    }
    match waited >= HEARSAY {
        false => Standing::Unclear,
        true => Standing::Withdrawn(format!("{by} does not wait for it any more")),
    }
}

/// Who asked for a run, or for the one that it repeats; `None` when it was due.
pub fn asked_by<'r>(record: &'r JobRecord, run: &'r Run) -> Option<&'r str> {
    let mut run = run;
    loop {
        match &run.cause {
            Cause::Due { .. } => return None,
            Cause::Asked { by } => return Some(by),
            // Numbers go up: this ends.
            Cause::Repeat { of } => run = record.run(*of).filter(|before| before.number < run.number)?,
        }
    }
}

/// The number of the run to repeat.
pub(crate) fn to_repeat(job: &Job, record: &JobRecord) -> Option<u64> {
    let last = record.last().filter(|_| job.repeat_if_unknown)?;
    let is_unknown = |run: &&Run| matches!(run.state, RunState::Unknown { .. });
    let repeated = record.runs.iter().rev().take_while(is_unknown);
    let repeats = repeated.take_while(|run| matches!(run.cause, Cause::Repeat { .. })).count();
    (is_unknown(&last) && repeats < REPEATS).then_some(last.number)
}

/// Runs go round the nodes.
fn choose(able: &[NodeName], number: u64) -> Option<&NodeName> {
    let count = u64::try_from(able.len()).ok().filter(|count| *count > 0)?;
    able.get(usize::try_from(number % count).unwrap_or_default())
}

/// A run that somebody asks for: the record and the number of the run. Whoever asks again with the same words, as a
/// release does after its leader died, gets the run that there is; an operator gets a new one each time.
///
/// # Errors
/// While another run is under way.
pub fn request(
    name: &JobName,
    record: Option<&JobRecord>,
    by: &str,
    is_operator: bool,
) -> Result<(Option<JobRecord>, u64), Refusal> {
    let cause = Cause::Asked { by: by.to_owned() };
    let none = JobRecord::default();
    let record = record.unwrap_or(&none);
    if let Some(run) = record.runs.iter().rev().find(|run| !is_operator && run.cause == cause) {
        return Ok((None, run.number));
    }
    if let Some(run) = record.open() {
        return Err(Refusal::new(
            format!("run {} of {name} {}", run.number, run.state),
            format!("a job never runs beside itself; `mainstay job history {name}` shows when it ends"),
        ));
    }
    let (next, number) = record.with(cause, RunState::Waiting);
    Ok((Some(next), number))
}

/// The run that `me` is to begin, with the record that says that it does.
pub fn claim(record: &JobRecord, me: &NodeName, incarnation: u64, now_us: i64) -> Option<(JobRecord, u64)> {
    let run = record.open()?;
    match &run.state {
        RunState::Given { node } if node == me => {
            let state = RunState::Running { node: node.clone(), incarnation, since_us: now_us };
            Some((record.turned(run.number, state), run.number))
        }
        RunState::Given { .. }
        | RunState::Waiting
        | RunState::Running { .. }
        | RunState::Succeeded(_)
        | RunState::Failed { .. }
        | RunState::Unknown { .. }
        | RunState::Withdrawn { .. } => None,
    }
}

/// How a run ended, as its own node saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With exit code 0.
    Succeeded,
    /// Otherwise.
    Failed {
        /// How.
        because: String,
        /// What it printed last.
        last_lines: Vec<String>,
    },
    /// Nobody can tell.
    Unknown {
        /// Why.
        because: String,
    },
}

/// The record in which `me` says how its run ended; `None` when that is said already. A node that was taken for lost may
/// know better than the others.
pub fn ended(
    record: &JobRecord,
    number: u64,
    me: &NodeName,
    outcome: &Outcome,
    now_us: i64,
) -> Option<JobRecord> {
    let (since_us, is_known) = match &record.run(number)?.state {
        RunState::Running { node, since_us, .. } if node == me => (*since_us, false),
        RunState::Unknown { ended, .. } if ended.node == *me => (ended.since_us, true),
        RunState::Running { .. }
        | RunState::Unknown { .. }
        | RunState::Waiting
        | RunState::Given { .. }
        | RunState::Succeeded(_)
        | RunState::Failed { .. }
        | RunState::Withdrawn { .. } => return None,
    };
    let ended = Ended { node: me.clone(), since_us, until_us: now_us };
    let state = match outcome.clone() {
        Outcome::Succeeded => RunState::Succeeded(ended),
        Outcome::Failed { because, last_lines } => RunState::Failed { ended, because, last_lines },
        Outcome::Unknown { .. } if is_known => return None,
        Outcome::Unknown { because } => RunState::Unknown { ended, because },
    };
    Some(record.turned(number, state))
}

#[cfg(test)]
mod tests;
