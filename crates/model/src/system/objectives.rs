//! What is promised to the users of a system.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::duration;

/// The promises, which the design is checked against and drills are measured against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Objectives {
    /// The part of a year in which the system works; `None`: nothing promised.
    pub availability: Option<Availability>,
    /// Recovery time objective: the longest outage one fault may cause.
    #[serde(with = "duration")]
    pub rto: Duration,
    /// Recovery point objective: the newest acknowledged writes that one fault may lose, as a time.
    #[serde(with = "duration")]
    pub rpo: Duration,
}

impl Default for Objectives {
    /// Nothing promised about availability, repair within five seconds, no acknowledged write lost.
    fn default() -> Self {
        Self { availability: None, rto: Duration::from_secs(5), rpo: Duration::ZERO }
    }
}

/// A part of time in which a system works, as exact parts per billion; written `99.99%`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Availability {
    parts_per_billion: u32,
}

/// A text that is not an availability.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AvailabilityError {
    /// Not `digits[.digits]%`.
    #[error("it is not a percentage such as 99.9%")]
    Form,
    /// 0 % or less, 100 % or more.
    #[error("it is not above 0% and below 100%")]
    Range,
    /// More digits than mean anything.
    #[error("it has more than seven digits after the point")]
    Digits,
}

/// One percent in parts per billion.
const PERCENT: u64 = 10_000_000;
/// A mean Gregorian year.
const YEAR: Duration = Duration::from_secs(31_556_952);

impl Availability {
    /// As a number between 0 and 1.
    pub fn fraction(self) -> f64 {
        f64::from(self.parts_per_billion) / 1e9
    }

    /// How long the system may be down in a year.
    pub fn downtime_per_year(self) -> Duration {
        let missing = 1_000_000_000 - u64::from(self.parts_per_billion);
        Duration::from_millis(YEAR.as_secs() * missing / 1_000_000)
    }
}

impl FromStr for Availability {
    type Err = AvailabilityError;

    fn from_str(text: &str) -> Result<Self, AvailabilityError> {
        let number = text.strip_suffix('%').ok_or(AvailabilityError::Form)?.trim_end();
        let (whole, digits) = number.split_once('.').unwrap_or((number, "0"));
        let is_number = |s: &str| !s.is_empty() && s.chars().all(|c| c.is_ascii_digit());
        if !is_number(whole) || !is_number(digits) {
            return Err(AvailabilityError::Form);
        }
        if digits.len() > 7 {
            return Err(AvailabilityError::Digits);
        }
        let whole: u64 = whole.parse().map_err(|_| AvailabilityError::Range)?;
        let part: u64 = format!("{digits:0<7}").parse().map_err(|_| AvailabilityError::Form)?;
        let parts = whole.checked_mul(PERCENT).and_then(|w| w.checked_add(part));
        let parts = parts.filter(|p| (1..100 * PERCENT).contains(p)).ok_or(AvailabilityError::Range)?;
        Ok(Self { parts_per_billion: u32::try_from(parts).map_err(|_| AvailabilityError::Range)? })
    }
}

impl fmt::Display for Availability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = u64::from(self.parts_per_billion);
        let digits = format!("{:07}", parts % PERCENT);
        match digits.trim_end_matches('0') {
            "" => write!(f, "{}%", parts / PERCENT),
            digits => write!(f, "{}.{digits}%", parts / PERCENT),
        }
    }
}

impl fmt::Debug for Availability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Availability {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Availability {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_exact() {
        for text in ["99.99%", "99%", "99.9999999%", "0.5%", "50%"] {
            assert_eq!(text.parse::<Availability>().unwrap().to_string(), text);
        }
        let four: Availability = "99.99%".parse().unwrap();
        assert_eq!(four.downtime_per_year().as_secs(), 3155);
    }

    #[test]
    fn what_is_no_percentage_is_refused_with_the_reason() {
        for (text, error) in [
            ("99.99", AvailabilityError::Form),
            ("%", AvailabilityError::Form),
            ("-1%", AvailabilityError::Form),
            ("100%", AvailabilityError::Range),
            ("0%", AvailabilityError::Range),
            ("999999999999999999999%", AvailabilityError::Range),
            ("99.99999999%", AvailabilityError::Digits),
        ] {
            assert_eq!(text.parse::<Availability>(), Err(error), "{text}");
        }
    }
}
