//! The store kept by the agents themselves: Raft between them, one redb file on each.
//!
//! ```text
//! agent's runtime                     thread `coordination`                      thread `coordination-disk`
//!   Coordinator methods ------------> openraft (elections, heartbeats,            appends, votes, snapshots:
//!   Embedded::handle <- transport     replication), lease deadlines, hints ----> one fsync for all that queued up
//!                                       |
//!                                       +--> RaftTransport::call (the agent's mutual TLS)
//! ```
//!
//! A node's identity within Raft is an *incarnation*: a random number made with the file. Names map to incarnations in
//! the membership, so a node that lost its disk is a new member that must be added as a learner and promoted; the voter
//! it was can never vote again.

mod client;
mod incoming;
mod leases;
mod membership;
mod message;
mod network;
mod node;
mod operation;
mod pace;
mod raft_types;
mod round_trips;
mod status;
mod store;
#[cfg(test)]
mod store_test;
mod timings;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use model::NodeName;
use openraft::async_runtime::WatchReceiver;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

pub use message::MAX_MESSAGE;
pub use network::RaftTransport;
pub use status::{Role, Status};
pub use store::{FILE_NAME, export, import};
pub use timings::Timings;

use crate::coordinator::validate_key;
use crate::{
    BoxFuture, Coordinator, Entry, Error, LeaderHint, LeaseId, Listing, Reason, Revision, Txn, TxnOutcome,
    Watch,
};
use leases::LeaseClock;
use node::Node;
use operation::{Done, Operation};
use pace::Pace;
use raft_types::{Command, RaftHandle, RaftId};

/// What a node needs to take part.
#[derive(Clone, Debug)]
pub struct EmbeddedConfig {
    /// This node's name, by which the others' transports reach it.
    pub node: NodeName,
    /// Where `coordination.redb` lies. Never on a database's volume: a hung disk there must not cost the vote.
    pub directory: PathBuf,
    /// Heartbeat and election times where the network is fast; the same on all nodes. On a slow one they stretch.
    pub timings: Timings,
}

/// Why a node's store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file cannot be made, read or locked; the text names it.
    #[error("cannot open the coordination store in {directory}: {source}")]
    Store {
        /// The directory given.
        directory: PathBuf,
        /// What the system or redb said.
        source: io::Error,
    },
    /// The timings contradict each other.
    #[error("impossible timings: {0}")]
    Timings(String),
    /// Raft refused what it found in the file.
    #[error("cannot start from the coordination store in {directory}: {problem}")]
    Raft {
        /// The directory given.
        directory: PathBuf,
        /// What Raft said.
        problem: String,
    },
}

/// A node of the embedded store. Dropping it is as safe as a crash; [`Embedded::shutdown`] also waits for the file.
pub struct Embedded {
    node: Arc<Node>,
    runtime: Handle,
    stop: Mutex<Option<oneshot::Sender<()>>>,
    finished: Mutex<Option<oneshot::Receiver<()>>>,
}

/// How long [`Embedded::shutdown`] waits for the disk.
const SHUTDOWN: Duration = Duration::from_secs(5);

impl Embedded {
    /// Opens this node's store and starts taking part; a node that belongs to no group yet waits to be initialised or
    /// added.
    ///
    /// # Errors
    /// [`OpenError`]: the file cannot be used, or the timings are impossible.
    pub async fn open(config: EmbeddedConfig, transport: Arc<dyn RaftTransport>) -> Result<Self, OpenError> {
        let place = store::Place::Directory(config.directory.clone());
        Self::open_in(place, config, transport).await
    }

    /// As [`Embedded::open`], with the store on a medium of the caller's instead of a file: what a test of power losses
    /// needs, whose medium forgets what was not flushed. `config.directory` only appears in messages.
    ///
    /// # Errors
    /// As [`Embedded::open`].
    pub async fn open_on(
        medium: impl redb::StorageBackend,
        config: EmbeddedConfig,
        transport: Arc<dyn RaftTransport>,
    ) -> Result<Self, OpenError> {
        Self::open_in(store::Place::medium(medium), config, transport).await
    }

    async fn open_in(
        place: store::Place,
        config: EmbeddedConfig,
        transport: Arc<dyn RaftTransport>,
    ) -> Result<Self, OpenError> {
        let (ready, started) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let (finish, finished) = oneshot::channel();
        let directory = config.directory.clone();
        let failed = |source| OpenError::Store { directory: directory.clone(), source };
        let thread = std::thread::Builder::new().name("coordination".to_owned());
        thread.spawn(move || run(place, config, transport, ready, stopped, finish)).map_err(failed)?;
        let gone = || failed(io::Error::other("the coordination thread ended early"));
        let (node, runtime) = started.await.map_err(|_| gone())??;
        Ok(Self { node, runtime, stop: Mutex::new(Some(stop)), finished: Mutex::new(Some(finished)) })
    }

