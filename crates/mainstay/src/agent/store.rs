//! The coordination as this agent uses it: everything read once, then watched; commits; reads that renew leases.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coordination::embedded::{Embedded, EmbeddedConfig, RaftTransport, Timings};
use coordination::etcd::{Etcd, EtcdConfig, EtcdTls};
use coordination::{BoxFuture, Change, Coordinator, Entry, JsonCoordinator, Revision, Txn, TxnOutcome};
use decide::agent::{Input, Stored, Value};
use model::leadership::Leadership;
use model::system::{Coordination, System};
use model::{DatabaseName, LineName, NodeName};
use serde::{Deserialize, Serialize};
use transport::{Identity, RpcError, RpcPool, RpcTarget, StreamKind};

use super::{AgentError, Inputs};

/// How long one operation may take.
pub(super) const WITHIN: Duration = Duration::from_secs(2);

/// How often a primary asks whether its record still stands.
const READ_EVERY: Duration = Duration::from_millis(250);

/// How long a dead leader stays leader when etcd coordinates: the shortest that etcd allows.
const ETCD_LEADER_TTL: Duration = Duration::from_secs(2);

/// Key of the reason for which an operator paused the automation.
pub(super) const PAUSED: &str = "paused";
/// Key of the placement of instances.
const PLACEMENT: &str = "placement";
/// Key of what operators have asked for beyond the file.
pub(super) const UPKEEP: &str = "upkeep";
/// Key of the releases of services.
pub(super) const RELEASES: &str = "releases";
/// Key of the system file in force.
pub(super) const SYSTEM: &str = "system";

/// The system file in force, as it is agreed on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SystemRecord {
    /// Counts up with every `mainstay apply`.
    pub(crate) generation: u64,
    /// What the file says.
    pub(crate) system: System,
}

/// The key of a database's leadership record.
fn leadership_key(database: &DatabaseName) -> String {
    format!("databases/{database}/leadership")
}

/// The key of a database's generated secrets.
pub(super) fn secrets_key(database: &DatabaseName) -> String {
    format!("databases/{database}/secrets")
}

/// How etcd is to be used, with the certificates read from their files.
fn etcd_config(system: &System, etcd: &model::system::Etcd, me: &NodeName) -> Result<EtcdConfig, AgentError> {
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|source| AgentError::File { doing: "read", path: path.clone(), source })
    };
    let tls = match &etcd.ca {
        None => None,
        Some(ca) => {
            let identity = match (&etcd.certificate, &etcd.key) {
                (Some(certificate), Some(key)) => Some((read(certificate)?, read(key)?)),
                (Some(_) | None, _) => None,
            };
            Some(EtcdTls { ca: read(ca)?, identity })
        }
    };
    Ok(EtcdConfig {
        endpoints: etcd.endpoints.clone(),
        prefix: format!("/mainstay/{}", system.name),
        node: me.clone(),
        candidate: true,
        leader_ttl: ETCD_LEADER_TTL,
        tls,
    })
}

/// The coordination with the inputs it feeds.
#[derive(Clone)]
pub(super) struct Store {
    pub(super) coordinator: Arc<dyn Coordinator>,
    pub(super) embedded: Option<Arc<Embedded>>,
    raft_pool: Option<RpcPool>,
    inputs: Inputs,
}

/// Raft's messages over the agents' mutual TLS.
struct OverTls(RpcPool);

impl RaftTransport for OverTls {
    fn call(
        &self,
        target: &NodeName,
        request: Bytes,
        deadline: Duration,
    ) -> BoxFuture<'static, io::Result<Bytes>> {
        let (pool, target) = (self.0.clone(), target.clone());
        Box::pin(async move {
            pool.call(&target, request, deadline).await.map_err(|error| match error {
                RpcError::NotConnected(_) => io::Error::new(io::ErrorKind::NotConnected, error),
                RpcError::TimedOut { .. } => io::Error::new(io::ErrorKind::TimedOut, error),
                RpcError::ConnectionLost(_) | RpcError::Refused { .. } | RpcError::UnknownNode(_) => {
                    io::Error::other(error)
                }
            })
        })
    }
}

