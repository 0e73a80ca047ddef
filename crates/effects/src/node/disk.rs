//! Whether a disk answers, and how much is free on it.
//!
//! A disk is asked in a process that can be abandoned: a thread of ours that hangs on it could not be killed and would
//! keep our sockets and locks open after our death, so that no other agent could start.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::time::Moment;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::process::{Process, ProcessId, ToolCommand, ToolError, ToolOutput, adopt, run_tool};

/// What is known about the file system that holds a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "disk")]
pub enum Disk {
    /// It answered.
    Known {
        /// When it was asked.
        as_of: Moment,
        /// Its size in bytes.
        total_bytes: u64,
        /// Bytes that programs without special rights can still write.
        free_bytes: u64,
        /// What a small flushed write said: full, read-only, ...; `None` when it succeeded.
        write_error: Option<String>,
    },
    /// It does not answer.
    Unknown {
        /// When it was first asked without an answer.
        since: Moment,
        /// How that showed.
        because: String,
    },
}

/// Asks one disk again and again, and never twice at the same time.
#[derive(Debug)]
pub struct DiskWatch {
    directory: PathBuf,
    stuck: Mutex<Option<Stuck>>,
}

#[derive(Debug)]
struct Stuck {
    since: Moment,
    because: String,
    process: Option<Process>,
}

/// The file that the flushed write goes to. It is overwritten, so a full disk refuses it only when nothing at all can
/// be allocated.
const PROBE_FILE: &str = ".mainstay-disk-probe";

impl DiskWatch {
    /// Watches the file system that holds `directory`, which must be writable for us.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), stuck: Mutex::new(None) }
    }

    /// Writes and flushes one block, then reads the free space, each in a child process; both within `deadline`. While an
    /// earlier child hangs no other is started.
    pub async fn look(&self, deadline: Duration) -> Disk {
        if let Some(unknown) = self.still_stuck() {
            return unknown;
        }
        let as_of = clock::now();
        let written = run_tool(self.write(deadline)).await.and_then(ToolOutput::checked);
        let write_error = match written {
            Ok(_) => None,
            Err(ToolError::Failed { stderr, .. }) => Some(reason(&stderr)),
            Err(error) => return self.unknown(as_of, &error),
        };
        let left = deadline.saturating_sub(clock::now().since(as_of));
        let space = run_tool(self.space(left)).await.and_then(ToolOutput::checked);
        match space {
            Ok(output) => {
                let (total_bytes, free_bytes) = parse_space(&output.stdout).unwrap_or((0, 0));
                *self.lock() = None;
                Disk::Known { as_of, total_bytes, free_bytes, write_error }
            }
            Err(error) => self.unknown(as_of, &error),
        }
    }

    fn write(&self, deadline: Duration) -> ToolCommand {
        let file = format!("of={}", self.directory.join(PROBE_FILE).display());
        let args = ["if=/dev/zero", &file, "bs=4096", "count=1", "conv=notrunc,fsync", "status=none"];
        ToolCommand { env: vec![("LC_ALL".into(), "C".into())], ..ToolCommand::new("dd", args, deadline) }
    }

    fn space(&self, deadline: Duration) -> ToolCommand {
        let directory = self.directory.display().to_string();
        ToolCommand::new("stat", ["-f", "-c", "%S %b %a", &directory], deadline)
    }

    /// The last look, while its child still hangs.
    fn still_stuck(&self) -> Option<Disk> {
        let stuck = self.lock();
        let stuck = stuck.as_ref().filter(|stuck| stuck.process.as_ref().is_some_and(Process::is_alive))?;
        Some(Disk::Unknown { since: stuck.since, because: stuck.because.clone() })
    }

    /// Unknown since the first look in a row that was not answered.
    fn unknown(&self, as_of: Moment, error: &ToolError) -> Disk {
        let because = format!("{}: {error}", self.directory.display());
        let process = match error {
            ToolError::Stuck { pid, .. } => ProcessId::of(*pid).and_then(adopt),
            ToolError::Start(_) | ToolError::TimedOut { .. } | ToolError::Failed { .. } => None,
        };
        let mut stuck = self.lock();
        let since = stuck.as_ref().map_or(as_of, |stuck| stuck.since);
        *stuck = Some(Stuck { since, because: because.clone(), process });
        Disk::Unknown { since, because }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Stuck>> {
        self.stuck.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The last part of `dd: failed to open 'X': No space left on device`.
fn reason(stderr: &str) -> String {
    let line = stderr.trim().lines().next().unwrap_or_default();
    line.rsplit(": ").next().unwrap_or(line).to_owned()
}

/// Block size, blocks and available blocks to (total, free) bytes.
fn parse_space(text: &str) -> Option<(u64, u64)> {
    let mut numbers = text.split_ascii_whitespace().map(|word| word.parse::<u64>().ok());
    let (block, total, free) = (numbers.next()??, numbers.next()??, numbers.next()??);
    Some((block * total, block * free))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_the_tools_are_understood() {
        assert_eq!(parse_space("4096 1000 250\n"), Some((4_096_000, 1_024_000)));
        assert_eq!(parse_space("4096 1000"), None);
        assert_eq!(reason("dd: failed to open '/x/y': Read-only file system\n"), "Read-only file system");
    }
}
