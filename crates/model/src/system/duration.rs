//! Durations as people write them: `250ms`, `5s`, `1m30s`, `30d`.
//!
//! The module also serves as `#[serde(with = "duration")]`, so that stored JSON reads like the system file.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer, de};

/// The units, longest first, with their length in milliseconds.
const UNITS: [(&str, u64); 6] =
    [("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Why a text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Nothing there.
    #[error("it is empty")]
    Empty,
    /// Time does not run backwards.
    #[error("it is negative")]
    Negative,
    /// `5` of what?
    #[error("the number {0} has no unit")]
    NoUnit(String),
    /// A unit that does not exist.
    #[error("`{0}` is not a unit of time")]
    UnknownUnit(String),
    /// Something that is not a number where one must stand.
    #[error("`{0}` is not a whole number")]
    NoNumber(String),
    /// More than 100 years.
    #[error("it is longer than 100 years")]
    TooLong,
}

/// Reads one or more whole numbers with a unit: `250ms`, `5s`, `1m30s`, `2h`, `30d`, `1w`.
///
/// # Errors
/// Says which part of the text is not a duration.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(DurationError::Empty);
    }
    if rest.starts_with('-') {
        return Err(DurationError::Negative);
    }
    let mut millis = 0_u64;
    while !rest.is_empty() {
        let (number, after) = split_while(rest, |c| c.is_ascii_digit());
        let (unit, after) = split_while(after, |c| !c.is_ascii_digit());
        let amount = amount(number, unit)?;
        millis =
            millis.checked_add(amount).filter(|ms| *ms <= HUNDRED_YEARS).ok_or(DurationError::TooLong)?;
        rest = after;
    }
    Ok(Duration::from_millis(millis))
}

/// Longer durations are a mistake, and refusing them keeps sums of durations far from overflow.
const HUNDRED_YEARS: u64 = 100 * 366 * 86_400_000;

fn split_while(text: &str, keep: fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !keep(c)).unwrap_or(text.len()))
}

fn amount(number: &str, unit: &str) -> Result<u64, DurationError> {
    if number.is_empty() {
        return Err(DurationError::NoNumber(unit.to_owned()));
    }
    let unit = unit.trim();
    if unit.is_empty() {
        return Err(DurationError::NoUnit(number.to_owned()));
    }
    let (_, length) = UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(|| DurationError::UnknownUnit(unit.to_owned()))?;
    number.parse::<u64>().ok().and_then(|n| n.checked_mul(*length)).ok_or(DurationError::TooLong)
}

/// Writes a duration the way [`parse`] reads it, in the fewest parts; parts below a millisecond are dropped.
pub fn format(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if rest == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    // Weeks are read but not written: "30d" is what people expect to see again.
    for (unit, length) in UNITS.iter().skip(1) {
        let count = rest / length;
        rest %= length;
        if count > 0 {
            text.push_str(&count.to_string());
            text.push_str(unit);
        }
    }
    text
}

/// For `#[serde(with = "duration")]`.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*duration))
}

/// For `#[serde(with = "duration")]`.
///
/// # Errors
/// When the text is not a duration.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_write_durations_in_many_ways() {
        for (text, millis) in [
            ("0s", 0),
            ("250ms", 250),
            ("5s", 5_000),
            ("1m30s", 90_000),
            ("90s", 90_000),
            ("2 h", 7_200_000),
            ("30d", 2_592_000_000),
            ("1w", 604_800_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "it is empty"),
            ("  ", "it is empty"),
            ("-5s", "it is negative"),
            ("5", "the number 5 has no unit"),
            ("5sec", "`sec` is not a unit of time"),
            ("1.5s", "`.` is not a unit of time"),
            ("soon", "`soon` is not a whole number"),
            ("99999999999999999999s", "it is longer than 100 years"),
            ("101w5299w", "it is longer than 100 years"),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), reason, "{text}");
        }
    }

    #[test]
    fn what_is_written_can_be_read_again() {
        for millis in [0, 1, 999, 1_000, 61_001, 86_400_000, 31 * 86_400_000 + 5] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse(&format(duration)), Ok(duration));
        }
        assert_eq!(format(Duration::from_millis(2_592_000_000)), "30d");
    }
}
