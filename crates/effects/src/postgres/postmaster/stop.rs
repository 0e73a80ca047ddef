//! Stopping a server within bounds.

use std::time::Duration;

use tokio::time::Instant;

use super::super::control::{ControlData, ControlState};
use super::super::session::left;
use super::Postmaster;
use crate::process::{Exit, Signal};

/// How often the control file is read while a fast stop is under way. Each reading is a child process.
const LOOK_EVERY: Duration = Duration::from_millis(15);

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
        /// The control file after it; `None` when it could not be read in time.
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
    /// Asks the server to stop and waits for the end, or for the shutdown checkpoint, whichever comes first.
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
        let mut state = "not known".to_owned();
        loop {
            let wait = LOOK_EVERY.min(left(begin, deadline));
            if let Ok(exit) = tokio::time::timeout(wait, self.process.exited()).await {
                let patience = left(begin, deadline).max(Duration::from_millis(500));
                return Ok(Stopped::Exited { exit, control: self.member.control_data(patience).await.ok() });
            }
            if left(begin, deadline).is_zero() {
                return Err(StopError::Deadline { after: deadline, state });
            }
            if mode == StopMode::Immediate {
                continue;
            }
            match self.member.control_data(left(begin, deadline)).await {
                Ok(control) if control.state.is_clean() => return Ok(self.checkpoint_written(control).await),
                Ok(control) => state = in_words(control.state).to_owned(),
                Err(error) => state = error.to_string(),
            }
        }
    }

    /// A server that ends right after its checkpoint is reported as ended.
    async fn checkpoint_written(&self, control: ControlData) -> Stopped {
        match tokio::time::timeout(LOOK_EVERY, self.process.exited()).await {
            Ok(exit) => Stopped::Exited { exit, control: Some(control) },
            Err(_) => Stopped::CheckpointWritten { control },
        }
    }
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
