//! Rewinding a member whose log went another way than the primary's.

use std::path::PathBuf;
use std::time::Duration;

use model::leadership::Term;
use model::postgres::WalPosition;
use tokio::time::Instant;

use super::super::control::{ControlError, ControlState};
use super::super::session::left;
use super::super::volume::{self, Access, FileError};
use super::super::{Member, REWIND_ROLE, Remains, Source, SourceError};
use super::aside;
use crate::process::{ToolError, ToolOutput, run_tool};

/// How long the source's control file may take to show its new timeline after a promotion (its first checkpoint).
const CHECKPOINT_MAY_TAKE: Duration = Duration::from_secs(30);

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
    /// Crash recovery before the rewind did not end in time. The data is as good as before: ask again.
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
        self.check_source(source, begin, deadline).await?;
        let kept = self.put_aside(common, term, left(begin, deadline)).await?;
        self.recover_alone(left(begin, deadline)).await?;
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
    ) -> Result<(), RewindError> {
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
                return Ok(());
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

    async fn mark_rewinding(&self) -> Result<(), FileError> {
        let marker = self.paths().rewinding();
        volume::run("begin rewind", volume::PATIENCE, move || {
            volume::replace(&marker, b"", Access::Ours, None)?;
            volume::sync(&marker)
        })
        .await
    }

    /// Recovers a crashed (or merely stopped) standby or primary in single-user mode with our configuration: it replays
    /// all the log on disk and ends with a checkpoint. `pg_rewind` judges a standby by its last replayed page only and
    /// would overlook log beyond that.
    async fn recover_alone(&self, deadline: Duration) -> Result<(), RewindError> {
        if self.control_data(deadline).await?.state == ControlState::ShutDown {
            return Ok(());
        }
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

fn must_clone(what: &str, error: &ToolError) -> RewindError {
    RewindError::MustClone(format!("{what}: {error}"))
}
