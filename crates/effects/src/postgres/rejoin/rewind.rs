//! Rewinding a member whose log went another way than the primary's.

use std::path::PathBuf;
use std::time::Duration;

use model::leadership::Term;
use model::postgres::{Lsn, WalPosition};
use tokio::time::Instant;

use super::super::control::{ControlData, ControlError, ControlState};
use super::super::divergence::TimelineHistory;
use super::super::session::left;
use super::super::volume::{self, Access, FileError};
use super::super::{Member, REWIND_ROLE, Remains, Source, SourceError};
use super::aside;
use crate::process::{ToolError, ToolOutput, run_tool};

/// How long the source's control file may take to show its new timeline after a promotion (its first checkpoint).
const CHECKPOINT_MAY_TAKE: Duration = Duration::from_secs(30);

/// What a checkpoint takes in the log at the least, in bytes.
const CHECKPOINT_BYTES: u64 = 120;

/// A member that now shares the source's log and can be started as its standby.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewound {
    /// Where the log is that was thrown away; `None` when there was none, or it could not be kept.
    pub kept: Option<PathBuf>,
    /// How long it took.
    pub took: Duration,
}

/// Why a member was not rewound.
#[derive(Debug, thiserror::Error)]
pub enum RewindError {
    /// Processes still work in the data directory.
    #[error(transparent)]
    Running(#[from] Remains),
    /// Somebody else works on this member.
    #[error("another agent works on this member (it holds {0})")]
    Locked(String),
    /// The source cannot be asked. Nothing was touched.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The source has not written a checkpoint on its timeline; a rewind from it now would go wrong. Nothing was touched.
    #[error("{node} has not written a checkpoint on its timeline yet: ask again")]
    SourceNotReady {
        /// The source's node.
        node: model::NodeName,
    },
    /// The source is another database altogether. Nothing was touched.
    #[error("{node} belongs to database cluster {theirs}, this member to {ours}: nothing was touched")]
    Foreign {
        /// The source's node.
        node: model::NodeName,
        /// The system identifier here.
        ours: u64,
        /// The system identifier there.
        theirs: u64,
    },
    /// Crash recovery before the rewind did not end in time: ask again. A primary's data is as good as before; a standby's
    /// copy counts as half rewound from then on.
    #[error("crash recovery before the rewind did not succeed: {0}")]
    Recovery(ToolError),
    /// Rewinding is impossible or failed: the member must be cloned, and is not started before.
    #[error("this member cannot be rewound and must be cloned: {0}")]
    MustClone(String),
    /// Files could not be read or written.
    #[error(transparent)]
    Files(#[from] FileError),
}

impl From<ControlError> for RewindError {
    fn from(error: ControlError) -> Self {
        Self::MustClone(error.to_string())
    }
}

impl Member {
    /// Makes a stopped member share `source`'s log again: crash recovery if it was not shut down cleanly, the log after
    /// `common` put aside (named by `term`, the term that wins), then `pg_rewind`. While that runs, and after it failed,
    /// the member refuses to start. Before the next start tell it whom to follow: [`Member::set_source`].
    ///
    /// # Errors
    /// See [`RewindError`]; [`RewindError::MustClone`] is the one that only a clone helps against.
    pub async fn rewind(
        &self,
        source: &Source,
        common: WalPosition,
        term: Term,
        deadline: Duration,
    ) -> Result<Rewound, RewindError> {
        let begin = Instant::now();
        let Some(_lock) = self.lock().await? else {
            return Err(RewindError::Locked(self.paths().lock().display().to_string()));
        };
        self.kill_stray_tools().await?;
        self.is_really_gone().await?;
        if self.is_half_rewound().await? {
            return Err(RewindError::MustClone("an earlier rewind was interrupted".to_owned()));
        }
        let history = self.check_source(source, begin, deadline).await?;
        let kept = self.put_aside(common, term, left(begin, deadline)).await?;
        self.recover(&history, left(begin, deadline)).await?;
        self.mark_rewinding().await?;
        self.run_rewind(source, left(begin, deadline)).await?;
        let (data, marker) = (self.paths().data.clone(), self.paths().rewinding());
        let finish = move || {
            volume::sync_volume(&data)?;
            crate::files::remove_durably(&marker)
        };
        volume::run("end rewind", left(begin, deadline), finish).await?;
        Ok(Rewound { kept, took: begin.elapsed() })
    }

    async fn check_source(
        &self,
        source: &Source,
        begin: Instant,
        deadline: Duration,
    ) -> Result<TimelineHistory, RewindError> {
        let ours = self.control_data(left(begin, deadline)).await?.system_identifier;
        let patience = left(begin, deadline).min(CHECKPOINT_MAY_TAKE);
        let asked = Instant::now();
        loop {
            let facts = self.ask_source(source, left(asked, patience)).await?;
            if facts.system_identifier != ours {
                let theirs = facts.system_identifier;
                return Err(RewindError::Foreign { node: source.node.clone(), ours, theirs });
            }
            if !facts.in_recovery && facts.checkpoint_timeline == facts.position.timeline {
                return Ok(facts.history);
            }
            if left(asked, patience).is_zero() {
                return Err(RewindError::SourceNotReady { node: source.node.clone() });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Best effort, except that a disk that does not answer ends the rewind.
    async fn put_aside(
        &self,
        common: WalPosition,
        term: Term,
        deadline: Duration,
    ) -> Result<Option<PathBuf>, FileError> {
        let database = self.paths().database.clone();
        match volume::run("put log aside", deadline, move || aside::keep(&database, common, term)).await {
            Err(FileError::Io(error)) => {
                tracing::warn!(%error, "the log that a rewind throws away could not be kept");
                Ok(None)
            }
            other => other,
        }
    }

    /// Whether a rewind was begun and not ended, so that only a copy helps: it may have overwritten the log that tells which
    /// pages to fetch.
    ///
    /// # Errors
    /// When the volume cannot be asked.
    pub async fn is_half_rewound(&self) -> Result<bool, FileError> {
        let marker = self.paths().rewinding();
        volume::run("look for a rewind", volume::PATIENCE, move || marker.try_exists()).await
    }

    async fn mark_rewinding(&self) -> Result<(), FileError> {
        let marker = self.paths().rewinding();
        volume::run("begin rewind", volume::PATIENCE, move || {
            volume::replace(&marker, b"", Access::Ours, None)?;
            volume::sync(&marker)
        })
        .await
    }

    /// Recovers what was not shut down cleanly, if it can be rewound from a primary with this history then.
    async fn recover(&self, history: &TimelineHistory, deadline: Duration) -> Result<(), RewindError> {
        let before = self.control_data(deadline).await?;
        if before.state == ControlState::ShutDown {
            return Ok(());
        }
        if is_standby(before.state) {
            // Recovered alone it is no standby any more, and no primary: if this is interrupted it must never start.
            self.mark_rewinding().await?;
        }
        self.recover_alone(deadline).await?;
        let after = self.control_data(deadline).await?;
        let Some(because) = unfit(&before, after.checkpoint, history) else { return Ok(()) };
        self.mark_rewinding().await?;
        Err(RewindError::MustClone(because))
    }

    /// Recovers a crashed (or merely stopped) standby or primary in single-user mode with our configuration: it replays
    /// all the log on disk and ends with a checkpoint. `pg_rewind` judges a standby by its last replayed page only and
    /// would overlook log beyond that. Without the signal of a standby PostgreSQL neither minds that the log ends before
    /// the copy is consistent, nor that a primary has other log where it writes that checkpoint: see [`unfit`].
    async fn recover_alone(&self, deadline: Duration) -> Result<(), RewindError> {
        let data = self.paths().data.clone();
        let arguments = [
            "--single".to_owned(),
            "-D".to_owned(),
            data.display().to_string(),
            "-c".to_owned(),
            format!("config_file={}", self.paths().postgresql_conf().display()),
            "-c".to_owned(),
            "synchronous_standby_names=".to_owned(),
            // The checkpoint at its end must not remove the log back to the last shared one, which the rewind reads.
            "-c".to_owned(),
            "wal_keep_size=1TB".to_owned(),
            "template1".to_owned(),
        ];
        let clear = move || {
            let names = ["standby.signal", "recovery.signal", "postmaster.pid"];
            names.into_iter().try_for_each(|name| volume::remove_all(&data.join(name)))
        };
        volume::run("clear signals", volume::PATIENCE, clear).await?;
        // Input that is at once at its end makes it stop right after the recovery.
        match run_tool(self.tool("postgres", arguments, deadline)).await.and_then(ToolOutput::checked) {
            Ok(_) => Ok(()),
            Err(error @ ToolError::Failed { .. }) => {
                self.mark_rewinding().await?;
                Err(must_clone("crash recovery before the rewind failed", &error))
            }
            Err(error @ (ToolError::Start(_) | ToolError::TimedOut { .. } | ToolError::Stuck { .. })) => {
                Err(RewindError::Recovery(error))
            }
        }
    }

    async fn run_rewind(&self, source: &Source, deadline: Duration) -> Result<(), RewindError> {
        let conninfo = source.tool_conninfo(self, REWIND_ROLE, "mainstay rewind") + " dbname=postgres";
        let data = self.paths().data.display().to_string();
        let server = format!("--source-server={conninfo}");
        let mut tool =
            self.tool("pg_rewind", ["-D", &data, &server, "--no-ensure-shutdown", "--no-sync"], deadline);
        tool.cwd = Some(self.paths().database.clone());
        let done = run_tool(tool).await.and_then(ToolOutput::checked);
        done.map(drop).map_err(|error| must_clone("pg_rewind failed", &error))
    }
}

fn is_standby(state: ControlState) -> bool {
    matches!(state, ControlState::InArchiveRecovery | ControlState::ShutDownInRecovery)
}

/// Why a member that was recovered alone cannot be rewound: its own checkpoints were written over a history that goes on
/// there, where a rewind sees no divergence, or the log did not suffice for what it was copied from. `end` is where the last
/// checkpoint stands; the one at the end of the recovery stands before it, where the log ended.
fn unfit(before: &ControlData, end: WalPosition, history: &TimelineHistory) -> Option<String> {
    let reaches = |position: Lsn| end.lsn.0 >= position.0 + CHECKPOINT_BYTES;
    let needed = before.minimum_recovery_end;
    if is_standby(before.state) && !reaches(needed.lsn) {
        return Some(format!("its log ends before {end}, and it is consistent only from {needed} on"));
    }
    let goes_on = end.timeline == history.timeline
        || history.end_of(end.timeline).is_some_and(|left_at| !reaches(left_at));
    goes_on.then(|| format!("its log ends before {end}, where that of the primary goes on"))
}

fn must_clone(what: &str, error: &ToolError) -> RewindError {
    RewindError::MustClone(format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use model::postgres::Timeline;

    use super::super::super::divergence::HistoryEntry;
    use super::super::super::settings::Floor;
    use super::*;

    const fn at(timeline: u32, lsn: u64) -> WalPosition {
        WalPosition { timeline: Timeline(timeline), lsn: Lsn(lsn) }
    }

    fn control(state: ControlState, minimum_recovery_end: WalPosition) -> ControlData {
        ControlData {
            state,
            system_identifier: 1,
            checkpoint: at(1, 500),
            minimum_recovery_end,
            checksums: true,
            floor: Floor::default(),
        }
    }

    #[test]
    fn what_was_recovered_alone_is_rewound_only_where_it_parts_from_the_history() {
        let history = TimelineHistory {
            timeline: Timeline(2),
            before: vec![HistoryEntry { timeline: Timeline(1), ends: Lsn(1000) }],
        };
        let crashed = control(ControlState::InProduction, at(0, 0));
        let why = |before: &ControlData, end| unfit(before, end, &history);
        assert_eq!(why(&crashed, at(1, 1000 + 120)), None, "all it had was confirmed");
        assert_eq!(why(&crashed, at(1, 5000)), None, "it had more");
        assert!(why(&crashed, at(1, 900)).unwrap().contains("goes on"), "its disk lost log");
        assert!(
            why(&crashed, at(2, 5000)).unwrap().contains("goes on"),
            "it is on the primary's own timeline"
        );
        let copied = control(ControlState::InArchiveRecovery, at(1, 1500));
        assert!(why(&copied, at(1, 1400)).unwrap().contains("consistent only from"));
        assert_eq!(why(&copied, at(1, 1700)), None);
    }
}