    /// Founds the group with these voters, this node among them. To be called by one founder only, once; repeating it
    /// with the same voters is harmless, any other call on a founded group is refused ([`Error::Invalid`]).
    /// All voters must be reachable: each is asked for its incarnation.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when a voter did not answer in time; nothing was founded.
    pub async fn initialize(&self, voters: &[NodeName], within: Duration) -> Result<(), Error> {
        self.node.initialize(voters, within).await
    }

    /// Adds a node (or its new incarnation) as a learner: it gets everything and has no vote. Repeatable.
    ///
    /// # Errors
    /// [`Error::Invalid`] when its store belongs to another group; [`Error::Unavailable`] when it does not answer.
    pub async fn add_learner(&self, name: &NodeName, within: Duration) -> Result<(), Error> {
        self.done(Operation::AddLearner(name.clone()), within).await
    }

    /// Makes a learner a voter once it has caught up; an earlier incarnation of the same name is removed in the same
    /// step. Repeatable.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is no learner; [`Error::Unavailable`] when it did not catch up in time.
    pub async fn promote_to_voter(&self, name: &NodeName, within: Duration) -> Result<(), Error> {
        self.done(Operation::Promote(name.clone()), within).await
    }

    /// Removes a node with all its incarnations. Repeatable. To come back it needs an empty store.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is the last voter.
    pub async fn remove(&self, name: &NodeName, within: Duration) -> Result<(), Error> {
        self.done(Operation::Remove(name.clone()), within).await
    }

    /// Hands the lead to a voter and waits until it leads. Nothing is lost if it fails: the group elects as usual.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is no voter; [`Error::Unavailable`] when it did not take over in time.
    pub async fn transfer_leadership(&self, to: &NodeName, within: Duration) -> Result<(), Error> {
        self.done(Operation::Transfer(to.clone()), within).await
    }

    /// Answers a message that a peer's [`RaftTransport`] sent to this node. `from` is the name that the transport has
    /// proven. Never fails: what cannot be answered is refused in the answer.
    pub async fn handle(&self, from: &NodeName, request: Bytes) -> Bytes {
        self.node.handle(from, request).await
    }

    /// What this node believes about itself: for people, never proof.
    pub fn status(&self) -> Status {
        self.node.status()
    }

    /// The runtime of Raft's own thread, which nothing else keeps busy: the right place for the tasks that carry its
    /// messages, and the wrong one for anything that may block.
    pub fn runtime(&self) -> Handle {
        self.runtime.clone()
    }

    /// Stops taking part and waits (at most 5 s) until the file is closed.
    pub async fn shutdown(&self) {
        let _ = tokio::time::timeout(SHUTDOWN, self.node.raft.shutdown()).await;
        drop(self.stop.lock().unwrap_or_else(PoisonError::into_inner).take());
        let finished = self.finished.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(finished) = finished {
            let _ = tokio::time::timeout(SHUTDOWN, finished).await;
        }
    }

    async fn done(&self, operation: Operation, within: Duration) -> Result<(), Error> {
        self.node.execute(&operation, within).await.map(|_| ())
    }
}

impl Coordinator for Embedded {
    fn get<'a>(&'a self, key: &'a str, within: Duration) -> BoxFuture<'a, Result<Option<Entry>, Error>> {
        Box::pin(async move {
            validate_key(key)?;
            let done = self.node.execute(&Operation::Get(key.to_owned()), within).await?;
            let Done::Entry(entry) = done else { return Err(mismatch()) };
            Ok(entry.map(Into::into))
        })
    }

    fn list<'a>(&'a self, prefix: &'a str, within: Duration) -> BoxFuture<'a, Result<Listing, Error>> {
        Box::pin(async move {
            let done = self.node.execute(&Operation::List(prefix.to_owned()), within).await?;
            let Done::Listing { entries, revision } = done else { return Err(mismatch()) };
            Ok(Listing { entries: entries.into_iter().map(Into::into).collect(), revision })
        })
    }

