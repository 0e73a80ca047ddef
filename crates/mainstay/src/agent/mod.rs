//! The agent: one on every node. It votes, observes, decides and acts.
//!
//! `mind` is the loop around [`decide::agent::Agent`]: it waits in one place, changes state in another, synchronous one,
//! and hands the commands to the hands: `peers`, `store`, `member`, `gate`, `data_plane`, `instances`, `journal`.

mod api;
mod artefacts;
mod cookies;
mod data_plane;
mod gate;
mod incarnation;
mod instances;
mod jobs;
mod journal;
mod member;
mod mind;
mod peers;
mod programs;
mod releases;
mod renewal;
mod store;
mod upkeep;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use decide::agent::{Agent, Input};
use model::NodeName;
use model::routes::ProxyReport;
use model::system::System;
use tokio::sync::{mpsc, watch};
use transport::{Identity, Listener, StreamKind, serve_rpc};

use journal::Journal;
use peers::Peers;
use store::Store;
pub(crate) use store::SystemRecord;

/// How often orphans are reaped.
const REAP_EVERY: std::time::Duration = std::time::Duration::from_secs(10);

/// How to run an agent.
#[derive(Clone, Debug)]
pub struct Options {
    /// This node's name in the system file.
    pub node: NodeName,
    /// Where everything of this node lies.
    pub root: PathBuf,
    /// The system file to begin with; what the system has agreed on since replaces it.
    pub system: System,
}

/// Why an agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The node is not in the file.
    #[error("the system file has no node `{0}`")]
    UnknownNode(NodeName),
    /// Another agent uses the directory.
    #[error("another agent runs with {}", .0.display())]
    Running(PathBuf),
    /// Certificate or key are missing or wrong.
    #[error(transparent)]
    Identity(#[from] transport::IdentityError),
    /// The address of the agent cannot be listened on.
    #[error(transparent)]
    Listen(#[from] transport::ListenError),
    /// The coordination store cannot be opened.
    #[error(transparent)]
    Coordination(#[from] coordination::embedded::OpenError),
    /// etcd cannot be used.
    #[error(transparent)]
    Etcd(#[from] coordination::etcd::EtcdError),
    /// A file or directory.
    #[error("{doing} {}: {source}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// The kernel's reason.
        source: std::io::Error,
    },
}

/// Where this node keeps what (see ARCHITECTURE.md).
#[derive(Clone, Debug)]
pub(crate) struct Places {
    pub(crate) root: PathBuf,
}

impl Places {
    pub(crate) fn state(&self, name: &str) -> PathBuf {
        self.root.join("state").join(name)
    }

    pub(crate) fn run(&self, name: &str) -> PathBuf {
        self.root.join("run").join(name)
    }

    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.root.join("log").join(name)
    }

    /// The number of the run that begins.
    fn next_incarnation(&self) -> Result<u64, AgentError> {
        let path = self.state("incarnation");
        incarnation::next(&path, effects::clock::wall_us()).map_err(|source| AgentError::File {
            doing: "write",
            path,
            source,
        })
    }

    fn make(&self) -> Result<(), AgentError> {
        let failed = |doing, path| move |source| AgentError::File { doing, path, source };
        for name in ["state", "run", "log", "databases", "services", "jobs", "state/promises"] {
            let path = self.root.join(name);
            std::fs::create_dir_all(&path).map_err(failed("create", path))?;
        }
        // PostgreSQL's and services' users pass through these; what is secret inside has its own mode.
        for name in ["", "state", "run", "databases", "services", "jobs"] {
            let path = self.root.join(name);
            let open = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(&path, open).map_err(failed("open", path))?;
        }
        Ok(())
    }
}

/// Where everything that happens is sent.
#[derive(Clone)]
pub(crate) struct Inputs(mpsc::UnboundedSender<mind::Happening>);

impl Inputs {
    pub(crate) fn send(&self, input: Input) {
        // The mind ends only with the process; then nobody cares.
        let _ = self.0.send(mind::Happening::Input(Box::new(input)));
    }

    /// Asks the mind itself; the question runs between two inputs.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Agent) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let question = Box::new(move |agent: &Agent| {
            let _ = answer.send(question(agent));
        });
        self.0.send(mind::Happening::Question(question)).ok()?;
        answered.await.ok()
    }
}

/// What all parts of an agent share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) me: NodeName,
    pub(crate) places: Places,
    pub(crate) inputs: Inputs,
    store: Store,
    journal: Journal,
    pub(crate) system: watch::Receiver<System>,
    /// What the proxy has seen of its routes.
    traffic: Arc<watch::Sender<ProxyReport>>,
    programs: programs::Programs,
}

