//! Promotion.

use std::time::Duration;

use model::leadership::SyncSet;
use model::postgres::{Lsn, Timeline};
use tokio::time::Instant;

use super::session::left;
use super::settings::sync_names;
use super::volume::{self, Access, FileError};
use super::{Postmaster, PrimaryToken, SqlError, TimelineHistory};
use crate::process::Signal;

/// How often the server is asked whether it is a primary yet.
const ASK_EVERY: Duration = Duration::from_millis(2);

/// A server that has become a primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promoted {
    /// Its new timeline.
    pub timeline: Timeline,
    /// Where that left the one before.
    pub begins: Lsn,
    /// How long it took.
    pub took: Duration,
}

/// Why a server has not become a primary (yet).
#[derive(Debug, thiserror::Error)]
pub enum PromoteError {
    /// A WAL receiver runs: the log could still grow from the old primary. Disconnect it first.
    #[error("the standby still receives log from {0}: disconnect it before promoting")]
    StillReceiving(String),
    /// It was asked, and is still in recovery; it will become a primary when it has replayed all its log.
    #[error(
        "PostgreSQL was told to become a primary {after:?} ago and still recovers (replayed to {replayed})"
    )]
    NotYet {
        /// How long it was waited for.
        after: Duration,
        /// How far it has replayed, as it said last.
        replayed: String,
    },
    /// It cannot be asked.
    #[error(transparent)]
    Sql(#[from] SqlError),
    /// The promote file or the settings could not be written.
    #[error(transparent)]
    Files(#[from] FileError),
}

impl Postmaster {
    /// Makes a standby a primary under `_token`'s term, with `sync` in force from the first commit on: until the reload
    /// with the new set is done, the standby's own setting lets no commit be acknowledged.
    ///
    /// By file and signal, not by `pg_promote()`, which waits up to `wal_retrieve_retry_interval` longer. Fine when it is
    /// a primary already.
    ///
    /// # Errors
    /// See [`PromoteError`].
    pub async fn promote(
        &self,
        _token: PrimaryToken,
        sync: &SyncSet,
        deadline: Duration,
    ) -> Result<Promoted, PromoteError> {
        let begin = Instant::now();
        let facts = self.member.observer().observe(left(begin, deadline)).await?;
        let names = sync_names(sync);
        if facts.in_recovery {
            if let Some(receiver) = facts.receiver {
                return Err(PromoteError::StillReceiving(receiver.host.unwrap_or(receiver.status)));
            }
            self.signal_promotion().await?;
        }
        let change = self.change(move |dynamic| {
            dynamic.primary_conninfo.clear();
            dynamic.primary_slot_name.clear();
            dynamic.read_only = false;
            dynamic.synchronous_standby_names = names;
        });
        let (changed, promoted) = tokio::join!(change, self.wait_for_primary(begin, deadline));
        changed?;
        promoted?;
        let (timeline, begins) = self.own_timeline(left(begin, deadline)).await?;
        Ok(Promoted { timeline, begins, took: begin.elapsed() })
    }

    /// The file and the signal of `pg_ctl promote`.
    async fn signal_promotion(&self) -> Result<(), FileError> {
        let postmaster = self.clone();
        volume::run("promote", volume::PATIENCE, move || {
            let member = &postmaster.member;
            let file = member.paths().data.join("promote");
            volume::replace(&file, b"", Access::ServerOwns, member.user())?;
            postmaster.process.signal(Signal::USR1)
        })
        .await
    }

    async fn wait_for_primary(&self, begin: Instant, deadline: Duration) -> Result<(), PromoteError> {
        const ASK: &str =
            "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()::text ELSE 'primary' END";
        loop {
            let answer = self.member.observer().prepared_text(ASK, left(begin, deadline)).await?;
            if answer == "primary" {
                return Ok(());
            }
            if left(begin, deadline).is_zero() {
                return Err(PromoteError::NotYet { after: deadline, replayed: answer });
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// A primary's timeline and where it began.
    pub(super) async fn own_timeline(&self, deadline: Duration) -> Result<(Timeline, Lsn), SqlError> {
        let history = self.history(deadline).await?;
        Ok((history.timeline, history.begins()))
    }

    /// The history of a primary's timeline.
    ///
    /// # Errors
    /// See [`SqlError`]; also on a standby.
    pub async fn history(&self, deadline: Duration) -> Result<TimelineHistory, SqlError> {
        const ASK: &str = "
            WITH me AS MATERIALIZED (SELECT substr(pg_walfile_name(pg_current_wal_flush_lsn()), 1, 8) AS t)
            SELECT ('x' || t)::bit(32)::int || ' ' || coalesce(pg_read_file('pg_wal/' || t || '.history', 0, 1000000, true), '')
            FROM me";
        let answer = self.member.control().prepared_text(ASK, deadline).await?;
        let (timeline, file) = answer.split_once(' ').unwrap_or((&answer, ""));
        let timeline = timeline.parse().map(Timeline).map_err(|_| SqlError::Unexpected(answer.clone()))?;
        TimelineHistory::parse(timeline, file).map_err(|error| SqlError::Unexpected(error.to_string()))
    }
}
