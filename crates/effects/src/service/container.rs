//! Instances that are containers of podman or docker.
//!
//! `podman run` (or `docker run`) stays for as long as its container does: it passes SIGTERM on, prints what the container
//! prints, and ends with its exit code. So this client is the process that is supervised, like any program. The container
//! itself is nobody's child and outlives a client that is killed: it has a name of its own, by which what is left of it
//! is removed before each start and behind each end. The name is recorded with the process.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::system::size;
use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::InstanceSpec;
use crate::process::{Exit, OsUser, Process, Registry, ToolCommand, find_program, run_tool};

/// Engines, the preferred one first.
const ENGINES: [&str; 2] = ["podman", "docker"];

/// What of our own environment tells an engine's client how the engine is set up.
pub const SETUP: [&str; 8] = [
    "CONTAINERS_CONF",
    "CONTAINERS_STORAGE_CONF",
    "CONTAINER_HOST",
    "DOCKER_CONFIG",
    "DOCKER_CONTEXT",
    "DOCKER_HOST",
    "REGISTRY_AUTH_FILE",
    "XDG_RUNTIME_DIR",
];

/// How long an engine may take to remove a container, which it kills for that.
const REMOVE_DEADLINE: Duration = Duration::from_secs(10);
/// How long it may take to say how one ended.
const INSPECT_DEADLINE: Duration = Duration::from_secs(2);

/// The key among a record's facts under which stands what may be left.
const FACT: &str = "container";

/// The image from which an instance runs, and who runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// The image, as the engine knows it.
    pub image: String,
    /// The engine; `None` when the node has none.
    pub engine: Option<Engine>,
    /// Whom it runs as inside; `None` for whom the image names.
    pub user: Option<OsUser>,
}

/// A container engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Engine {
    /// Its client.
    pub program: PathBuf,
    /// How the client finds the engine.
    pub env: BTreeMap<String, String>,
}

/// A container that may be left when its client has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Remains {
    engine: Engine,
    name: String,
}

impl Engine {
    /// The engine of this node: podman, or else docker.
    pub fn find() -> Option<Self> {
        let program = ENGINES.into_iter().find_map(find_program)?;
        let env = SETUP.into_iter().filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?)));
        Some(Self { program, env: env.collect() })
    }

    fn tool(&self, arguments: &[&str], deadline: Duration) -> ToolCommand {
        self.tool_within(&[], arguments, deadline)
    }

    /// Its client, started by other words.
    fn tool_within(&self, within: &[&str], arguments: &[&str], deadline: Duration) -> ToolCommand {
        let env = self.env.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let client = self.program.display().to_string();
        let mut words = within.iter().copied().chain([client.as_str()]).chain(arguments.iter().copied());
        let program = PathBuf::from(words.next().unwrap_or_default());
        ToolCommand { env, ..ToolCommand::new(program, words, deadline) }
    }
}

impl Container {
    /// The container of an instance that is recorded under `mark`.
    ///
    /// # Errors
    /// When there is no engine.
    pub(super) fn remains(&self, id: &str, mark: &str) -> io::Result<Remains> {
        let engine = self.engine.clone().ok_or_else(|| {
            io::Error::other(format!("its image cannot run: this node has none of {}", ENGINES.join(", ")))
        })?;
        Ok(Remains { engine, name: name(id, mark) })
    }

    /// The words that run it. Values of its environment are no part of them, because everybody on a machine can read those;
    /// but for a few that would mean something to the client itself.
    pub(super) fn command(&self, spec: &InstanceSpec, remains: &Remains) -> Vec<String> {
        let directory = spec.cwd.display();
        let mut words: Vec<String> = vec![remains.engine.program.display().to_string()];
        let mut say = |more: &[&str]| words.extend(more.iter().map(|word| (*word).to_owned()));
        say(&["run", "--name", &remains.name, "--label", &format!("mainstay.instance={}", spec.id)]);
        // Its port is the node's, as a process's is; its output is the client's, and kept nowhere else.
        say(&["--network", "host", "--log-driver", "none", "--volume", &format!("{directory}:{directory}")]);
        for limit in own_limits() {
            say(&["--ulimit", &limit]);
        }
        if let Some(bytes) = spec.memory {
            let bytes = bytes.to_string();
            say(&["--memory", &bytes, "--memory-swap", &bytes]);
        }
        if let Some(user) = &self.user {
            say(&["--user", &format!("{}:{}", user.uid, user.gid)]);
        }
        for (name, value) in &spec.env {
            match means_client(name) {
                true => say(&["--env", &format!("{name}={value}")]),
                false => say(&["--env", name]),
            }
        }
        say(&[&self.image]);
        words.extend(spec.command.iter().cloned());
        words
    }
}

