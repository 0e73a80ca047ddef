//! Which run of this node's agent this is: peers and the proxy take the word of a higher one only.
//!
//! The wall clock gives the number, and it may have been set back since the last run: a machine that came up an hour fast and
//! was corrected would have an agent that nobody believes for an hour. So the last number is kept.

use std::io;
use std::path::Path;

use effects::files::write_atomic;

/// More than tables of routes are ever made in one run within the time that clocks are apart: their numbers count up from
/// the run's.
const APART: u64 = 1_000_000;

/// The number of a run that begins now (microseconds since the Unix epoch), higher than any before; kept in the file.
///
/// # Errors
/// When the file cannot be written. One that cannot be read counts as none: then the clock alone decides.
pub(super) fn next(file: &Path, now_us: i64) -> io::Result<u64> {
    let last: Option<u64> = std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok());
    let now = u64::try_from(now_us).unwrap_or(1);
    let next = last.map_or(now, |last| now.max(last.saturating_add(APART)));
    write_atomic(file, format!("{next}\n").as_bytes(), 0o644)?;
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_back_makes_no_run_older_than_the_one_before() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("incarnation");
        let hour = 3_600_000_000;
        let first = next(&file, 10 * hour).unwrap();
        assert_eq!(first, 36_000_000_000);
        let second = next(&file, 9 * hour).unwrap();
        assert!(second > first, "{second} after {first}");
        assert!(next(&file, 9 * hour).unwrap() > second);
        assert_eq!(next(&file, 11 * hour).unwrap(), 39_600_000_000, "a clock that is right decides again");
        std::fs::write(&file, "damaged").unwrap();
        assert_eq!(next(&file, 9 * hour).unwrap(), 32_400_000_000);
    }
}
