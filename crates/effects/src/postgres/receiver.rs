//! Whom a standby follows: nobody, provably, or another member.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use model::postgres::{Lsn, WalPosition};
use tokio::time::Instant;

use super::session::left;
use super::volume::{self, Access, FileError};
use super::{Dynamic, Facts, Member, Postmaster, Source, SqlError, slot_name};
use crate::process::{ProcessFacts, ProcessId, Signal, facts_of, signal_process};

/// How long PostgreSQL may take to end the receiver by itself before it gets the signal. Its startup process does it at
/// once when idle; while it replays a backlog, or waits for a reader, it does not.
const BY_ITSELF: Duration = Duration::from_millis(12);

/// How often it is looked whether the receiver is gone.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// A standby that provably follows nobody: nothing that any primary sends can be confirmed by it until
/// [`Postmaster::follow`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnected {
    /// What it holds. Read after the receiver was gone, so it cannot grow.
    pub position: WalPosition,
    /// What it has replayed of that.
    pub replayed: Lsn,
    /// From the call until the receiver was gone and the setting durable.
    pub receiver_gone: Duration,
    /// From the call until the position was known.
    pub took: Duration,
}

/// Why it is not proved that a standby follows nobody.
#[derive(Debug, thiserror::Error)]
pub enum ReceiverError {
    /// The settings could not be made durable.
    #[error(transparent)]
    Files(#[from] FileError),
    /// The receiver's process does not end.
    #[error(
        "the WAL receiver (pid {pid}, state {state}) did not end within {after:?}; only killing the server stops it now"
    )]
    StillThere {
        /// Its process.
        pid: i32,
        /// Its state letter in `/proc`.
        state: char,
        /// How long it was waited for.
        after: Duration,
    },
    /// The receiver is gone, but the server does not tell its position.
    #[error("the WAL receiver is gone, but the position is not known: {0}")]
    Position(#[from] SqlError),
    /// The receiver is gone, but the server still replays the log that it found on disk, and only its end is the
    /// position. Ask again.
    #[error("the WAL receiver is gone, but the log on disk is still being replayed (at {replayed})")]
    StillReplaying {
        /// How far it is.
        replayed: Lsn,
    },
    /// It is not a standby.
    #[error("the server is not in recovery: it is a primary")]
    NotAStandby,
}

impl Postmaster {
    /// Makes a standby follow nobody, durably, and reads its position after that.
    ///
    /// Three things together are the proof. The setting is durable, so a restarted server does not reconnect. The
    /// password file was emptied first, so a receiver that the startup process may still start from its old copy of the
    /// setting cannot log in. And every receiver that may have read the password before is gone.
    ///
    /// # Errors
    /// See [`ReceiverError`]; then nothing is proved, and the call may be repeated.
    pub async fn disconnect_receiver(&self, deadline: Duration) -> Result<Disconnected, ReceiverError> {
        let begin = Instant::now();
        self.member.write_passfile("").await?;
        let clear = self.change(|dynamic| {
            dynamic.primary_conninfo.clear();
            dynamic.primary_slot_name.clear();
        });
        let (cleared, gone) = tokio::join!(clear, self.receiver_ends(begin, deadline));
        cleared?;
        gone?;
        let receiver_gone = begin.elapsed();
        let facts = self.final_position(begin, deadline).await?;
        Ok(Disconnected {
            position: facts.position,
            replayed: facts.replayed.unwrap_or_default(),
            receiver_gone,
            took: begin.elapsed(),
        })
    }

    /// Makes a standby follow `source` through its own slot there; no restart. The connection is made within
    /// `wal_retrieve_retry_interval`.
    ///
    /// # Errors
    /// When the settings cannot be written, or there are no secrets on this node.
    pub async fn follow(&self, source: &Source) -> Result<(), FileError> {
        self.member.write_receiver_password().await?;
        let (member, source) = (self.member.clone(), source.clone());
        self.change(move |dynamic| member.aim(dynamic, &source)).await
    }

