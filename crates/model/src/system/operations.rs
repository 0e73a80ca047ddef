//! Alarms and backups: who hears of trouble, and what is kept.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::duration;

/// Who hears of trouble.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarms {
    /// `https://`, `http://` or `mailto:` addresses.
    pub notify: Vec<String>,
}

/// The backups of one database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// `s3://bucket/prefix` or `file:///directory`.
    pub repository: String,
    /// When a base backup is taken, in UTC.
    pub schedule: Schedule,
    /// How far back a restore must be possible.
    #[serde(with = "duration")]
    pub keep: Duration,
}

/// When a base backup is taken, in UTC; written `hourly`, `daily 03:00`, `weekly sunday 03:00`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// At the full hour.
    Hourly,
    /// Once a day.
    Daily {
        /// 0 to 23.
        hour: u8,
        /// 0 to 59.
        minute: u8,
    },
    /// Once a week.
    Weekly {
        /// The day.
        day: Weekday,
        /// 0 to 23.
        hour: u8,
        /// 0 to 59.
        minute: u8,
    },
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Weekday {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

/// A text that is not a schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not `hourly`, `daily HH:MM` or `weekly DAY HH:MM`")]
pub struct ScheduleError;

impl Weekday {
    const ALL: [(Self, &'static str); 7] = [
        (Self::Monday, "monday"),
        (Self::Tuesday, "tuesday"),
        (Self::Wednesday, "wednesday"),
        (Self::Thursday, "thursday"),
        (Self::Friday, "friday"),
        (Self::Saturday, "saturday"),
        (Self::Sunday, "sunday"),
    ];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(day, _)| *day == self).map_or("", |(_, name)| name)
    }
}

const HOUR: i64 = 3600;
const A_DAY: i64 = 24 * HOUR;
const WEEK: i64 = 7 * A_DAY;

impl Schedule {
    /// The latest due time that is not after `now`, both in seconds since the Unix epoch.
    pub fn latest(self, now: i64) -> i64 {
        let minutes = |hour: u8, minute: u8| i64::from(hour) * HOUR + i64::from(minute) * 60;
        // 1970 began on a Thursday: its first Monday was the fifth day.
        const FIRST_MONDAY: i64 = 4 * A_DAY;
        let offset = match self {
            Self::Hourly => 0,
            Self::Daily { hour, minute } => minutes(hour, minute),
            Self::Weekly { day, hour, minute } => {
                let place = Weekday::ALL.iter().position(|(of, _)| *of == day).unwrap_or_default();
                FIRST_MONDAY + i64::try_from(place).unwrap_or_default() * A_DAY + minutes(hour, minute)
            }
        };
        now - (now - offset).rem_euclid(self.period())
    }

    /// The time between two due times, in seconds.
    pub fn period(self) -> i64 {
        match self {
            Self::Hourly => HOUR,
            Self::Daily { .. } => A_DAY,
            Self::Weekly { .. } => WEEK,
        }
    }
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let words: Vec<&str> = text.split_whitespace().collect();
        match words[..] {
            ["hourly"] => Ok(Self::Hourly),
            ["daily", at] => {
                let (hour, minute) = clock(at)?;
                Ok(Self::Daily { hour, minute })
            }
            ["weekly", day, at] => {
                let (hour, minute) = clock(at)?;
                let (day, _) =
                    Weekday::ALL.into_iter().find(|(_, name)| *name == day).ok_or(ScheduleError)?;
                Ok(Self::Weekly { day, hour, minute })
            }
            _ => Err(ScheduleError),
        }
    }
}

fn clock(text: &str) -> Result<(u8, u8), ScheduleError> {
    let (hour, minute) = text.split_once(':').ok_or(ScheduleError)?;
    let number = |s: &str, below: u8| {
        let digits = s.len() == 2 && s.chars().all(|c| c.is_ascii_digit());
        s.parse::<u8>().ok().filter(|n| digits && *n < below).ok_or(ScheduleError)
    };
    Ok((number(hour, 24)?, number(minute, 60)?))
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hourly => f.write_str("hourly"),
            Self::Daily { hour, minute } => write!(f, "daily {hour:02}:{minute:02}"),
            Self::Weekly { day, hour, minute } => write!(f, "weekly {} {hour:02}:{minute:02}", day.name()),
        }
    }
}

impl Serialize for Schedule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Schedule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_read_as_they_are_written() {
        for text in ["hourly", "daily 03:00", "weekly sunday 23:59"] {
            assert_eq!(text.parse::<Schedule>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "daily",
            "daily 3:00",
            "daily 24:00",
            "weekly 03:00",
            "weekly someday 03:00",
            "daily 03:00 x",
        ] {
            assert_eq!(text.parse::<Schedule>(), Err(ScheduleError), "{text}");
        }
    }
}
