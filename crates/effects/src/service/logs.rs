//! What services print: appended by the processes themselves, rotated under them, read by people.
//!
//! A process writes to its log through a descriptor opened with `O_APPEND`, so no pump of ours has to live for it to go
//! on. Rotation therefore cannot rename the file away: it copies the old part to `NAME.1` and cuts it off the front. Where
//! the file system can cut (ext4, xfs: `FALLOC_FL_COLLAPSE_RANGE`) nothing is lost; elsewhere the file is truncated, and
//! what is written in the microseconds between copy and cut is.
//!
//! Rotation holds an exclusive lock (flock) on the log, reading a shared one. All calls block on the log's disk: run
//! them on a [`crate::disposable`] thread.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};

use model::ServiceName;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A log larger than this is rotated, in bytes.
    pub bytes: u64,
    /// How many files there are at most, the one written to included.
    pub files: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 10 << 20, files: 5 }
    }
}

/// The log of one instance in `directory`: `SERVICE.INSTANCE.log`.
pub fn path(directory: &Path, service: &ServiceName, instance: &str) -> PathBuf {
    directory.join(format!("{service}.{instance}.log"))
}

/// `LOG.number`: the older the higher.
fn rotated(log: &Path, number: u32) -> PathBuf {
    let name = log.file_name().unwrap_or_default().to_string_lossy();
    log.with_file_name(format!("{name}.{number}"))
}

/// Rotates `log` when it is larger than allowed; whether it was. A log that does not exist is fine.
///
/// # Errors
/// When a file cannot be read, written or renamed.
pub fn rotate(log: &Path, limits: Limits) -> io::Result<bool> {
    let file = match OpenOptions::new().read(true).write(true).open(log) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    if file.metadata()?.len() <= limits.bytes {
        return Ok(false);
    }
    flock(&file, FlockOperation::LockExclusive)?;
    let oldest = limits.files.saturating_sub(1);
    for number in (1..oldest).rev() {
        rename_if_there(&rotated(log, number), &rotated(log, number + 1))?;
    }
    if oldest == 0 {
        file.set_len(0)?;
    } else {
        move_front(&file, log, &rotated(log, 1))?;
    }
    Ok(true)
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Copies the front of `file` to `target` and cuts it off.
fn move_front(file: &File, log: &Path, target: &Path) -> io::Result<()> {
    let facts = file.metadata()?;
    let copy = log.with_extension("rotating");
    let mut open = OpenOptions::new();
    let mut out = open.write(true).create(true).truncate(true).mode(facts.mode() & 0o777).open(&copy)?;
    // Only whole blocks can be cut, and not up to the very end.
    let block = facts.blksize().max(1);
    let cut = (facts.len() - 1) / block * block;
    let mut copied = copy_range(file, &mut out, 0, cut)?;
    fs::rename(&copy, target)?;
    if cut > 0 && fallocate(file, FallocateFlags::COLLAPSE_RANGE, 0, cut).is_ok() {
        return Ok(());
    }
    // The last read and the cut follow each other as closely as they can.
    loop {
        let more = copy_range(file, &mut out, copied, u64::MAX)?;
        copied += more;
        if more == 0 {
            return file.set_len(0);
        }
    }
}

fn copy_range(file: &File, out: &mut File, from: u64, to: u64) -> io::Result<u64> {
    let mut source = file;
    source.seek(SeekFrom::Start(from))?;
    io::copy(&mut source.take(to - from), out)
}

/// The last `count` lines of a log and its older parts, oldest first. Bytes that are not UTF-8 are replaced.
///
/// # Errors
/// When a file cannot be read. No log at all is an empty result.
pub fn tail(log: &Path, count: usize) -> io::Result<Vec<String>> {
    let _lock = shared_lock(log)?;
    let mut bytes: Vec<u8> = Vec::new();
    let mut number = 0;
    // One line end more than lines, so that the first line is whole.
    while newlines(&bytes) <= count {
        let path = if number == 0 { log.to_owned() } else { rotated(log, number) };
        let Some(mut older) = end_of(&path, count + 1 - newlines(&bytes))? else { break };
        older.append(&mut bytes);
        bytes = older;
        number += 1;
    }
    let mut lines: VecDeque<String> = lines_of(&bytes).collect();
    lines.drain(..lines.len().saturating_sub(count));
    Ok(lines.into())
}

fn newlines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&byte| byte == b'\n').count()
}

