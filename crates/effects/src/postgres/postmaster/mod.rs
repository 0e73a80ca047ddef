//! The running server of a member: started, adopted, reloaded, waited for.

mod preflight;
mod remains;
mod stop;

use std::io;
use std::path::Path;
use std::time::Duration;

use model::leadership::SyncSet;
use tokio::time::Instant;

pub use remains::Remains;
pub use stop::{StopError, StopMode, Stopped};

use super::control::ControlError;
use super::session::left;
use super::settings::{Dynamic, sync_names};
use super::volume::{self, FileError};
use super::{Member, PrimaryToken, Settings, SqlError, environment};
use crate::process::{self, Exit, Process, ProcessFacts, ProcessId, Signal, Spawn, children_of, facts_of};

/// How a server is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartRole {
    /// As a standby, which follows whom it followed before (nobody, when it was disconnected; another member after
    /// [`Member::set_source`]) and acknowledges nothing.
    Standby,
    /// As a primary. Only the founder's first start and a restart of the agreed primary with no standby to prefer want
    /// this: a restarted primary makes commits visible that nobody confirmed, so clients must be kept out until the sync
    /// set has confirmed its log ([`Postmaster::apply_sync_set`]).
    Primary {
        /// The right to do so.
        token: PrimaryToken,
        /// Who must confirm commits from the first one on.
        sync: SyncSet,
    },
}

/// Why a server was not started. Nothing was changed but configuration files.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no data directory.
    #[error("there is no data in {0}. Hint: clone the member from another one")]
    NoData(String),
    /// The data belongs to another major version.
    #[error("the data in {data} was made by PostgreSQL {found}, but the programs in {} are version {installed}. Hint: install PostgreSQL {found}, or upgrade the data with pg_upgrade", bin_dir.display())]
    WrongMajor {
        /// The data directory.
        data: String,
        /// The version in its file `PG_VERSION`.
        found: u32,
        /// The version of the programs.
        installed: u32,
        /// Where the programs are.
        bin_dir: std::path::PathBuf,
    },
    /// The control file is missing or corrupted.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A rewind was interrupted or failed: the data is neither the old nor the new.
    #[error(
        "the data in {0} is half rewound and must never be started. Hint: once it is moved away, the member is copied anew from another one"
    )]
    HalfRewound(String),
    /// A postmaster runs already: adopt it.
    #[error("a server runs on this data already ({0})")]
    AlreadyRunning(ProcessId),
    /// Processes of an earlier server still use the data and cannot be killed.
    #[error("{0}")]
    Remains(#[from] Remains),
    /// Somebody else starts, rewinds or clones this member at this moment.
    #[error("another agent works on this member (it holds {0})")]
    Locked(String),
    /// Files could not be read or written.
    #[error(transparent)]
    Files(#[from] FileError),
    /// The program could not be started.
    #[error("{0}")]
    Spawn(io::Error),
}

/// What [`Postmaster::ready`] waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// How long it took.
    pub took: Duration,
}

/// Why a server does not take connections.
#[derive(Debug, thiserror::Error)]
pub enum ReadyError {
    /// It ended.
    #[error("PostgreSQL ended with {exit} while starting: {log}")]
    Exited {
        /// How it ended.
        exit: Exit,
        /// What it had logged last.
        log: String,
    },
    /// It still starts; long crash recovery is a good reason.
    #[error("PostgreSQL does not take connections after {after:?}: {last}")]
    NotYet {
        /// How long it was waited for.
        after: Duration,
        /// What the last attempt said.
        last: SqlError,
    },
}

/// The running server of a member. Clones are handles of the same process; dropping them does not stop it.
#[derive(Clone)]
pub struct Postmaster {
    pub(super) member: Member,
    pub(super) process: Process,
    log_begins: u64,
}

