//! A group of embedded nodes in this process.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use coordination::embedded::{Embedded, EmbeddedConfig, Role, Timings};
use coordination::{Coordinator, Error, Reason, Revision, Txn, TxnOutcome};
use model::NodeName;
use tempfile::TempDir;

use crate::network::Network;

/// Generous: these machines are shared.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) struct Group {
    pub(crate) network: Network,
    pub(crate) names: Vec<NodeName>,
    nodes: BTreeMap<NodeName, Arc<Embedded>>,
    directories: BTreeMap<NodeName, TempDir>,
}

impl Group {
    /// Nodes a, b, c, ... that know nothing of each other yet.
    pub(crate) async fn unfounded(size: usize) -> Self {
        let names =
            ('a'..='z').take(size).map(|letter| NodeName::new(letter.to_string())).collect::<Vec<_>>();
        let mut group = Self {
            network: Network::default(),
            names: names.clone(),
            nodes: BTreeMap::new(),
            directories: names.iter().map(|name| (name.clone(), TempDir::new().unwrap())).collect(),
        };
        for name in &names {
            group.start(name).await;
        }
        group
    }

    /// A founded group with a leader.
    pub(crate) async fn of(size: usize) -> Self {
        let group = Self::unfounded(size).await;
        group.node(&group.names[0]).initialize(&group.names, PATIENCE).await.unwrap();
        group.put(&group.names[0], "founded", "true").await;
        group
    }

    pub(crate) async fn start(&mut self, name: &NodeName) {
        let directory = self.directories[name].path().to_owned();
        let node = open(name, &directory, &self.network).await;
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
        let node = self.nodes.remove(name).unwrap();
        self.network.forget(name);
        drop(node);
    }

    pub(crate) async fn restart(&mut self, name: &NodeName) {
        self.start(name).await;
        self.network.isolate(name, false);
    }

    /// Gives a stopped node an empty disk.
    pub(crate) fn wipe(&mut self, name: &NodeName) {
        self.directories.insert(name.clone(), TempDir::new().unwrap());
    }

    /// The node that a majority of the running ones believes to lead, itself included.
    pub(crate) async fn leader(&self) -> NodeName {
        let since = Instant::now();
        loop {
            let leading = self.nodes.iter().filter(|(_, node)| node.status().role == Role::Leader);
            for (name, _) in leading {
                let followers =
                    self.nodes.values().filter(|node| node.status().leader.as_ref() == Some(name));
                if followers.count() * 2 > self.names.len() {
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
    let since = Instant::now();
    loop {
        let config = EmbeddedConfig {
            node: name.clone(),
            directory: directory.to_owned(),
            timings: Timings::default(),
        };
        match Embedded::open(config, Arc::new(network.transport(name))).await {
            Ok(node) => return Arc::new(node),
            Err(error) => assert!(since.elapsed() < PATIENCE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
