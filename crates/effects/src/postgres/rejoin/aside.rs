//! Keeping the log that a rewind throws away: it is the only copy of commits that nobody confirmed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use model::leadership::Term;
use model::postgres::WalPosition;

use super::super::volume;

/// At most this much log is kept of one divergence, the oldest part of it.
const MOST_BYTES: u64 = 1 << 30;

/// The log of this many divergences is kept, the newest.
const MOST_KEPT: usize = 3;

const PREFIX: &str = "diverged-";

/// Copies the log files from `common` on into `database/diverged-<term>/`. Returns the directory, `None` when there was
/// nothing to keep.
pub(super) fn keep(database: &Path, common: WalPosition, term: Term) -> io::Result<Option<PathBuf>> {
    let source = database.join("data/pg_wal");
    let mut names = diverged_files(&source, common)?;
    names.sort();
    if names.is_empty() {
        return Ok(None);
    }
    let target = database.join(format!("{PREFIX}{}", term.0));
    volume::remove_all(&target)?;
    volume::make_directory(&target, 0o700, None)?;
    let mut bytes = 0;
    for name in names {
        bytes += fs::metadata(source.join(&name))?.len();
        if bytes > MOST_BYTES {
            break;
        }
        // A copy, not a hard link: a rewind writes into the files it finds.
        fs::copy(source.join(&name), target.join(&name))?;
    }
    fs::File::open(&target)?.sync_all()?;
    forget_old(database)?;
    Ok(Some(target))
}

/// The segments that hold log after `common`: of its timeline those from its segment on, and all of later timelines (a
/// segment is named by timeline, then position).
fn diverged_files(directory: &Path, common: WalPosition) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(|error| volume::in_words("read", directory, &error))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some((timeline, begins)) = segment_begin(&name, entry.metadata()?.len()) else { continue };
        let segment = entry.metadata()?.len();
        if timeline >= common.timeline.0 && begins + segment > common.lsn.0 {
            found.push(name);
        }
    }
    Ok(found)
}

/// Timeline and first byte of a segment file of `size` bytes; `None` for other files.
fn segment_begin(name: &str, size: u64) -> Option<(u32, u64)> {
    if name.len() != 24 || size == 0 {
        return None;
    }
    let part = |range| u32::from_str_radix(name.get(range)?, 16).ok();
    let (timeline, log, number) = (part(0..8)?, part(8..16)?, part(16..24)?);
    Some((timeline, (u64::from(log) << 32) + u64::from(number) * size))
}

fn forget_old(database: &Path) -> io::Result<()> {
    let mut terms: Vec<u64> = fs::read_dir(database)?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix(PREFIX)?.parse().ok())
        .collect();
    terms.sort_unstable();
    terms.truncate(terms.len().saturating_sub(MOST_KEPT));
    terms.into_iter().try_for_each(|term| volume::remove_all(&database.join(format!("{PREFIX}{term}"))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::postgres::{Lsn, Timeline};

    #[test]
    fn segments_are_found_by_timeline_and_position() {
        const SIZE: u64 = 16 << 20;
        assert_eq!(segment_begin("000000020000000100000003", SIZE), Some((2, (1 << 32) + 3 * SIZE)));
        assert_eq!(segment_begin("00000002.history", SIZE), None);
        assert_eq!(segment_begin("00000002000000010000000Z", SIZE), None);
    }

    #[test]
    fn the_log_after_the_common_position_is_kept_of_the_newest_divergences() {
        let database = tempfile::tempdir().unwrap();
        let wal = database.path().join("data/pg_wal");
        fs::create_dir_all(&wal).unwrap();
        for number in 1..=4 {
            fs::write(wal.join(format!("00000001000000000000000{number}")), vec![number; 64]).unwrap();
        }
        let common = WalPosition { timeline: Timeline(1), lsn: Lsn(3 * 64 + 1) };
        for term in 1..=4 {
            let kept = keep(database.path(), common, Term(term)).unwrap().unwrap();
            assert_eq!(fs::read_dir(kept).unwrap().count(), 2);
        }
        assert!(!database.path().join("diverged-1").exists());
        assert!(database.path().join("diverged-4/000000010000000000000004").exists());
        let nothing = WalPosition { timeline: Timeline(1), lsn: Lsn(9 * 64) };
        assert_eq!(keep(database.path(), nothing, Term(9)).unwrap(), None);
    }
}
