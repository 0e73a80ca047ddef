//! One member of a database: its PostgreSQL founded, started, watched, promoted, fenced, rewound and cloned.
//!
//! Everything here carries out and reports; nothing decides. Each operation has a deadline, may be repeated, and never
//! blocks a worker of the async runtime: SQL goes over the unix socket, programs run as children, files are touched on
//! threads that may be abandoned.
//!
//! | type | is |
//! |---|---|
//! | [`Installation`] | the programs of one PostgreSQL version |
//! | [`Member`] | a data directory with its configuration, running or not |
//! | [`Postmaster`] | the running server of a member |
//! | [`Session`] | a connection of the agent's own |
//! | [`Source`] | another member, as seen over the network |
//!
//! What "acknowledged" means: a client got `COMMIT` without the warning "canceling wait for synchronous replication".
//! Cancelling a backend that waits for a standby turns its commit into an acknowledged one that exists on one node only,
//! so nothing here ever cancels a backend; backends are terminated (the client sees a lost connection and knows that the
//! outcome is unknown), and a former primary is shut down with [`StopMode::Immediate`].

mod control;
mod divergence;
mod found;
mod installation;
mod maintenance;
mod offline;
mod paths;
mod postmaster;
mod probe;
mod promote;
mod receiver;
mod rejoin;
mod secrets;
mod session;
mod settings;
mod slots;
mod source;
mod sync_set;
mod turns;
mod volume;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::leadership::{Leadership, Phase, Term};
use model::{DatabaseName, NodeName};

use crate::files::Lock;
use crate::process::{OsUser, ToolCommand};

pub use control::{ControlData, ControlError, ControlState};
pub use divergence::{Divergence, HistoryEntry, HistoryError, TimelineHistory, divergence};
pub use found::{Application, FoundError, Founded};
pub use installation::{Installation, InstallationError, SUPPORTED};
pub use maintenance::ReloadError;
pub use paths::MemberPaths;
pub use postmaster::{
    Postmaster, Ready, ReadyError, Remains, StartError, StartRole, StopError, StopMode, Stopped,
};
pub use probe::{ProbeError, Probed, Prober};
pub use promote::{PromoteError, Promoted};
pub use receiver::{Disconnected, ReceiverError};
pub use rejoin::{CloneError, CloneProgress, Cloned, RewindError, Rewound};
pub use secrets::Secrets;
pub use session::{Facts, ReceiverFacts, SenderFacts, Session, SlotFacts, SqlError, SyncState, WalStatus};
pub use settings::{Context, Contexts, Dynamic, Floor, NOBODY, RefusedParameter, Settings, Tls, sync_names};
pub use slots::slot_name;
pub use source::{Source, SourceError, SourceFacts};
pub use sync_set::{SyncApplied, SyncSetError};
pub use volume::FileError;

/// The superuser role: the agent's own, through the unix socket only.
pub const SUPERUSER: &str = "mainstay";

/// The role that standbys stream with.
pub const REPLICATION_ROLE: &str = "mainstay_replication";

/// The role that a former primary rewinds with.
pub const REWIND_ROLE: &str = "mainstay_rewind";

/// What a member is made of.
#[derive(Clone, Debug)]
pub struct MemberConfig<'a> {
    /// The node it runs on; its name in the sync set and its `application_name`.
    pub node: NodeName,
    /// The database.
    pub database: DatabaseName,
    /// The node's root directory.
    pub root: &'a Path,
    /// The TCP port, which also names the unix socket.
    pub port: u16,
    /// The programs.
    pub installation: Installation,
}

/// One member of a database on this node, running or not. Clones are handles of the same member.
#[derive(Clone)]
pub struct Member(Arc<Inner>);

struct Inner {
    node: NodeName,
    database: DatabaseName,
    port: u16,
    installation: Installation,
    paths: MemberPaths,
    user: Option<OsUser>,
    /// Held while configuration files are changed.
    changing: tokio::sync::Mutex<()>,
    /// Keeps abandoned changes of configuration files from happening later.
    turns: turns::Turns,
    observer: Session,
    control: Session,
}

/// The right to run a member as a primary; only the agreed leadership gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrimaryToken {
    term: Term,
}

impl PrimaryToken {
    /// The token that `record` gives to `node`: it leads, or founds the database. A member that hands over gets none.
    pub fn of(record: &Leadership, node: &NodeName) -> Option<Self> {
        let entitled = match &record.phase {
            Phase::Led { primary } => primary,
            Phase::Founding { by } => by,
            Phase::Revoking { .. } | Phase::HandingOver { .. } => return None,
        };
        (entitled == node).then_some(Self { term: record.term })
    }

    /// The term it is good for.
    pub fn term(self) -> Term {
        self.term
    }
}