impl Member {
    /// Starts the server. Returns when the program runs; [`Postmaster::ready`] waits until it takes connections.
    ///
    /// Before that: an interrupted swap of data directories is completed, the data's version and control file are
    /// checked, processes left over by a dead postmaster are waited for and killed, a stale `postmaster.pid` is removed,
    /// all configuration is written anew (a standby's with nothing below what its primary has), what `ALTER SYSTEM` left is discarded, and the signal files are made to fit the
    /// role.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(
        &self,
        role: &StartRole,
        settings: &Settings,
        deadline: Duration,
    ) -> Result<Postmaster, StartError> {
        let begin = Instant::now();
        let Some(_lock) = self.lock().await? else {
            return Err(StartError::Locked(self.paths().lock().display().to_string()));
        };
        let control = self.preflight(left(begin, deadline)).await?;
        let settings = match role {
            StartRole::Standby => settings.not_below(&control.floor, &settings.effective(self)),
            StartRole::Primary { .. } => settings.clone(),
        };
        self.write_settings(&settings).await?;
        self.write_role(role).await?;
        let log_begins = self.log_length().await;
        let process =
            process::spawn(self.server_command(), left(begin, deadline)).await.map_err(StartError::Spawn)?;
        self.observer().close().await;
        self.control().close().await;
        Ok(Postmaster { member: self.clone(), process, log_begins })
    }

    /// Takes over the server that an earlier run of the agent started. `None` when that process no longer runs, or is
    /// not this member's server.
    pub async fn adopt(&self, id: ProcessId) -> Option<Postmaster> {
        let process = process::adopt(id)?;
        let ours = facts_of(id.pid)?.working_directory()? == self.paths().data;
        let log_begins = self.log_length().await;
        ours.then(|| Postmaster { member: self.clone(), process, log_begins })
    }

    fn server_command(&self) -> Spawn {
        let paths = self.paths();
        let option = |name: &str, path: &Path| format!("{name}={}", path.display());
        let args = [
            "-D".to_owned(),
            paths.data.display().to_string(),
            "-c".to_owned(),
            option("config_file", &paths.postgresql_conf()),
            "-c".to_owned(),
            option("hba_file", &paths.hba_conf()),
            "-c".to_owned(),
            option("ident_file", &paths.ident_conf()),
        ];
        Spawn {
            env: environment(),
            user: self.user().cloned(),
            log: Some(paths.log.clone()),
            umask: 0o077,
            mark: Some(format!("postgres {}", self.database())),
            ..Spawn::new(self.installation().program("postgres"), args)
        }
    }

    /// Makes signal files, `postgresql.auto.conf` and [`Dynamic`] fit the role.
    async fn write_role(&self, role: &StartRole) -> Result<(), FileError> {
        let (standby, names) = match role {
            StartRole::Standby => (true, super::NOBODY.to_owned()),
            StartRole::Primary { sync, .. } => (false, sync_names(sync)),
        };
        self.change_files("write role", move |member| {
            let mut dynamic = if standby { Dynamic::read(member)? } else { Dynamic::default() };
            dynamic.synchronous_standby_names = names;
            dynamic.write(member)?;
            volume::sync(&member.paths().dynamic_conf())
        })
        .await?;
        let member = self.clone();
        volume::run("write signals", volume::PATIENCE, move || preflight::write_signals(&member, standby))
            .await
    }

    async fn log_length(&self) -> u64 {
        let path = self.paths().log.clone();
        let length = move || Ok(std::fs::metadata(path).map_or(0, |facts| facts.len()));
        volume::run("measure log", volume::PATIENCE, length).await.unwrap_or(0)
    }
}

impl Postmaster {
    /// The member it serves.
    pub fn member(&self) -> &Member {
        &self.member
    }

    /// The process, to be recorded for adoption and watched.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Waits until it takes connections.
    ///
    /// # Errors
    /// When it ended, or does not within `deadline`; see [`ReadyError`].
    pub async fn ready(&self, deadline: Duration) -> Result<Ready, ReadyError> {
        let begin = Instant::now();
        // Each attempt costs the postmaster a fork once it listens.
        let mut pause = Duration::from_millis(3);
        let mut last = SqlError::Deadline { after: deadline };
        loop {
            let patience = left(begin, deadline).max(pause);
            match self.member.control().text("SELECT 1", patience).await {
                Ok(_) => return Ok(Ready { took: begin.elapsed() }),
                // The end of our own patience says nothing that an answer before did not.
                Err(SqlError::Deadline { .. }) => {}
                Err(error) => last = error,
            }
            if begin.elapsed() >= deadline {
                return Err(ReadyError::NotYet { after: deadline, last });
            }
            if let Ok(exit) = tokio::time::timeout(pause, self.process.exited()).await {
                return Err(ReadyError::Exited { exit, log: self.last_words().await });
            }
            pause = (pause * 3 / 2).min(Duration::from_millis(50));
        }
    }

    /// Asks the server to read its configuration files again. Asynchronous: whoever must know that it did asks a new
    /// connection.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn reload(&self) -> io::Result<()> {
        self.process.signal(Signal::HUP)
    }

    /// Changes [`Dynamic`] and reloads. When this returns the file is durable and the signal is sent.
    pub(super) async fn change<F>(&self, change: F) -> Result<(), FileError>
    where
        F: FnOnce(&mut Dynamic) + Send + 'static,
    {
        let postmaster = self.clone();
        let change = move |member: &Member| {
            let mut dynamic = Dynamic::read(member)?;
            change(&mut dynamic);
            dynamic.write(member)?;
            // The server may act on it while it becomes durable: whoever waits for durability waits for this call.
            postmaster.reload()?;
            volume::sync(&member.paths().dynamic_conf())
        };
        self.member.change_files("change settings", change).await
    }

    /// Its living child processes.
    pub(super) fn children(&self) -> Vec<ProcessFacts> {
        children_of(self.process.id().pid).into_iter().filter(|child| !child.is_dead()).collect()
    }

    /// The last lines that say something bad, of what it logged since it was started or adopted.
    pub async fn last_words(&self) -> String {
        let (path, begins) = (self.member.paths().log.clone(), self.log_begins);
        let read = move || read_tail(&path, begins);
        let text = volume::run("read log", volume::PATIENCE, read).await.unwrap_or_default();
        let bad: Vec<&str> = text.lines().filter(|line| is_bad(line)).collect();
        let lines = if bad.is_empty() { text.lines().collect() } else { bad };
        lines[lines.len().saturating_sub(3)..].join(" / ")
    }
}

impl std::fmt::Debug for Postmaster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Postmaster({:?}, {})", self.member, self.process.id())
    }
}

fn is_bad(line: &str) -> bool {
    ["FATAL:", "PANIC:", "ERROR:", "HINT:"].iter().any(|word| line.contains(word))
}

/// At most the last 16 KiB of `path`, not before `begins`.
fn read_tail(path: &Path, begins: u64) -> io::Result<String> {
    use std::io::{Read, Seek, SeekFrom};
    const MOST: u64 = 16 * 1024;
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    // Shorter than before: the log was rotated.
    let begins = if length < begins { 0 } else { begins };
    file.seek(SeekFrom::Start(begins.max(length.saturating_sub(MOST))))?;
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
