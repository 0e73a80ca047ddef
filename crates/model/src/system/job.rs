//! Jobs: programs that run once at a time somewhere in the system, when they are due or asked for.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::operations::{Schedule, ScheduleError};
use super::service::Placement;
use super::{duration, placeholder, size};

/// A program that runs to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Program and arguments, with placeholders. Never empty.
    pub command: Vec<String>,
    /// Environment variables, with placeholders.
    pub env: BTreeMap<String, String>,
    /// Where it may run.
    pub placement: Placement,
    /// When it is due, in UTC; `None`: only when it is asked for.
    pub schedule: Option<JobSchedule>,
    /// How long a run may take before it is ended.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// Whether a run of unknown outcome is repeated.
    pub repeat_if_unknown: bool,
    /// The most memory that a run may use, in bytes.
    #[serde(default, with = "size::optional", skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// The operating system user it runs as when the agent is root; `None`: the agent's own user, or `nobody` for root.
    pub user: Option<String>,
}

impl Job {
    /// Whether its command or environment names `{release}`: then it runs from a release of the service that names it.
    pub fn needs_release(&self) -> bool {
        self.command.iter().chain(self.env.values()).any(|text| placeholder::uses_release(text))
    }
}

/// When a job is due, in UTC; written `every 5m`, `hourly`, `daily 03:00`, `weekly sunday 03:00`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobSchedule {
    /// Again and again, counted from the beginning of 1970, so that every node finds the same times.
    Every(Duration),
    /// By the calendar.
    Calendar(Schedule),
}

/// The shortest time between two due times: each run is agreed on by a majority, which costs a few flushed writes.
pub const SHORTEST: Duration = Duration::from_secs(10);

/// A text that is not a schedule of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobScheduleError {
    /// It is something else.
    #[error("it is not `every 5m`, `hourly`, `daily HH:MM` or `weekly DAY HH:MM`")]
    Form,
    /// It is due too often.
    #[error("it is due more often than every 10 s, which is what `services` are for")]
    TooOften,
}

impl From<ScheduleError> for JobScheduleError {
    fn from(_: ScheduleError) -> Self {
        Self::Form
    }
}

impl FromStr for JobSchedule {
    type Err = JobScheduleError;

    fn from_str(text: &str) -> Result<Self, JobScheduleError> {
        let Some(every) = text.trim().strip_prefix("every ") else {
            return Ok(Self::Calendar(text.parse()?));
        };
        let every = duration::parse(every).map_err(|_| JobScheduleError::Form)?;
        if every < SHORTEST || every.subsec_nanos() != 0 {
            return Err(JobScheduleError::TooOften);
        }
        Ok(Self::Every(every))
    }
}

impl JobSchedule {
    /// The latest due time that is not after `now`, both in seconds since the Unix epoch.
    pub fn latest(self, now: i64) -> i64 {
        match self {
            Self::Every(every) => {
                let every = i64::try_from(every.as_secs()).unwrap_or(i64::MAX).max(1);
                now - now.rem_euclid(every)
            }
            Self::Calendar(schedule) => schedule.latest(now),
        }
    }

    /// The first due time after `now`.
    pub fn next(self, now: i64) -> i64 {
        let latest = self.latest(now);
        let step = match self {
            Self::Every(every) => i64::try_from(every.as_secs()).unwrap_or(i64::MAX).max(1),
            Self::Calendar(schedule) => schedule.period(),
        };
        latest.saturating_add(step)
    }
}

impl fmt::Display for JobSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every(every) => write!(f, "every {}", duration::format(*every)),
            Self::Calendar(schedule) => schedule.fmt(f),
        }
    }
}

impl Serialize for JobSchedule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for JobSchedule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(text: &str) -> JobSchedule {
        text.parse().unwrap()
    }

    #[test]
    fn schedules_read_as_they_are_written() {
        for text in ["every 5m", "every 1h30m", "hourly", "daily 03:00", "weekly sunday 23:59"] {
            assert_eq!(schedule(text).to_string(), text);
        }
        for (text, error) in [
            ("every", JobScheduleError::Form),
            ("every day", JobScheduleError::Form),
            ("5m", JobScheduleError::Form),
            ("daily 24:00", JobScheduleError::Form),
            ("every 9s", JobScheduleError::TooOften),
            ("every 0s", JobScheduleError::TooOften),
            ("every 10s500ms", JobScheduleError::TooOften),
        ] {
            assert_eq!(text.parse::<JobSchedule>(), Err(error), "{text}");
        }
    }

    #[test]
    fn due_times_are_the_same_for_everybody() {
        // Monday, 23 November 2026, 20:46:40 UTC.
        const NOW: i64 = 1_795_466_800;
        for (text, ago) in [
            ("every 5m", 100),
            ("hourly", 46 * 60 + 40),
            ("daily 03:00", 17 * 3600 + 46 * 60 + 40),
            ("daily 20:47", 24 * 3600 - 20),
            ("weekly monday 20:46", 40),
            ("weekly sunday 03:00", 24 * 3600 + 17 * 3600 + 46 * 60 + 40),
            ("weekly tuesday 00:00", 6 * 24 * 3600 + 20 * 3600 + 46 * 60 + 40),
        ] {
            let schedule = schedule(text);
            let latest = schedule.latest(NOW);
            assert_eq!(NOW - latest, ago, "{text}");
            assert_eq!(schedule.latest(latest), latest, "{text}: a due time is its own latest");
            assert!(schedule.latest(latest - 1) < latest, "{text}");
            let next = schedule.next(NOW);
            assert!(
                next > NOW && schedule.latest(next) == next && schedule.latest(next - 1) == latest,
                "{text}"
            );
        }
    }
}
