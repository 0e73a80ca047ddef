//! Stopping a server within bounds.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use tokio::time::Instant;

use super::super::control::{ControlData, ControlState};
use super::super::session::left;
use super::super::volume;
use super::Postmaster;
use crate::process::{Exit, ProcessFacts, Signal};

/// How often it is looked whether the shutdown checkpoint is written.
const LOOK_EVERY: Duration = Duration::from_millis(3);

/// How long a server that has written its checkpoint may take to send it to all standbys before it is not waited for.
const LAST_WORD: Duration = Duration::from_millis(300);

/// How long a small look at the data directory may take.
const PATIENCE: Duration = Duration::from_millis(500);

/// Where `DBState` lies in `global/pg_control`, and its values for a clean end (pg_control.h, the same since 9.3).
const STATE_AT: u64 = 16;
const CLEAN: [u32; 2] = [1, 2];

/// How a server is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// Disconnect clients, write a checkpoint, wait for standbys to confirm it. Short only after a recent
    /// [`Postmaster::checkpoint`].
    Fast,
    /// At once, without a checkpoint; the next start recovers. Commits that wait for standbys stay unacknowledged.
    Immediate,
}

/// How far a stop came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The server has ended.
    Exited {
        /// How.
        exit: Exit,
        /// The control file after it; `None` when it could not be read in time, and after an immediate stop, which
        /// leaves nothing to learn from it.
        control: Option<ControlData>,
    },
    /// The shutdown checkpoint is written: nothing is acknowledged any more and the log ends with it. The server still
    /// waits for a standby or an archiver; kill it when the chosen standby has the checkpoint's position.
    CheckpointWritten {
        /// The control file.
        control: ControlData,
    },
}

/// Why a server has not stopped.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// It still runs. Fence it by closing its port; then kill it.
    #[error("PostgreSQL did not stop within {after:?}; its last known state is {state}")]
    Deadline {
        /// How long it was waited for.
        after: Duration,
        /// State in the control file, or why that is not known.
        state: String,
    },
}

impl Postmaster {
    /// Asks the server to stop and waits for its end, or for a shutdown checkpoint that has reached every standby that
    /// confirms it in time, whichever comes first: what follows the checkpoint (statistics are written, processes end)
    /// changes nothing any more.
    ///
    /// # Errors
    /// When neither comes within `deadline`.
    pub async fn stop(&self, mode: StopMode, deadline: Duration) -> Result<Stopped, StopError> {
        let begin = Instant::now();
        let signal = match mode {
            StopMode::Fast => Signal::INT,
            StopMode::Immediate => Signal::QUIT,
        };
        // An error means that it has ended already.
        let _ = self.process.signal(signal);
        match mode {
            StopMode::Fast => self.stops_gently(begin, deadline).await,
            StopMode::Immediate => match self.ends(deadline).await {
                Some(exit) => Ok(Stopped::Exited { exit, control: None }),
                None => Err(StopError::Deadline { after: deadline, state: "not known".to_owned() }),
            },
        }
    }

    /// Waits for the end of the process; `None` when it does not come in time.
    pub async fn ends(&self, deadline: Duration) -> Option<Exit> {
        tokio::time::timeout(deadline, self.process.exited()).await.ok()
    }

    async fn stops_gently(&self, begin: Instant, deadline: Duration) -> Result<Stopped, StopError> {
        let control = tokio::select! {
            biased;
            exit = self.process.exited() => return Ok(self.exited(exit, left(begin, deadline)).await),
            written = self.checkpoint_written(begin, deadline) => {
                written.map_err(|state| StopError::Deadline { after: deadline, state })?
            }
        };
        let last_word = tokio::time::timeout(LAST_WORD, self.senders_end());
        tokio::select! {
            biased;
            exit = self.process.exited() => Ok(Stopped::Exited { exit, control: Some(control) }),
            _ = last_word => Ok(Stopped::CheckpointWritten { control }),
        }
    }

    /// Waits for a control file that tells of a clean end.
    async fn checkpoint_written(&self, begin: Instant, deadline: Duration) -> Result<ControlData, String> {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let late = left(begin, deadline).is_zero();
            if !late && !self.seems_written().await {
                continue;
            }
            let state = match self.member.control_data(left(begin, deadline).max(PATIENCE)).await {
                Ok(control) if control.state.is_clean() => return Ok(control),
                Ok(control) => in_words(control.state).to_owned(),
                Err(error) => error.to_string(),
            };
            if late {
                return Err(state);
            }
        }
    }

    /// Whether it is worth asking `pg_controldata`, which is a process each time. Only a hint.
    async fn seems_written(&self) -> bool {
        let path = self.member.paths().data.join("global/pg_control");
        let read = move || {
            let mut state = [0; 4];
            File::open(path)?.read_exact_at(&mut state, STATE_AT)?;
            Ok(CLEAN.contains(&u32::from_ne_bytes(state)))
        };
        volume::run("look at control file", PATIENCE, read).await.unwrap_or(false)
    }

    /// Waits until every WAL sender has ended: each waits until its standby has flushed the shutdown checkpoint.
    async fn senders_end(&self) {
        loop {
            let postmaster = self.clone();
            let find = move || Ok(postmaster.children().iter().any(is_sender));
            if let Ok(false) = volume::run("find WAL senders", PATIENCE, find).await {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn exited(&self, exit: Exit, left: Duration) -> Stopped {
        Stopped::Exited { exit, control: self.member.control_data(left.max(PATIENCE)).await.ok() }
    }
}

fn is_sender(child: &ProcessFacts) -> bool {
    child.command_line().first().is_some_and(|title| names_sender(&title.to_string_lossy()))
}

/// A sender calls itself `postgres: CLUSTER: walsender ROLE ...`, and `postgres: walsender ROLE ...` without a cluster name.
fn names_sender(title: &str) -> bool {
    title.starts_with("postgres: ") && title.contains(": walsender ")
}

fn in_words(state: ControlState) -> &'static str {
    match state {
        ControlState::InProduction => "in production (the shutdown checkpoint has not begun)",
        ControlState::InArchiveRecovery | ControlState::InCrashRecovery => "in recovery",
        ControlState::StartingUp => "starting up",
        ControlState::ShuttingDown => "writing the shutdown checkpoint",
        ControlState::ShutDown | ControlState::ShutDownInRecovery => "shut down",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wal_sender_is_known_by_its_title() {
        assert!(names_sender("postgres: orders: walsender replicator 10.0.0.2(40112) streaming 0/3000148"));
        assert!(names_sender("postgres: walsender replicator [local] startup"));
        assert!(!names_sender("postgres: orders: walwriter "));
        assert!(!names_sender("postgres: orders: walreceiver streaming 0/3000148"));
        assert!(!names_sender("postgres: orders: app walsender [local] idle"), "a database of that name");
        assert!(!names_sender("/usr/lib/postgresql/15/bin/postgres -D /x: walsender "));
    }
}