/// Runs the agent until the process is told to end.
///
/// # Errors
/// [`AgentError`] when it cannot start.
pub async fn run(options: Options) -> Result<(), AgentError> {
    let Options { node: me, root, system } = options;
    let places = Places { root };
    places.make()?;
    let _alone = take_lock(&places)?;
    let incarnation = places.next_incarnation()?;
    if let Err(error) = effects::node::go_first() {
        tracing::info!(%error, "this agent gets no more of a busy processor than what it supervises");
    }
    let (system, generation) = last_known_system(&places, system);
    let node = system.nodes.get(&me).cloned().ok_or_else(|| AgentError::UnknownNode(me.clone()))?;
    let identity = Identity::load(&places.state("identity"), &system.name)?;
    let (sender, happenings) = mpsc::unbounded_channel();
    let inputs = Inputs(sender);
    let journal = Journal::open(&places.log("events.jsonl"));
    let store = Store::open(&system, &me, &places.state("coordination"), &identity, inputs.clone()).await?;
    let (system_changed, system_now) = watch::channel(system.clone());
    let programs = programs::Programs::open(&places);
    let shared = Shared {
        me: me.clone(),
        programs,
        places,
        inputs: inputs.clone(),
        store,
        journal,
        system: system_now,
        traffic: Arc::new(watch::Sender::new(ProxyReport::default())),
    };
    let peers = Peers::new(inputs.clone());
    let rpc = transport::RpcPool::new(StreamKind::Api, &identity);
    rpc.set_targets(store::rpc_targets(&system, &me));
    let desk = desk(&shared);
    for (_, address) in node.agent_addresses() {
        let listener = Listener::bind(address, &identity)?;
        listener.offer_join(Arc::clone(&desk));
        tokio::spawn(accept(listener, shared.clone(), peers.clone(), rpc.clone()));
    }
    start_store(&shared, &system);
    tokio::spawn(reap_strangers());
    tokio::spawn(api::serve_socket(shared.clone(), rpc.clone()));
    tokio::spawn(jobs::run(shared.clone(), incarnation));
    tokio::spawn(programs::keep(shared.clone()));
    tokio::spawn(renewal::keep(shared.clone(), rpc.clone(), identity.clone()));
    let agent = Agent::new(me, system, generation, incarnation);
    let hands = mind::Hands::new(shared, peers, rpc, identity, system_changed, generation).await;
    // A task of its own: waking what `block_on` waits for costs the runtime one more look at the kernel each time.
    match tokio::spawn(mind::run(agent, hands, happenings)).await {
        Ok(()) => Ok(()),
        // Without its mind an agent must not go on as if it lived: whoever started it starts it anew.
        Err(ended) => std::panic::resume_unwind(ended.into_panic()),
    }
}

/// Lets nodes join through this one, if it holds the authority at that moment.
fn desk(shared: &Shared) -> Arc<dyn transport::JoinDesk> {
    Arc::new(crate::install::Desk {
        me: shared.me.clone(),
        root: shared.places.root.clone(),
        inputs: shared.inputs.clone(),
        runtime: tokio::runtime::Handle::current(),
    })
}

/// Reaps what nobody else will, for ever: the agent may be the first process of a container.
async fn reap_strangers() {
    loop {
        tokio::time::sleep(REAP_EVERY).await;
        let reap = || effects::process::reap_strangers(effects::clock::now());
        // Without a thread for it now, the next time will do.
        let Ok(reaped) = effects::disposable::start("reap", reap) else { continue };
        if let Ok(count @ 1..) = reaped.await {
            tracing::debug!(count, "processes that nobody waited for were reaped");
        }
    }
}

fn take_lock(places: &Places) -> Result<effects::files::Lock, AgentError> {
    let path = places.state("agent.lock");
    match effects::files::Lock::try_take(&path) {
        Ok(Some(lock)) => Ok(lock),
        Ok(None) => Err(AgentError::Running(places.root.clone())),
        Err(source) => Err(AgentError::File { doing: "lock", path, source }),
    }
}

/// The newest system file that this node has seen in force, or the given one.
fn last_known_system(places: &Places, given: System) -> (System, u64) {
    let known = std::fs::read(places.state("system.json")).ok();
    match known.and_then(|bytes| serde_json::from_slice::<store::SystemRecord>(&bytes).ok()) {
        Some(record) => (record.system, record.generation),
        None => (given, 0),
    }
}

/// Keeps the system file in force for the next start.
pub(crate) fn remember_system(path: &Path, system: &System, generation: u64) {
    let record = store::SystemRecord { generation, system: system.clone() };
    let written = serde_json::to_vec_pretty(&record).map_err(std::io::Error::other);
    if let Err(error) = written.and_then(|bytes| effects::files::write_atomic(path, &bytes, 0o600)) {
        tracing::warn!(%error, "the system file in force could not be kept; it is read from the coordination at the next start");
    }
}

fn start_store(shared: &Shared, system: &System) {
    let voters: Vec<NodeName> = system.voters().cloned().collect();
    tokio::spawn(shared.store.clone().feed());
    let databases = system.databases_on(&shared.me).map(|(name, _)| name.clone()).collect();
    tokio::spawn(shared.store.clone().read_records(databases));
    if voters.first() == Some(&shared.me) {
        tokio::spawn(shared.store.clone().found_group(voters));
    }
    tokio::spawn(shared.store.clone().keep_members(shared.me.clone(), shared.system.clone()));
}

async fn accept(mut listener: Listener, shared: Shared, peers: Peers, rpc: transport::RpcPool) {
    loop {
        let accepted = listener.accept().await;
        // A certificate outlives its node's place in the system: only nodes of the file in force are listened to.
        if !shared.system.borrow().nodes.contains_key(&accepted.peer) {
            tracing::warn!(peer = %accepted.peer, "a node that is not in the system file was turned away");
            continue;
        }
        let (shared, peers, rpc) = (shared.clone(), peers.clone(), rpc.clone());
        match accepted.kind {
            StreamKind::Peer => {
                let line = peers::line_of(&shared.system.borrow(), &accepted.peer, accepted.address.ip());
                if let Some(line) = line {
                    tokio::spawn(async move { peers.serve(accepted.connection, accepted.peer, line).await });
                }
            }
            StreamKind::Raft => {
                let Some(embedded) = shared.store.embedded.clone() else { continue };
                let raft = embedded.runtime();
                raft.spawn(serve_rpc(accepted.connection, move |from, body| {
                    let embedded = Arc::clone(&embedded);
                    async move { Ok(embedded.handle(&from, body).await.to_vec()) }
                }));
            }
            StreamKind::Api => {
                tokio::spawn(serve_rpc(accepted.connection, move |from, body| {
                    let (shared, rpc) = (shared.clone(), rpc.clone());
                    async move { api::answer_frame(&shared, &rpc, &from, &body).await }
                }));
            }
        }
    }
}
