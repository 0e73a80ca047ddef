//! What has to be done once before a release: one run of the job that its service names, such as a migration.
//!
//! The run is asked for with the release's own words. Whoever leads, and however often it asks, gets the same run, and what
//! came of it is agreed on like that of any other run.

use model::jobs::{JobRecord, Run, RunState};
use model::release::{Digest, FailedRun, Phase, Releases};
use model::system::{Job, System};
use model::{JobName, ServiceName};

use crate::jobs;

/// The words by which a release asks for its run.
pub fn words(service: &ServiceName, number: u64) -> String {
    format!("release {number} of {service}")
}

/// The runs that releases need now: each job with the words to ask with.
pub fn needed(releases: &Releases) -> Vec<(&JobName, String)> {
    let rollouts = releases.iter().filter_map(|(name, service)| Some((name, service.rollout.as_ref()?)));
    let before = rollouts.filter(|(_, rollout)| rollout.phase == Phase::Before);
    before
        .filter_map(|(name, rollout)| Some((rollout.before.as_ref()?, words(name, rollout.release.number))))
        .collect()
}

/// The artefact that a run of a job starts from: that of the release that asked for it, else of the one that serves.
pub fn artefact<'r>(
    releases: &'r Releases,
    system: &System,
    job: &JobName,
    asked_by: Option<&str>,
) -> Option<&'r Digest> {
    let asks = |(name, service): (&ServiceName, &'r model::release::Service)| {
        let number = asked_by?.strip_prefix("release ")?.strip_suffix(name.as_str())?.strip_suffix(" of ")?;
        service.find(number.parse().ok()?).map(|release| &release.digest)
    };
    let serves = |(name, service): (&ServiceName, &'r model::release::Service)| {
        let config = system.services.get(name)?;
        let current = service.current.as_ref().map(|release| &release.digest);
        current.filter(|_| config.release.before.as_ref() == Some(job))
    };
    releases.iter().find_map(asks).or_else(|| releases.iter().find_map(serves))
}

/// How far the run is that a release waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Errand {
    /// Not over; one sentence says what is waited for.
    Open(String),
    /// It succeeded, with this number.
    Done(u64),
    /// The release cannot be begun.
    Failed {
        /// Why, in one sentence.
        because: String,
        /// The run, if there was one.
        run: Option<FailedRun>,
    },
}

/// How far the run is that was asked for with these words. `job` is what the file in force says of it.
pub fn errand(name: &JobName, job: Option<&Job>, record: Option<&JobRecord>, by: &str) -> Errand {
    let none = JobRecord::default();
    let record = record.unwrap_or(&none);
    let of_release = |run: &&Run| jobs::asked_by(record, run) == Some(by);
    match (record.runs.iter().rev().find(of_release), job) {
        (Some(run), _) => of_run(name, job, record, run),
        (None, None) => Errand::Failed {
            because: format!("the system file does not describe the job {name} any more"),
            run: None,
        },
        (None, Some(_)) => Errand::Open(match record.open() {
            Some(run) => {
                format!("run {} of {name} {}, and a job never runs beside itself", run.number, run.state)
            }
            None => format!("a run of {name} is asked for"),
        }),
    }
}

fn of_run(name: &JobName, job: Option<&Job>, record: &JobRecord, run: &Run) -> Errand {
    let number = run.number;
    let failed = |because: &str, last_lines: &[String]| {
        let said = last_lines.last().map(|line| format!("; it said last: {line}")).unwrap_or_default();
        Errand::Failed {
            because: format!("run {number} of {name} {because}{said}"),
            run: Some(FailedRun { job: name.clone(), number, last_lines: last_lines.to_vec() }),
        }
    };
    match &run.state {
        // Nobody gives it to a node any more.
        RunState::Waiting if job.is_none() => {
            failed("cannot begin: the system file does not describe the job any more", &[])
        }
        RunState::Waiting | RunState::Given { .. } | RunState::Running { .. } => {
            Errand::Open(format!("run {number} of {name} {}", run.state))
        }
        RunState::Succeeded(_) => Errand::Done(number),
        RunState::Failed { because, last_lines, .. } => failed(&format!("failed: it {because}"), last_lines),
        RunState::Unknown { because, .. } => {
            match job.and_then(|job| jobs::to_repeat(job, record)).filter(|of| *of == number) {
                Some(_) => Errand::Open(format!("run {number} of {name} is to be repeated: {because}")),
                None => failed(&format!("has an unknown outcome: {because}"), &[]),
            }
        }
        RunState::Withdrawn { because, .. } => failed(&format!("never began: {because}"), &[]),
    }
}

#[cfg(test)]
mod tests;