/// Every other node with all its lines, as something that can be asked.
pub(super) fn rpc_targets(system: &System, me: &NodeName) -> Vec<RpcTarget> {
    let lines = |node: &model::system::Node| -> Vec<(SocketAddr, Option<IpAddr>)> {
        let own = |line: &LineName| system.nodes.get(me).and_then(|own| own.lines.get(line).copied());
        node.agent_addresses().map(|(line, address)| (address, own(line))).collect()
    };
    let others = system.nodes.iter().filter(|(name, _)| *name != me);
    others.map(|(name, node)| RpcTarget { node: name.clone(), lines: lines(node) }).collect()
}

impl Store {
    /// Opens the back end that the system file names.
    pub(super) async fn open(
        system: &System,
        me: &NodeName,
        directory: &Path,
        identity: &Identity,
        inputs: Inputs,
    ) -> Result<Self, AgentError> {
        match &system.coordination {
            Coordination::Embedded => {
                let pool = RpcPool::new(StreamKind::Raft, identity);
                let config = EmbeddedConfig {
                    node: me.clone(),
                    directory: directory.to_owned(),
                    timings: Timings::default(),
                };
                let embedded = Arc::new(Embedded::open(config, Arc::new(OverTls(pool.clone()))).await?);
                // Connections are driven from Raft's own thread, so that nothing else delays its heartbeats.
                let _on_raft = embedded.runtime().enter();
                pool.set_targets(rpc_targets(system, me));
                let coordinator: Arc<dyn Coordinator> = embedded.clone();
                Ok(Self { coordinator, embedded: Some(embedded), raft_pool: Some(pool), inputs })
            }
            Coordination::Etcd(etcd) => {
                let etcd = Etcd::open(etcd_config(system, etcd, me)?).await?;
                Ok(Self { coordinator: Arc::new(etcd), embedded: None, raft_pool: None, inputs })
            }
        }
    }

    /// Follows a change of the system file: other nodes to talk to.
    pub(super) fn retarget(&self, system: &System, me: &NodeName) {
        if let (Some(pool), Some(embedded)) = (&self.raft_pool, &self.embedded) {
            let _on_raft = embedded.runtime().enter();
            pool.set_targets(rpc_targets(system, me));
        }
    }

