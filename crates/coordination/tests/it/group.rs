//! A group of embedded nodes in this process.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use coordination::embedded::{Embedded, EmbeddedConfig, Role, Timings};
use coordination::{Coordinator, Error, Reason, Revision, Txn, TxnOutcome};
use model::NodeName;
use tempfile::TempDir;

use crate::clients::Run;
use crate::medium::{Dice, LOSSES, Medium, Word};
use crate::network::Network;

/// Generous: these machines are shared.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) struct Group {
    pub(crate) network: Network,
    pub(crate) names: Vec<NodeName>,
    nodes: BTreeMap<NodeName, Arc<Embedded>>,
    disks: BTreeMap<NodeName, Disk>,
    dice: Dice,
    timings: Timings,
}

/// Where a node's store lies.
enum Disk {
    /// In a file; what is written stays.
    Directory(TempDir),
    /// On a medium that forgets at a power loss what was not flushed.
    Medium(Medium),
}

impl Group {
    /// Nodes a, b, c, ... that know nothing of each other yet.
    pub(crate) async fn unfounded(size: usize) -> Self {
        Self::unfounded_on(size, Timings::default(), &|| Disk::Directory(TempDir::new().unwrap())).await
    }

    /// As [`Group::of`], with elections that take this many times longer.
    pub(crate) async fn slow(size: usize, times: u32) -> Self {
        let Timings { heartbeat, election_min, election_max } = Timings::default();
        let timings = Timings {
            heartbeat: times * heartbeat,
            election_min: times * election_min,
            election_max: times * election_max,
        };
        let disk = || Disk::Directory(TempDir::new().unwrap());
        let group = Self::unfounded_on(size, timings, &disk).await;
        group.found(&group.names).await;
        group
    }

    /// As [`Group::unfounded`], on disks that forget at a power loss what was not flushed.
    pub(crate) async fn unfounded_on_media(size: usize, seed: u64) -> Self {
        let disk = || Disk::Medium(Medium::new(Vec::new(), Word::Kept));
        let mut group = Self::unfounded_on(size, Timings::default(), &disk).await;
        group.dice = Dice::new(seed);
        group.network.referee().begin();
        group
    }

    async fn unfounded_on(size: usize, timings: Timings, disk: &dyn Fn() -> Disk) -> Self {
        let names =
            ('a'..='z').take(size).map(|letter| NodeName::new(letter.to_string())).collect::<Vec<_>>();
        let mut group = Self {
            network: Network::default(),
            names: names.clone(),
            nodes: BTreeMap::new(),
            disks: names.iter().map(|name| (name.clone(), disk())).collect(),
            dice: Dice::new(0),
            timings,
        };
        for name in &names {
            group.start(name).await;
        }
        group
    }

    /// A founded group with a leader.
    pub(crate) async fn of(size: usize) -> Self {
        let group = Self::unfounded(size).await;
        group.found(&group.names).await;
        group
    }

    /// Makes these nodes the voters.
    pub(crate) async fn found(&self, voters: &[NodeName]) {
        self.node(&voters[0]).initialize(voters, PATIENCE).await.unwrap();
        self.put(&voters[0], "founded", "true").await;
    }

    /// From now on the disks report flushes and keep everything in their caches.
    pub(crate) fn disks_lie(&self) {
        for disk in self.disks.values() {
            match disk {
                Disk::Medium(medium) => medium.lie(),
                Disk::Directory(_) => panic!("a file does not lie"),
            }
        }
    }

    pub(crate) async fn start(&mut self, name: &NodeName) {
        let node = match &self.disks[name] {
            Disk::Directory(directory) => {
                open_as(config(name, directory.path(), self.timings), &self.network).await
            }
            Disk::Medium(medium) => {
                let config = config(name, Path::new("the medium"), self.timings);
                let transport = Arc::new(self.network.transport(name));
                Arc::new(Embedded::open_on(medium.clone(), config, transport).await.unwrap())
            }
        };
        self.network.serve(name, &node).await;
        self.nodes.insert(name.clone(), node);
    }

    pub(crate) fn node(&self, name: &NodeName) -> &Arc<Embedded> {
        &self.nodes[name]
    }