impl Remains {
    /// The environment of its client: the instance's, from which it takes the values, and what the engine needs.
    pub(super) fn client_env(&self, spec: &InstanceSpec) -> BTreeMap<String, String> {
        let own = spec.env.iter().filter(|(name, _)| !means_client(name));
        own.chain(&self.engine.env).map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// To be recorded with its client.
    pub(super) fn fact(&self) -> (String, Value) {
        (FACT.to_owned(), json!(self))
    }

    /// What a record's facts name.
    pub(super) fn of(facts: &Value) -> Option<Self> {
        serde_json::from_value(facts[FACT].clone()).ok()
    }

    /// Kills it if it runs, and removes it. Nothing is left to do when it is not there.
    pub(super) async fn remove(&self) {
        self.remove_within(&[]).await;
    }

    async fn remove_within(&self, within: &[&str]) {
        // Removal alone may wait for it to end by itself. An error mostly means that it does not run.
        let kill = ["kill", &self.name];
        let _ = run_tool(self.engine.tool_within(within, &kill, REMOVE_DEADLINE)).await;
        let remove = ["rm", "--force", "--volumes", &self.name];
        let outcome = run_tool(self.engine.tool_within(within, &remove, REMOVE_DEADLINE)).await;
        let failed = match outcome.map(|output| output.checked()) {
            Ok(Ok(_)) => return,
            Ok(Err(error)) | Err(error) => error.to_string(),
        };
        // Both engines say so, podman only some versions as an error.
        if !failed.to_lowercase().contains("no such container") && !failed.contains("no container with") {
            tracing::warn!(container = self.name, because = failed, "a container could not be removed");
        }
    }

    /// Whether it was killed for want of memory, as far as the engine knows.
    pub(super) async fn ran_out(&self) -> bool {
        let arguments = ["inspect", "--format", "{{.State.OOMKilled}}", &self.name];
        let told = run_tool(self.engine.tool(&arguments, INSPECT_DEADLINE)).await;
        told.is_ok_and(|output| output.is_success() && output.stdout.trim() == "true")
    }
}

/// Removes every container that a registry of processes in `directory` names: nobody is left there who would. The engine's
/// client is started by the words `within`, if any.
///
/// # Errors
/// When a record cannot be read.
pub async fn remove_recorded(directory: &Path, within: &[&str]) -> io::Result<()> {
    if !directory.exists() {
        return Ok(());
    }
    for found in Registry::open(directory)?.load()? {
        if let Some(remains) = Remains::of(&found.record.facts) {
            remains.remove_within(within).await;
        }
    }
    Ok(())
}

/// Whether a variable tells a client where its programs and settings are.
fn means_client(name: &str) -> bool {
    ["PATH", "HOME", "USER", "LOGNAME"].contains(&name) || SETUP.contains(&name)
}

/// Ends a container at once, and then its client, which has nothing to wait for any more.
pub(super) fn killed(remains: Remains, client: Option<Process>) -> JoinHandle<()> {
    tokio::spawn(async move {
        remains.remove().await;
        if let Some(client) = client {
            drop(client.kill_session());
        }
    })
}

/// Removes what is left of a container behind the end of its client. Says when that is done, and before whether it was
/// killed for want of memory.
pub(super) fn swept(
    remains: Remains,
    client: Option<Process>,
) -> (oneshot::Receiver<usize>, oneshot::Receiver<bool>) {
    let ((done, swept), (told, ran_out)) = (oneshot::channel(), oneshot::channel());
    tokio::spawn(async move {
        let others = client.map(|client| client.kill_session());
        // Nobody may ask any more.
        let _ = told.send(remains.ran_out().await);
        remains.remove().await;
        let others = match others {
            Some(others) => others.await.unwrap_or(0),
            None => 0,
        };
        let _ = done.send(others);
    });
    (swept, ran_out)
}

/// What is told of a container with a limit that was killed. Engines do not always hear of the kernel's reason before their
/// container is gone (conmon with control groups of version 1), so their word is believed and their silence is not.
pub(super) fn killed_for_memory(exit: Exit, limit: u64, is_known: bool) -> Option<String> {
    /// As shells count a death by SIGKILL.
    const KILLED: Exit = Exit::Code(128 + 9);
    let limit = size::format(limit);
    if is_known {
        return Some(format!("(killed for want of memory: it needs more than its limit of {limit})"));
    }
    (exit == KILLED).then(|| {
        format!("(killed by somebody, or for want of memory: it may use no more than its limit of {limit})")
    })
}

/// Unique on the machine: several nodes of a lab have instances of one name.
fn name(id: &str, mark: &str) -> String {
    let hash = mark.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '.' };
    format!("mainstay-{}-{hash:016x}", id.chars().map(plain).collect::<String>())
}

/// The limits that a process of ours would have. Engines' defaults are higher than somebody may set who cannot raise
/// limits; whoever can leaves them as they are.
fn own_limits() -> Vec<String> {
    let able = capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_RESOURCE));
    if able {
        return vec![];
    }
    // Podman's client lowers its own limit of processes to so many.
    let limits = [("nofile", Resource::Nofile, u64::MAX), ("nproc", Resource::Nproc, 32_768)];
    let in_words = |(name, resource, most): (&str, Resource, u64)| {
        let limit = getrlimit(resource);
        let bound = |value: Option<u64>| match value.map_or(most, |value| value.min(most)) {
            u64::MAX => "-1".to_owned(),
            value => value.to_string(),
        };
        format!("{name}={}:{}", bound(limit.current), bound(limit.maximum))
    };
    limits.map(in_words).into()
}
