//! Amounts of memory as people write them: `512MiB`, `2GiB`.

use serde::{Deserialize, Deserializer, Serializer, de};

/// The units with their bytes, the largest first.
const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// A text that is not an amount of memory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is a whole number with one of the units KiB, MiB, GiB, TiB")]
pub struct SizeError;

/// Reads a whole number with a unit: `512MiB`, `2 GiB`; in bytes.
///
/// # Errors
/// When it is something else, or more than 64 bits can count.
pub fn parse(text: &str) -> Result<u64, SizeError> {
    let text = text.trim();
    let (unit, bytes) = UNITS.iter().find(|(unit, _)| text.ends_with(unit)).ok_or(SizeError)?;
    let number = text.strip_suffix(unit).unwrap_or_default().trim_end();
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = number.parse().ok().filter(|_| digits).ok_or(SizeError)?;
    number.checked_mul(*bytes).ok_or(SizeError)
}

/// Writes an amount the way [`parse`] reads it, in the largest unit that divides it.
pub fn format(bytes: u64) -> String {
    let unit = UNITS.iter().find(|(_, size)| bytes >= *size && bytes.is_multiple_of(*size));
    let (unit, size) = unit.unwrap_or(&UNITS[3]);
    format!("{}{unit}", bytes.div_ceil(*size))
}

/// For `#[serde(with = "size::optional")]`.
pub mod optional {
    use super::{Deserialize, Deserializer, Serializer, de, format, parse};

    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(bytes: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => serializer.serialize_some(&format(*bytes)),
            None => serializer.serialize_none(),
        }
    }

    /// # Errors
    /// When the text is not an amount of memory.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| parse(&text).map_err(de::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_they_are_written() {
        for (text, bytes) in [("512MiB", 512 << 20), ("2GiB", 2 << 30), ("1KiB", 1024), ("1TiB", 1 << 40)] {
            assert_eq!(parse(text), Ok(bytes));
            assert_eq!(format(bytes), text);
        }
        assert_eq!(parse(" 64 MiB "), Ok(64 << 20));
        assert_eq!(format(1536 << 20), "1536MiB");
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in
            ["", "512", "512MB", "MiB", "-1MiB", "1.5GiB", "+1GiB", "99999999999999999999GiB", "20000000TiB"]
        {
            assert_eq!(parse(text), Err(SizeError), "{text}");
        }
    }
}