    /// Ends when a look at all children finds no receiver. A child that began after that look has not read the password
    /// in time.
    async fn receiver_ends(&self, begin: Instant, deadline: Duration) -> Result<(), ReceiverError> {
        loop {
            let postmaster = self.clone();
            let find = move || Ok(postmaster.children().into_iter().filter(is_receiver).collect());
            let receivers: Vec<ProcessFacts> = volume::run("find receiver", volume::PATIENCE, find).await?;
            if receivers.is_empty() {
                return Ok(());
            }
            for receiver in receivers {
                process_ends(receiver.id, begin, deadline).await?;
            }
        }
    }

    /// The position once it is final: all that was received, or, when nothing was received since the start, the end of
    /// the log on disk, which the startup process must have reached.
    async fn final_position(&self, begin: Instant, deadline: Duration) -> Result<Facts, ReceiverError> {
        loop {
            let facts = self.member.observer().observe(left(begin, deadline)).await?;
            if !facts.in_recovery {
                return Err(ReceiverError::NotAStandby);
            }
            let replayed = facts.replayed.unwrap_or_default();
            if facts.received_since_start || facts.replays_no_more() {
                return Ok(facts);
            }
            if left(begin, deadline).is_zero() {
                return Err(ReceiverError::StillReplaying { replayed });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

impl Member {
    /// Lets the receiver log in.
    pub(super) async fn write_receiver_password(&self) -> Result<(), FileError> {
        let Some(secrets) = self.kept_secrets().await? else {
            let text = format!("there are no secrets in {}", self.paths().secrets().display());
            return Err(FileError::Io(io::Error::new(io::ErrorKind::NotFound, text)));
        };
        self.write_passfile(&format!("*:*:*:{}:{}\n", super::REPLICATION_ROLE, secrets.replication)).await
    }

    /// Points the settings at `source`.
    pub(super) fn aim(&self, dynamic: &mut Dynamic, source: &Source) {
        dynamic.primary_conninfo = source.receiver_conninfo(self);
        dynamic.primary_slot_name = slot_name(self.node());
    }

    /// Durability does not matter here: after a power loss the settings decide.
    async fn write_passfile(&self, text: &str) -> Result<(), FileError> {
        let text = text.to_owned();
        self.change_files("write passfile", move |member| {
            let path = member.paths().receiver_passfile();
            volume::replace(&path, text.as_bytes(), Access::ServerOwns, member.user())
        })
        .await
    }
}

async fn process_ends(id: ProcessId, begin: Instant, deadline: Duration) -> Result<(), ReceiverError> {
    loop {
        let state = match facts_of(id.pid) {
            Some(facts) if facts.id == id && !facts.is_dead() => facts.state,
            Some(_) | None => return Ok(()),
        };
        if begin.elapsed() >= deadline {
            return Err(ReceiverError::StillThere { pid: id.pid, state, after: deadline });
        }
        if begin.elapsed() >= BY_ITSELF {
            // SIGTERM is what the startup process itself would send; the receiver reports nothing after it.
            signal_process(id, Signal::TERM);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// A receiver calls itself `postgres: CLUSTER: walreceiver ...` as soon as it runs, before it reads the password. A child
/// without a title is ending at this moment, and may be the receiver.
fn is_receiver(child: &ProcessFacts) -> bool {
    let title = child.command_line();
    if title.is_empty() {
        return true;
    }
    let title = title.first().map(|title| title.as_bytes()).unwrap_or_default();
    is_receiver_title(&String::from_utf8_lossy(title))
}

/// The cluster name is the database's name and has no colon.
fn is_receiver_title(title: &str) -> bool {
    let Some(rest) = title.strip_prefix("postgres: ") else { return false };
    let rest = rest.split_once(": ").map_or(rest, |(_cluster, rest)| rest);
    rest.trim_end() == "walreceiver" || rest.starts_with("walreceiver ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receivers_are_known_by_their_titles() {
        assert!(is_receiver_title("postgres: orders: walreceiver streaming 0/3000148"));
        assert!(is_receiver_title("postgres: orders: walreceiver "));
        assert!(is_receiver_title("postgres: walreceiver"));
        assert!(!is_receiver_title("postgres: orders: walwriter "));
        assert!(!is_receiver_title("postgres: orders: shop walreceiver [local] idle"));
        assert!(!is_receiver_title("/usr/lib/postgresql/15/bin/postgres -D walreceiver"));
    }
}