fn lines_of(bytes: &[u8]) -> impl Iterator<Item = String> {
    let text = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let any = !bytes.is_empty();
    text.split(|&byte| byte == b'\n')
        .filter(move |_| any)
        .map(|line| String::from_utf8_lossy(line).into_owned())
}

/// The end of a file with at least `lines` line ends (or all of it); `None` when there is no such file.
fn end_of(path: &Path, lines: usize) -> io::Result<Option<Vec<u8>>> {
    const CHUNK: u64 = 64 * 1024;
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let end = file.metadata()?.len();
    let (mut from, mut bytes, mut found) = (end, Vec::new(), 0);
    while from > 0 && found < lines {
        let start = from.saturating_sub(CHUNK);
        let mut chunk = vec![0; usize::try_from(from - start).map_err(io::Error::other)?];
        file.read_exact_at(&mut chunk, start)?;
        found += newlines(&chunk);
        chunk.append(&mut bytes);
        (bytes, from) = (chunk, start);
    }
    Ok(Some(bytes))
}

/// Keeps a rotation out while the log is read; released when dropped. `None` when there is no log yet.
fn shared_lock(log: &Path) -> io::Result<Option<File>> {
    match File::open(log) {
        Ok(file) => {
            flock(&file, FlockOperation::LockShared)?;
            Ok(Some(file))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads what is appended to a log, also over its rotations.
#[derive(Debug)]
pub struct Follow {
    log: PathBuf,
    /// How far the log was read.
    offset: u64,
    /// The newest older part (device and inode), by which a rotation is noticed.
    older: Option<(u64, u64)>,
    /// A line whose end has not been written yet.
    partial: Vec<u8>,
}

impl Follow {
    /// Starts at the end of what is there now.
    ///
    /// # Errors
    /// When the log cannot be read. A log that does not exist yet is read from its beginning once it does.
    pub fn from_end(log: &Path) -> io::Result<Self> {
        let lock = shared_lock(log)?;
        let offset = lock.map_or(Ok(0), |file| file.metadata().map(|facts| facts.len()))?;
        Ok(Self { log: log.to_owned(), offset, older: identity(&rotated(log, 1))?, partial: Vec::new() })
    }

    /// The whole lines written since the last call. Call it every tenth of a second or so; parts older than the last
    /// rotation are gone.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn read(&mut self) -> io::Result<Vec<String>> {
        let Some(file) = shared_lock(&self.log)? else { return Ok(Vec::new()) };
        let older = rotated(&self.log, 1);
        let now = identity(&older)?;
        if now != self.older {
            self.older = now;
            self.after_rotation(&older)?;
        }
        // Somebody else emptied it.
        self.offset = self.offset.min(file.metadata()?.len());
        self.offset += read_from(&file, self.offset, &mut self.partial)?;
        Ok(self.take_lines())
    }

    /// What was before the cut lies in the older part; the rest moved to the front.
    fn after_rotation(&mut self, older: &Path) -> io::Result<()> {
        let file = File::open(older)?;
        let cut = file.metadata()?.len();
        if self.offset < cut {
            read_from(&file, self.offset, &mut self.partial)?;
        }
        self.offset = self.offset.saturating_sub(cut);
        Ok(())
    }

    fn take_lines(&mut self) -> Vec<String> {
        let Some(end) = self.partial.iter().rposition(|&byte| byte == b'\n') else { return Vec::new() };
        let rest = self.partial.split_off(end + 1);
        let whole = std::mem::replace(&mut self.partial, rest);
        lines_of(&whole).collect()
    }
}

fn identity(path: &Path) -> io::Result<Option<(u64, u64)>> {
    match fs::metadata(path) {
        Ok(facts) => Ok(Some((facts.dev(), facts.ino()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_from(file: &File, offset: u64, into: &mut Vec<u8>) -> io::Result<u64> {
    let mut source = file;
    source.seek(SeekFrom::Start(offset))?;
    Ok(source.read_to_end(into)? as u64)
}