    /// Feeds the mind with everything the coordination holds, for ever.
    pub(super) async fn feed(self) {
        let mut leader = self.coordinator.leader();
        let inputs = self.inputs.clone();
        let hints = async move {
            loop {
                let hint = leader.borrow_and_update().leader.clone();
                inputs.send(Input::Leader(hint));
                if leader.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::join!(hints, self.follow());
    }

    async fn follow(&self) {
        loop {
            let Ok(listing) = self.coordinator.list("", WITHIN).await else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            if !listing.entries.iter().any(|entry| entry.key == PAUSED) {
                self.inputs.send(Input::Paused(None));
            }
            for entry in &listing.entries {
                self.tell(entry);
            }
            self.inputs.send(Input::StoreLoaded);
            let mut watch = self.coordinator.watch("", listing.revision.next());
            while let Ok(changes) = watch.next().await {
                for change in &changes.changes {
                    match change {
                        Change::Put(entry) => self.tell(entry),
                        Change::Deleted { key } if key == PAUSED => self.inputs.send(Input::Paused(None)),
                        Change::Deleted { .. } => {}
                    }
                }
            }
        }
    }

    fn tell(&self, entry: &Entry) {
        let revision = entry.modified.0;
        let input = match entry.key.as_str() {
            PAUSED => entry.json::<String>().map(|reason| Input::Paused(Some(reason))),
            RELEASES => entry.json().map(|value| Input::Releases(Stored { revision, value })),
            UPKEEP => entry.json().map(Input::Upkeep),
            PLACEMENT => entry.json().map(|value| Input::Placement(Stored { revision, value })),
            SYSTEM => entry
                .json::<SystemRecord>()
                .map(|record| Input::System { system: record.system, generation: record.generation }),
            key => match key.strip_prefix("databases/").and_then(|rest| rest.strip_suffix("/leadership")) {
                Some(name) => entry
                    .json()
                    .map(|value| Input::Record { database: name.into(), stored: Stored { revision, value } }),
                None => return,
            },
        };
        match input {
            Ok(input) => self.inputs.send(input),
            Err(error) => {
                tracing::error!(%error, "a value of the coordination cannot be read; it is ignored")
            }
        }
    }

    /// Commits by compare-and-set; the mind hears how it ended.
    pub(super) async fn commit(&self, expected: u64, value: Value) {
        let place = value.store();
        let revision = self.try_commit(expected, &value).await.map(|revision| (revision, value));
        self.inputs.send(Input::Committed { store: place, revision });
    }

    /// Commits by compare-and-set; `None` when it did not happen or nobody knows.
    pub(super) async fn try_commit(&self, expected: u64, value: &Value) -> Option<u64> {
        let expected = Revision(expected);
        let outcome = match value {
            Value::Leadership(database, record) => {
                self.coordinator
                    .compare_and_set_json(&leadership_key(database), expected, record, WITHIN)
                    .await
            }
            Value::Placement(placement) => {
                self.coordinator.compare_and_set_json(PLACEMENT, expected, placement, WITHIN).await
            }
            Value::Releases(releases) => {
                self.coordinator.compare_and_set_json(RELEASES, expected, releases, WITHIN).await
            }
        };
        match outcome {
            Ok(TxnOutcome::Committed(revision)) => Some(revision.0),
            Ok(TxnOutcome::Conflict { .. }) => None,
            Err(error) => {
                tracing::warn!(%error, store = ?value.store(), "a decision could not be committed");
                None
            }
        }
    }

    /// Reads the leadership records of this node's members again and again: a primary's lease lives on the answers.
    pub(super) async fn read_records(self, databases: Vec<DatabaseName>) {
        loop {
            for database in &databases {
                let as_of = effects::clock::now();
                let key = leadership_key(database);
                let read = self.coordinator.get_json::<Leadership>(&key, Duration::from_secs(1)).await;
                if let Ok(Some((record, revision))) = read {
                    self.inputs.send(Input::Read { database: database.clone(), term: record.term, as_of });
                    let stored = Stored { revision: revision.0, value: record };
                    self.inputs.send(Input::Record { database: database.clone(), stored });
                }
            }
            tokio::time::sleep(READ_EVERY).await;
        }
    }

    /// Lets another voter lead. With etcd as the coordination its own members' lead is nothing that this node could hand on.
    pub(super) async fn hand_lead(&self, to: &NodeName) {
        let Some(embedded) = &self.embedded else { return };
        match embedded.transfer_leadership(to, WITHIN).await {
            Ok(()) => tracing::info!(%to, "the lead is handed on: this node holds a primary"),
            Err(error) => tracing::info!(%to, %error, "the lead could not be handed on"),
        }
    }

    /// Sets or clears the pause.
    pub(super) async fn pause(&self, reason: Option<&str>) -> Result<(), coordination::Error> {
        match reason {
            Some(reason) => self.coordinator.put_json(PAUSED, &reason, WITHIN).await.map(|_| ()),
            None => self.coordinator.txn(Txn::new().delete(PAUSED), WITHIN).await.map(|_| ()),
        }
    }

    /// Founds the group, once: the first voter of the file does it as soon as all voters answer.
    pub(super) async fn found_group(self, voters: Vec<NodeName>) {
        let Some(embedded) = &self.embedded else { return };
        loop {
            match embedded.initialize(&voters, WITHIN).await {
                Ok(()) => return,
                Err(coordination::Error::Invalid(_)) => return,
                Err(error) => tracing::info!(%error, "the coordination is not founded yet"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Keeps the group's members as the system file says, when this node leads: all nodes learn, voters vote; a node
    /// that lost its disk is taken in again.
    pub(super) async fn keep_members(self, me: NodeName, mut system: tokio::sync::watch::Receiver<System>) {
        let Some(embedded) = &self.embedded else { return };
        loop {
            let _ = tokio::time::timeout(Duration::from_secs(2), system.changed()).await;
            if self.coordinator.leader().borrow().leader.as_ref() != Some(&me) {
                continue;
            }
            let wanted = system.borrow().clone();
            for (name, node) in &wanted.nodes {
                if *name == me {
                    continue;
                }
                if let Err(error) = embedded.add_learner(name, WITHIN).await {
                    tracing::debug!(%error, node = %name, "cannot take the node into the coordination yet");
                } else if node.voter
                    && let Err(error) = embedded.promote_to_voter(name, WITHIN).await
                {
                    tracing::debug!(%error, node = %name, "cannot give the node its vote yet");
                }
            }
        }
    }
}