impl Member {
    /// A member under `config.root`, which must exist; its directories are made when they are missing. As root,
    /// PostgreSQL and its tools run as the operating-system user `postgres`, else as the current user.
    ///
    /// # Errors
    /// When there is no such user, or the directories cannot be made or reached by it.
    pub async fn open(config: MemberConfig<'_>) -> Result<Self, FileError> {
        let MemberConfig { node, database, root, port, installation } = config;
        let (root, name) = (root.to_owned(), database.clone());
        let prepare = move || {
            let user = server_user()?;
            let paths = MemberPaths::new(&root, &name, port)?;
            paths.prepare(user.as_ref())?;
            Ok((paths, user))
        };
        let (paths, user) = volume::run("open member", volume::PATIENCE, prepare).await?;
        Ok(Self(Arc::new(Inner {
            observer: Session::new(&paths.run, port, "mainstay agent"),
            control: Session::new(&paths.run, port, "mainstay control"),
            changing: tokio::sync::Mutex::new(()),
            turns: turns::Turns::default(),
            node,
            database,
            port,
            installation,
            paths,
            user,
        })))
    }

    /// The node it runs on.
    pub fn node(&self) -> &NodeName {
        &self.0.node
    }

    /// The database it belongs to.
    pub fn database(&self) -> &DatabaseName {
        &self.0.database
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// Where its files are.
    pub fn paths(&self) -> &MemberPaths {
        &self.0.paths
    }

    /// The programs it runs with.
    pub fn installation(&self) -> &Installation {
        &self.0.installation
    }

    /// Whom its programs run as; `None` for our own user.
    pub fn user(&self) -> Option<&OsUser> {
        self.0.user.as_ref()
    }

    /// The lasting connection for observation.
    pub fn observer(&self) -> &Session {
        &self.0.observer
    }

    /// The lasting connection for commands, so that none of them holds up the observation.
    pub fn control(&self) -> &Session {
        &self.0.control
    }

    /// A new, not yet connected session with its own `application_name`.
    pub fn session(&self, name: &'static str) -> Session {
        Session::new(&self.0.paths.run, self.0.port, name)
    }

    /// One of PostgreSQL's programs, as the right user, with messages in English.
    fn tool(
        &self,
        program: &str,
        args: impl IntoIterator<Item = impl Into<String>>,
        deadline: Duration,
    ) -> ToolCommand {
        ToolCommand {
            env: environment(),
            user: self.user().cloned(),
            umask: 0o077,
            ..ToolCommand::new(self.installation().program(program), args, deadline)
        }
    }

    /// Changes configuration files, one caller after the other, on a thread that may be abandoned; then it can no longer
    /// undo what a later caller does.
    async fn change_files<T, F>(&self, what: &str, change: F) -> Result<T, FileError>
    where
        T: Send + 'static,
        F: FnOnce(&Self) -> io::Result<T> + Send + 'static,
    {
        let _changing = self.0.changing.lock().await;
        let (member, turn) = (self.clone(), self.0.turns.ask());
        volume::run(what, volume::PATIENCE, move || member.0.turns.take(turn, || change(&member))).await
    }

    /// The lock that keeps two agents from working on the same data directory; `None` when it is taken.
    ///
    /// A lock that was just given up can seem taken for a moment: a program that is being started elsewhere in this
    /// process holds a copy of all descriptors between fork and exec.
    async fn lock(&self) -> Result<Option<Lock>, FileError> {
        const MOMENT: Duration = Duration::from_secs(1);
        let path = self.paths().lock();
        volume::run("lock member", volume::PATIENCE, move || {
            let begin = Instant::now();
            loop {
                let lock = Lock::try_take(&path)?;
                if lock.is_some() || begin.elapsed() > MOMENT {
                    return Ok(lock);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        })
        .await
    }
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Member({} on {})", self.0.database, self.0.node)
    }
}

fn environment() -> Vec<(String, String)> {
    vec![("LC_ALL".to_owned(), "C".to_owned())]
}

fn server_user() -> io::Result<Option<OsUser>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    OsUser::lookup("postgres")?.map(Some).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            "PostgreSQL refuses to run as root and there is no operating-system user `postgres`. Hint: useradd --system postgres",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(phase: Phase) -> Leadership {
        Leadership {
            term: Term(4),
            phase,
            sync: model::leadership::SyncSet::default(),
            previous_sync: vec![],
            sync_version: 0,
            system_identifier: None,
            lineage: vec![],
            restart: None,
            handed_on: 0,
            because: String::new(),
        }
    }

    #[test]
    fn only_the_agreed_primary_gets_a_token() {
        let (a, b) = (NodeName::from("a"), NodeName::from("b"));
        let led = record(Phase::Led { primary: a.clone() });
        assert_eq!(PrimaryToken::of(&led, &a).map(PrimaryToken::term), Some(Term(4)));
        assert_eq!(PrimaryToken::of(&led, &b), None);
        let handing = record(Phase::HandingOver { from: a.clone(), to: b.clone() });
        assert_eq!((PrimaryToken::of(&handing, &a), PrimaryToken::of(&handing, &b)), (None, None));
        let revoking = record(Phase::Revoking { former: a.clone(), prefer: Some(b.clone()), forced: None });
        assert_eq!((PrimaryToken::of(&revoking, &a), PrimaryToken::of(&revoking, &b)), (None, None));
    }
}
