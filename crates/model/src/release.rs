//! Releases: which artefact the instances of a service run from, and how a new one takes over.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{JobName, ServiceName};

/// Old releases whose artefacts stay on the nodes, so that going back to one needs no copying.
pub const KEPT: usize = 3;

/// Ended releases that the history shows.
const REMEMBERED: usize = 20;

/// Coordination key `releases`.
pub type Releases = BTreeMap<ServiceName, Service>;

/// The releases of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// The one that serves; `None` before the first.
    #[serde(default)]
    pub current: Option<Release>,
    /// The one that takes over now.
    #[serde(default)]
    pub rollout: Option<Rollout>,
    /// Those before, the newest first.
    #[serde(default)]
    pub history: Vec<Past>,
}

/// One release of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Counts up within the service, from 1.
    pub number: u64,
    /// The artefact.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// What the operator named.
    pub from: String,
    /// When it was asked for, in microseconds since the Unix epoch.
    pub at_us: i64,
}

/// The SHA-256 of an artefact's bytes: 64 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// What is no digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no SHA-256: 64 hexadecimal digits")]
pub struct NotADigest(String);

impl TryFrom<String> for Digest {
    type Error = NotADigest;

    fn try_from(text: String) -> Result<Self, NotADigest> {
        let good = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if good {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(NotADigest(text.chars().take(80).collect()))
        }
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Digest {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Enough of it for a person.
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

/// A release on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// What takes over.
    pub release: Release,
    /// How.
    pub strategy: Strategy,
    /// How long instances must have worked before the next step, in milliseconds.
    pub bake_ms: u64,
    /// How long instances may take to become ready, in milliseconds.
    pub ready_within_ms: u64,
    /// How many requests of each release are compared at least, where there are so many.
    pub sample: u64,
    /// How many instances the service has all the while, where their number follows the load otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<u32>,
    /// The job of which one run must succeed before anything changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<JobName>,
    /// Where it is.
    pub phase: Phase,
    /// Why it is there, in one sentence.
    pub because: String,
}

/// How a release takes over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// A new instance, then an old one goes, and so on.
    Rolling,
    /// The new release gets these percentages of the requests, one after another, while all old instances stay.
    Canary(Vec<u8>),
    /// All new instances are started beside the old ones; then all requests go to them.
    BlueGreen,
}

/// Where a rollout is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The artefact is copied to every node; nothing has changed yet.
    Staging,
    /// The job that it needs runs, once in the system; nothing has changed yet.
    Before,
    /// A step of the strategy, from 0.
    Step(u32),
    /// The old release takes over again.
    RollingBack,
}

/// A release that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    /// Which one.
    pub release: Release,
    /// Whether it served; false when it was taken back.
    pub served: bool,
    /// Why it ended.
    pub because: String,
    /// The run of a job that did not succeed, so that the release was not begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_run: Option<FailedRun>,
}

/// A run of a job that a release needed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedRun {
    /// The job.
    pub job: JobName,
    /// The number of the run.
    pub number: u64,
    /// What it printed last.
    pub last_lines: Vec<String>,
}

impl Service {
    /// The number of the next release.
    pub fn next_number(&self) -> u64 {
        let past = self.history.iter().map(|past| past.release.number);
        let now = self.current.iter().chain(self.rollout.iter().map(|rollout| &rollout.release));
        past.chain(now.map(|release| release.number)).max().unwrap_or(0) + 1
    }

    /// The release before the current one that served.
    pub fn previous(&self) -> Option<&Release> {
        let current = self.current.as_ref().map(|release| &release.digest);
        let served = self.history.iter().filter(|past| past.served);
        served.map(|past| &past.release).find(|release| Some(&release.digest) != current)
    }

    /// The artefacts that every node should have.
    pub fn kept(&self) -> BTreeSet<Digest> {
        let served = self.history.iter().filter(|past| past.served).take(KEPT).map(|past| &past.release);
        let now = self.current.iter().chain(self.rollout.iter().map(|rollout| &rollout.release));
        now.chain(served).map(|release| release.digest.clone()).collect()
    }

    /// The release with this number, if its artefact is still kept or was not long ago.
    pub fn find(&self, number: u64) -> Option<&Release> {
        let now = self.current.iter().chain(self.rollout.iter().map(|rollout| &rollout.release));
        now.chain(self.history.iter().map(|past| &past.release)).find(|release| release.number == number)
    }

    /// The release on its way serves from now on.
    pub fn completed(&mut self) {
        let Some(rollout) = self.rollout.take() else { return };
        if let Some(before) = self.current.replace(rollout.release) {
            let because = "the next release took over".to_owned();
            self.remember(Past { release: before, served: true, because, failed_run: None });
        }
    }

    /// The release on its way is taken back.
    pub fn abandoned(&mut self) {
        self.abandoned_after(None);
    }

    /// The release on its way is not begun because of a run of a job, or taken back.
    pub fn abandoned_after(&mut self, failed_run: Option<FailedRun>) {
        let Some(Rollout { release, because, .. }) = self.rollout.take() else { return };
        self.remember(Past { release, served: false, because, failed_run });
    }

    fn remember(&mut self, past: Past) {
        self.history.insert(0, past);
        self.history.truncate(REMEMBERED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(number: u64) -> Release {
        let digest = Digest::try_from(format!("{number:064}")).unwrap();
        Release { number, digest, size: 1, from: "./build".to_owned(), at_us: 0 }
    }

    fn rollout(number: u64) -> Rollout {
        Rollout {
            release: release(number),
            strategy: Strategy::Rolling,
            bake_ms: 0,
            ready_within_ms: 0,
            sample: 0,
            instances: None,
            before: None,
            phase: Phase::Staging,
            because: "slow".to_owned(),
        }
    }

    #[test]
    fn what_served_can_come_back_and_what_was_taken_back_cannot() {
        let mut service = Service::default();
        for number in 1..=6 {
            assert_eq!(service.next_number(), number);
            service.rollout = Some(rollout(number));
            if number == 6 { service.abandoned() } else { service.completed() }
        }
        assert_eq!(service.current.as_ref().unwrap().number, 5);
        assert_eq!(service.previous().unwrap().number, 4);
        assert_eq!(service.kept(), [2, 3, 4, 5].map(|number| release(number).digest).into());
        assert_eq!(service.next_number(), 7);
        assert_eq!((service.history[0].served, service.history[0].because.as_str()), (false, "slow"));
    }

    #[test]
    fn a_digest_is_64_hexadecimal_digits_and_nothing_else() {
        for text in ["", "12", &"g".repeat(64), &"a".repeat(65), "../../etc/passwd"] {
            assert!(Digest::try_from(text.to_owned()).is_err(), "{text}");
        }
        assert_eq!(Digest::try_from("AB".repeat(32)).unwrap().as_str(), "ab".repeat(32));
        assert!(serde_json::from_str::<Digest>("\"../x\"").is_err());
    }
}
