//! Starting a program of the user's: its directories, its memory limit, its record; and ending what overstays.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::{MemoryGroup, OsUser, Process, Registry, Spawn, spawn};
use crate::disposable;

/// How long a start may take up to the program's first instruction.
const START_DEADLINE: Duration = Duration::from_secs(10);

/// How long a record on the agent's own disk may take.
pub(crate) const RECORD_DEADLINE: Duration = Duration::from_secs(2);

/// The key among a record's facts under which the control group stands.
const GROUP: &str = "memory_group";

/// A program of the user's as it shall be started.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Under which it is recorded.
    pub key: String,
    /// Program and arguments. Never empty.
    pub command: Vec<String>,
    /// Its environment.
    pub env: BTreeMap<String, String>,
    /// Its working directory, made when missing.
    pub cwd: PathBuf,
    /// Whom it runs as; `None` for our own user.
    pub user: Option<OsUser>,
    /// To whom its working directory belongs when it is made; `None` for our own user.
    pub owner: Option<OsUser>,
    /// File that takes both its output streams.
    pub log: PathBuf,
    /// The most memory that it may use with all it starts, in bytes.
    pub memory: Option<u64>,
    /// What its keeper wants to know after a restart of the agent.
    pub facts: BTreeMap<String, Value>,
}

/// A program that runs.
#[derive(Debug)]
pub struct Launched {
    /// It.
    pub process: Process,
    /// The control group that limits it.
    pub memory: Option<MemoryGroup>,
    /// Why it is not limited although it should be, in one sentence.
    pub unlimited: Option<String>,
}

/// Starts the program and records it. A limit that the machine cannot keep does not keep it from running.
///
/// # Errors
/// When it cannot be started.
pub async fn launch(launch: Launch, registry: Registry) -> io::Result<Launched> {
    let (program, args) =
        launch.command.split_first().ok_or_else(|| io::Error::other("the command is empty"))?;
    let (cwd, log, owner) = (launch.cwd.clone(), launch.log.clone(), launch.owner.clone());
    let (group, bytes) = (group_name(&registry, &launch.key), launch.memory);
    let prepared = disposable::run("prepare a start", START_DEADLINE, move || {
        make_directories(&cwd, &log, owner.as_ref())?;
        Ok::<_, io::Error>(bytes.map(|bytes| MemoryGroup::create(&group, bytes)))
    });
    let (memory, unlimited) = match prepared.await.map_err(io::Error::other)?? {
        Some(Ok(group)) => (Some(group), None),
        Some(Err(because)) => (None, Some(because)),
        None => (None, None),
    };
    let detached = Spawn {
        env: launch.env.clone().into_iter().collect(),
        cwd: Some(launch.cwd.clone()),
        user: launch.user.clone(),
        log: Some(launch.log.clone()),
        mark: Some(registry.mark(&launch.key)),
        memory: memory.clone(),
        ..Spawn::new(program, args.iter().cloned())
    };
    let process = spawn(detached, START_DEADLINE).await?;
    let mut facts = launch.facts;
    if let Some(group) = &memory {
        facts.insert(GROUP.to_owned(), json!(group.path()));
    }
    record(registry, launch.key, &process, json!(facts)).await;
    Ok(Launched { process, memory, unlimited })
}

async fn record(registry: Registry, key: String, process: &Process, facts: Value) {
    let (id, of) = (process.id(), key.clone());
    let recorded = disposable::run("registry", RECORD_DEADLINE, move || registry.record(&key, id, facts));
    match recorded.await {
        Ok(Ok(())) => {}
        // It runs, and is found again by its mark.
        Ok(Err(error)) => tracing::warn!(key = of, %error, "a process could not be recorded"),
        Err(error) => tracing::warn!(key = of, %error, "a process could not be recorded"),
    }
}

/// The control group that a record's facts name, if it is still there.
pub fn group_of(facts: &Value) -> Option<MemoryGroup> {
    facts[GROUP].as_str().and_then(|path| MemoryGroup::find(Path::new(path)))
}

/// Unique on the machine: several nodes of a lab have instances of one name.
fn group_name(registry: &Registry, key: &str) -> String {
    let hash = registry.mark(key).bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{key}.{hash:016x}")
}

fn make_directories(cwd: &Path, log: &Path, owner: Option<&OsUser>) -> io::Result<()> {
    if !cwd.exists() {
        std::fs::create_dir_all(cwd)?;
        if let Some(owner) = owner.filter(|_| rustix::process::geteuid().is_root()) {
            std::os::unix::fs::chown(cwd, Some(owner.uid), Some(owner.gid))?;
        }
    }
    log.parent().map_or(Ok(()), std::fs::create_dir_all)
}

/// Removes the record of a process that has ended.
pub async fn forget(registry: Registry, key: String) {
    let text = key.clone();
    let forgotten = disposable::run("registry", RECORD_DEADLINE, move || registry.forget(&key)).await;
    if !matches!(forgotten, Ok(Ok(()))) {
        // Harmless: the process is gone, and a record of a process that is gone is ignored.
        tracing::warn!(key = text, "the record of an ended process could not be removed");
    }
}
