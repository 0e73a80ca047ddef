//! Copying a member anew. The old data is kept until the copy is complete and verified.

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::super::control::ControlError;
use super::super::session::left;
use super::super::volume::{self, FileError};
use super::super::{Member, REPLICATION_ROLE, Remains, Source, environment, slot_name};
use super::manifest;
use crate::process::{self, Exit, Process, Signal, Spawn, ToolError, ToolOutput, run_tool};

/// How often the copying tool's progress is read.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How long verifying and flushing a copy may take. They are as fast as the disk, and the copy took longer to come.
const MAY_TAKE: Duration = Duration::from_secs(6 * 3600);

/// How far a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloneProgress {
    /// Copied so far, in KiB.
    pub done_kib: u64,
    /// The source's estimate of the whole, in KiB; grows with the log that is written meanwhile.
    pub total_kib: u64,
}

/// A member with a new data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cloned {
    /// PostgreSQL's identifier of the cluster it now belongs to.
    pub system_identifier: u64,
    /// How long it took.
    pub took: Duration,
}

/// Why a member was not cloned. The old data, if there was any, is still in place.
#[derive(Debug, thiserror::Error)]
pub enum CloneError {
    /// Processes still work in the data directory.
    #[error(transparent)]
    Running(#[from] Remains),
    /// Somebody else works on this member.
    #[error("another agent works on this member (it holds {0})")]
    Locked(String),
    /// The copying tool could not be started.
    #[error("{0}")]
    Start(std::io::Error),
    /// The copying tool failed.
    #[error("copying from {node} failed: {said}")]
    Copy {
        /// The source's node.
        node: model::NodeName,
        /// What the tool said last.
        said: String,
    },
    /// The copy made no progress.
    #[error("copying from {node} made no progress for {after:?}")]
    Stalled {
        /// The source's node.
        node: model::NodeName,
        /// For how long.
        after: Duration,
    },
    /// The copy is not what the source sent.
    #[error("the copy is damaged and was thrown away: {0}")]
    Damaged(ToolError),
    /// The copy's control file is damaged.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Files could not be read or written.
    #[error(transparent)]
    Files(#[from] FileError),
}

impl Member {
    /// Replaces the member's data by a copy of `source`'s: `pg_basebackup` beside the old data, through this member's
    /// slot there, verified against the manifest, then swapped in by renaming. Interrupted at any point (also by a kill of
    /// the agent), the next call or start finds either the old data or the new, complete.
    ///
    /// There is no deadline for the whole, which depends on the amount of data: it is given up when nothing has arrived
    /// for `stall`. `progress` is called a few times a second.
    ///
    /// # Errors
    /// See [`CloneError`].
    pub async fn clone_from(
        &self,
        source: &Source,
        stall: Duration,
        progress: impl Fn(CloneProgress) + Send + Sync,
    ) -> Result<Cloned, CloneError> {
        let begin = Instant::now();
        let Some(_lock) = self.lock().await? else {
            return Err(CloneError::Locked(self.paths().lock().display().to_string()));
        };
        self.kill_stray_tools().await?;
        self.is_really_gone().await?;
        self.finish_swap().await?;
        let (cloning, log) = (self.paths().cloning(), self.paths().clone_log());
        volume::run("clear old copy", stall, move || {
            volume::remove_all(&cloning)?;
            volume::remove_all(&log)
        })
        .await?;
        self.make_slot_at(source, stall).await?;
        self.copy(source, stall, &progress).await?;
        let control = self.verify(&self.paths().cloning()).await?;
        let paths = self.paths().clone();
        volume::run("keep copy", volume::PATIENCE, move || volume::rename(&paths.cloning(), &paths.cloned()))
            .await?;
        self.finish_swap().await?;
        Ok(Cloned { system_identifier: control.system_identifier, took: begin.elapsed() })
    }

    /// Completes a swap of data directories wherever it was interrupted. The names tell the state: a verified copy waits
    /// in `data.cloned`, the old data in `data.replaced`.
    pub(in super::super) async fn finish_swap(&self) -> Result<(), FileError> {
        let paths = self.paths().clone();
        let replaced = paths.replaced();
        let swap = move || {
            if volume::exists(&paths.cloned())? {
                if volume::exists(&paths.data)? {
                    volume::remove_all(&paths.replaced())?;
                    volume::rename(&paths.data, &paths.replaced())?;
                }
                volume::rename(&paths.cloned(), &paths.data)?;
                // Half-rewound data is what the clone has replaced.
                crate::files::remove_durably(&paths.rewinding())?;
            }
            volume::exists(&paths.replaced())
        };
        if volume::run("swap data", volume::PATIENCE, swap).await? {
            // May take long for much data, and need not be waited for: the name keeps it apart.
            crate::disposable::start("delete old data", move || volume::remove_all(&replaced))
                .map_err(FileError::Io)?;
        }
        Ok(())
    }

    /// Makes this member's replication slot on the source, where that has not done it yet by itself.
    async fn make_slot_at(&self, source: &Source, deadline: Duration) -> Result<(), CloneError> {
        let conninfo = source.tool_conninfo(self, REPLICATION_ROLE, "mainstay slot") + " replication=true";
        let slot = slot_name(self.node());
        let make = format!("CREATE_REPLICATION_SLOT {slot} PHYSICAL RESERVE_WAL");
        let tool = self.tool("psql", ["-X", "-q", "-w", "-d", &conninfo, "-c", &make], deadline);
        let failed = |said: String| CloneError::Copy { node: source.node.clone(), said };
        let output = run_tool(tool).await.map_err(|error| failed(error.to_string()))?;
        match output.is_success() || output.stderr.contains("already exists") {
            true => Ok(()),
            false => Err(failed(output.stderr.trim().to_owned())),
        }
    }

    async fn copy(
        &self,
        source: &Source,
        stall: Duration,
        progress: &(impl Fn(CloneProgress) + Send + Sync),
    ) -> Result<(), CloneError> {
        let tool = process::spawn(self.copy_command(source), stall).await.map_err(CloneError::Start)?;
        let tool = KillOnDrop(tool);
        let mut last = (CloneProgress { done_kib: 0, total_kib: 0 }, Instant::now());
        loop {
            let exit = tokio::time::timeout(LOOK_EVERY, tool.0.exited()).await;
            let log = self.clone_log_tail().await?;
            if let Some(now) = last_progress(&log).filter(|now| *now != last.0) {
                last = (now, Instant::now());
                progress(now);
            }
            if let Ok(exit) = exit {
                let said = || log.lines().rev().take(3).collect::<Vec<_>>().join(" / ");
                let failed = || CloneError::Copy { node: source.node.clone(), said: said() };
                return if exit.is_success() { Ok(()) } else { Err(failed()) };
            }
            if left(last.1, stall).is_zero() {
                return Err(CloneError::Stalled { node: source.node.clone(), after: stall });
            }
        }
    }

    fn copy_command(&self, source: &Source) -> Spawn {
        let paths = self.paths();
        let arguments = [
            "-d".to_owned(),
            source.tool_conninfo(self, REPLICATION_ROLE, "mainstay clone"),
            "-D".to_owned(),
            paths.cloning().display().to_string(),
            "--wal-method=stream".to_owned(),
            "--checkpoint=fast".to_owned(),
            format!("--slot={}", slot_name(self.node())),
            "--progress".to_owned(),
            "--no-password".to_owned(),
            "--no-sync".to_owned(),
        ];
        Spawn {
            env: environment(),
            cwd: Some(paths.database.clone()),
            user: self.user().cloned(),
            log: Some(paths.clone_log()),
            umask: 0o077,
            ..Spawn::new(self.installation().program("pg_basebackup"), arguments)
        }
    }

    async fn clone_log_tail(&self) -> Result<String, FileError> {
        let path = self.paths().clone_log();
        let read = move || {
            let text = std::fs::read(&path)?;
            let tail = &text[text.len().saturating_sub(4096)..];
            // Progress lines end with a carriage return on terminals.
            Ok(String::from_utf8_lossy(tail).replace('\r', "\n"))
        };
        volume::run("read clone log", volume::PATIENCE, read).await
    }

    /// Compares the copy with the manifest that the source sent: every file's size and checksum, and that the log needed
    /// is there and readable.
    async fn verify(&self, copy: &Path) -> Result<super::super::ControlData, CloneError> {
        let directory = copy.display().to_string();
        let tool = self.tool("pg_verifybackup", ["--exit-on-error", "--quiet", &directory], MAY_TAKE);
        match run_tool(tool).await.and_then(ToolOutput::checked) {
            Ok(_) => {}
            // A verifier that crashes says nothing about the copy (seen with builds of PostgreSQL 18).
            Err(error @ ToolError::Failed { exit: Exit::Signal(_), .. }) => {
                tracing::warn!(%error, "pg_verifybackup crashed; only the sizes of the copied files are checked");
                let copy = copy.to_owned();
                volume::run("check sizes", MAY_TAKE, move || manifest::check_sizes(&copy)).await?;
            }
            Err(error) => return Err(CloneError::Damaged(error)),
        }
        Ok(self.control_data_of(copy, Duration::from_secs(10)).await?)
    }
}

/// Kills the copying tool when the copy is given up.
struct KillOnDrop(Process);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if self.0.exit().is_none() {
            self.0.signal_session(Signal::KILL);
        }
    }
}

/// `  23456/98765 kB (23%), 0/1 tablespace` (the last such line).
fn last_progress(log: &str) -> Option<CloneProgress> {
    let line = |line: &str| {
        let (done, rest) = line.trim().split_once('/')?;
        let total = rest.split_once(" kB")?.0;
        Some(CloneProgress { done_kib: done.parse().ok()?, total_kib: total.parse().ok()? })
    };
    log.lines().rev().find_map(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tools_progress_is_understood() {
        let log = "waiting for checkpoint\n 100/22890 kB (0%), 0/1 tablespace (...)\n  22890/22900 kB (99%), 1/1 tablespace\npg_basebackup: ok\n";
        assert_eq!(last_progress(log), Some(CloneProgress { done_kib: 22_890, total_kib: 22_900 }));
        assert_eq!(last_progress("pg_basebackup: error: a/b kB"), None);
    }
}