    fn txn(&self, txn: Txn, within: Duration) -> BoxFuture<'_, Result<TxnOutcome, Error>> {
        Box::pin(async move {
            txn.validate()?;
            let done = self.node.execute(&Operation::Write(txn.into()), within).await?;
            let Done::Txn(outcome) = done else { return Err(mismatch()) };
            Ok(outcome)
        })
    }

    fn watch(&self, prefix: &str, from: Revision) -> Watch {
        let (sender, watch) = Watch::channel();
        self.runtime.spawn(self.node.shared.clone().feed(prefix.to_owned(), from, sender));
        watch
    }

    fn grant_lease(&self, ttl: Duration, within: Duration) -> BoxFuture<'_, Result<LeaseId, Error>> {
        Box::pin(async move {
            let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1);
            let done = self.node.execute(&Operation::Write(Command::Grant { ttl_ms }), within).await?;
            let Done::Granted(lease) = done else { return Err(mismatch()) };
            Ok(lease)
        })
    }

    fn keep_alive(&self, lease: LeaseId, within: Duration) -> BoxFuture<'_, Result<Duration, Error>> {
        Box::pin(async move {
            let done = self.node.execute(&Operation::KeepAlive(lease), within).await?;
            let Done::Renewed(millis) = done else { return Err(mismatch()) };
            Ok(Duration::from_millis(millis))
        })
    }

    fn revoke_lease(&self, lease: LeaseId, within: Duration) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.done(Operation::Write(Command::EndLease(lease)), within))
    }

    fn leader(&self) -> watch::Receiver<LeaderHint> {
        self.node.hint.subscribe()
    }
}

/// A peer answered something that does not belong to the question: it runs another version, or lies.
fn mismatch() -> Error {
    Error::OutcomeUnknown(Reason::Refused("the leader answered another question".to_owned()))
}

// --- The thread -----------------------------------------------------------------------------------------------------

type Started = Result<(Arc<Node>, Handle), OpenError>;

fn run(
    place: store::Place,
    config: EmbeddedConfig,
    transport: Arc<dyn RaftTransport>,
    ready: oneshot::Sender<Started>,
    stopped: oneshot::Receiver<()>,
    finish: oneshot::Sender<()>,
) {
    let directory = config.directory.clone();
    let failed = |source| OpenError::Store { directory: directory.clone(), source };
    let opened = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .and_then(|runtime| Ok((runtime, store::open(place)?)));
    let (runtime, opened) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let _ = ready.send(Err(failed(error)));
            return;
        }
    };
    let store::Opened { id, log, machine, writer } = opened;
    runtime.block_on(async {
        match start(config, transport, id, log, machine).await {
            Ok(node) => {
                let background = tokio::spawn(tend(node.clone()));
                let pace = tokio::spawn(round_trips::keep_pace(node.clone()));
                if ready.send(Ok((node, Handle::current()))).is_ok() {
                    let _ = stopped.await;
                }
                background.abort();
                pace.abort();
            }
            Err(error) => {
                let _ = ready.send(Err(error));
            }
        }
    });
    // Ends every task, and with the last of them the disk's thread, which then closes the file.
    drop(runtime);
    let _ = writer.join();
    let _ = finish.send(());
}

async fn start(
    config: EmbeddedConfig,
    transport: Arc<dyn RaftTransport>,
    id: RaftId,
    log: store::Log,
    machine: store::Machine,
) -> Result<Arc<Node>, OpenError> {
    let raft_config = config.timings.to_raft().map_err(|error| OpenError::Timings(error.to_string()))?;
    let pace = Pace::of_this_thread();
    let network = network::Network::new(transport.clone(), config.timings, pace.clone());
    let shared = machine.shared();
    let raft = RaftHandle::new(id, Arc::new(raft_config), network, log, machine).await;
    let directory = config.directory;
    let raft = raft.map_err(|fatal| OpenError::Raft { directory, problem: fatal.to_string() })?;
    Ok(Arc::new(Node {
        name: config.node,
        id,
        raft,
        shared,
        transport,
        timings: config.timings,
        pace,
        leases: LeaseClock::new(),
        hint: watch::Sender::new(LeaderHint::default()),
        arriving: incoming::Arriving::default(),
        heard: Mutex::new(None),
    }))
}

/// Keeps the leader hint and the lease deadlines current, and no change of the voters half-way.
async fn tend(node: Arc<Node>) {
    let mut half_way = None;
    let mut metrics = node.raft.server_metrics();
    let mut tick = tokio::time::interval(leases::TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {
                node.end_leases();
                half_way = finish_change(&node, half_way);
            }
            changed = metrics.changed() => if changed.is_err() { return },
        }
        node.update_hint();
    }
}

/// Finishes a change of the voters that has stood half-way since long enough; since when it stands so.
fn finish_change(node: &Arc<Node>, half_way: Option<Instant>) -> Option<Instant> {
    if !node.leads_half_way() {
        return None;
    }
    let since = half_way.unwrap_or_else(Instant::now);
    if since.elapsed() < membership::HALF_WAY {
        return Some(since);
    }
    let node = node.clone();
    tokio::spawn(async move { node.finish_change().await });
    None
}