    pub(crate) fn store(&self, name: &NodeName) -> Arc<dyn Coordinator> {
        self.nodes[name].clone()
    }

    /// Ends a node as a power loss does: silently, without a goodbye to anybody.
    pub(crate) async fn kill(&mut self, name: &NodeName) {
        self.network.isolate(name, true);
        if let Some(Disk::Medium(medium)) = self.disks.get_mut(name) {
            *medium = medium.lose_power(LOSSES[self.dice.below(LOSSES.len())], &mut self.dice);
        }
        let node = self.nodes.remove(name).unwrap();
        self.network.forget(name);
        drop(node);
    }

    pub(crate) async fn restart(&mut self, name: &NodeName) {
        self.start(name).await;
        self.network.referee().check_memory(self.node(name)).await;
        self.network.isolate(name, false);
    }

    /// The nodes lose their power together, for a moment in which clients may use none of them.
    pub(crate) async fn power_loss(&mut self, run: &Run, nodes: &[NodeName], pause: Duration) {
        for name in nodes {
            run.close(name);
            self.kill(name).await;
        }
        tokio::time::sleep(pause).await;
        for name in nodes {
            self.restart(name).await;
            run.open(name, self.node(name));
        }
    }

    /// Gives a stopped node an empty disk.
    pub(crate) fn wipe(&mut self, name: &NodeName) {
        let empty = match &self.disks[name] {
            Disk::Directory(_) => Disk::Directory(TempDir::new().unwrap()),
            Disk::Medium(_) => Disk::Medium(Medium::new(Vec::new(), Word::Kept)),
        };
        self.disks.insert(name.clone(), empty);
    }

    /// The node that a majority of the running ones believes to lead, itself included.
    pub(crate) async fn leader(&self) -> NodeName {
        let since = Instant::now();
        loop {
            let leading = self.nodes.iter().filter(|(_, node)| node.status().role == Role::Leader);
            for (name, _) in leading {
                let followers =
                    self.nodes.values().filter(|node| node.status().leader.as_ref() == Some(name));
                if followers.count() * 2 > self.node(name).status().voters.len() {
                    return name.clone();
                }
            }
            assert!(since.elapsed() < PATIENCE, "no leader");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub(crate) fn others(&self, than: &NodeName) -> Vec<NodeName> {
        self.names.iter().filter(|name| *name != than).cloned().collect()
    }

    /// Writes a key; again when a dying leader took the first answer with it, which is harmless for the same value, and
    /// while the node has not heard yet that the group was founded.
    pub(crate) async fn put(&self, at: &NodeName, key: &str, value: &str) -> Revision {
        let since = Instant::now();
        loop {
            match self.store(at).txn(Txn::new().put(key, value.to_owned()), PATIENCE).await {
                Ok(outcome) => return committed(outcome),
                Err(Error::OutcomeUnknown(_)) => {}
                Err(Error::Unavailable(Reason::NotInitialised)) if since.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub(crate) async fn get(&self, at: &NodeName, key: &str) -> Option<String> {
        let entry = self.store(at).get(key, PATIENCE).await.unwrap();
        entry.map(|entry| String::from_utf8(entry.value.to_vec()).unwrap())
    }
}

pub(crate) fn committed(outcome: TxnOutcome) -> Revision {
    match outcome {
        TxnOutcome::Committed(revision) => revision,
        TxnOutcome::Conflict { revision } => panic!("conflict at {revision}"),
    }
}

/// Opens a node; waits for the file if an earlier incarnation in this process is still letting go of it.
pub(crate) async fn open(name: &NodeName, directory: &Path, network: &Network) -> Arc<Embedded> {
    open_as(config(name, directory, Timings::default()), network).await
}

async fn open_as(config: EmbeddedConfig, network: &Network) -> Arc<Embedded> {
    let since = Instant::now();
    loop {
        match Embedded::open(config.clone(), Arc::new(network.transport(&config.node))).await {
            Ok(node) => return Arc::new(node),
            Err(error) => assert!(since.elapsed() < PATIENCE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn config(name: &NodeName, directory: &Path, timings: Timings) -> EmbeddedConfig {
    EmbeddedConfig { node: name.clone(), directory: directory.to_owned(), timings }
}
