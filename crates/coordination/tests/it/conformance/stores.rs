//! The stores that the suite runs against.

use std::sync::Arc;
use std::time::Duration;

use coordination::etcd::{Etcd, EtcdConfig};
use coordination::{BoxFuture, Coordinator, MAX_VALUE};
use model::NodeName;

use super::etcd_server::{EtcdServer, Wire};
use crate::group::Group;

/// A store as several nodes see it.
pub(crate) struct Store {
    pub(crate) nodes: Vec<Arc<dyn Coordinator>>,
    /// The shortest lease worth testing.
    pub(crate) ttl: Duration,
    backend: Box<dyn Backend>,
}

/// What cannot be done through the trait.
trait Backend: Send + Sync {
    /// Breaks what the nodes rely on (the leader, the connections) for a moment.
    fn disturb(&self) -> BoxFuture<'_, ()>;
    /// Cuts the first node off from the store, or heals it.
    fn cut_first(&self, cut: bool);
    /// Makes the store forget its oldest changes.
    fn forget_history(&self) -> BoxFuture<'_, ()>;
}

impl Store {
    pub(crate) fn first(&self) -> &dyn Coordinator {
        &*self.nodes[0]
    }

    pub(crate) fn last(&self) -> &dyn Coordinator {
        &**self.nodes.last().unwrap()
    }

    pub(crate) async fn disturb(&self) {
        self.backend.disturb().await;
    }

    pub(crate) fn cut_first(&self, cut: bool) {
        self.backend.cut_first(cut);
    }

    pub(crate) async fn forget_history(&self) {
        self.backend.forget_history().await;
    }
}

// --- Embedded -------------------------------------------------------------------------------------------------------

pub(crate) async fn embedded_one() -> Store {
    embedded(1).await
}

pub(crate) async fn embedded_three() -> Store {
    embedded(3).await
}

async fn embedded(size: usize) -> Store {
    let group = Group::of(size).await;
    let nodes = group.names.iter().map(|name| group.store(name)).collect();
    Store { nodes, ttl: Duration::from_millis(600), backend: Box::new(group) }
}

impl Backend for Group {
    fn disturb(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let leader = self.leader().await;
            self.network.isolate(&leader, true);
            tokio::time::sleep(Duration::from_millis(700)).await;
            self.network.isolate(&leader, false);
        })
    }

    fn cut_first(&self, cut: bool) {
        self.network.isolate(&self.names[0], cut);
    }

    fn forget_history(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            // More than the 16 MiB of changes that a node keeps.
            let value = "x".repeat(MAX_VALUE);
            for _ in 0..70 {
                self.put(&self.names[0], "filler", &value).await;
            }
        })
    }
}

// --- etcd -----------------------------------------------------------------------------------------------------------

struct EtcdBackend {
    server: EtcdServer,
    wires: Vec<Wire>,
}

pub(crate) async fn etcd() -> Store {
    let server = EtcdServer::start().await;
    let mut nodes: Vec<Arc<dyn Coordinator>> = Vec::new();
    let mut wires = Vec::new();
    for name in ["a", "b", "c"] {
        let wire = Wire::to(server.address).await;
        let config = EtcdConfig {
            endpoints: vec![format!("http://{}", wire.address)],
            prefix: "/mainstay/test".to_owned(),
            node: NodeName::new(name),
            candidate: true,
            leader_ttl: Duration::from_secs(2),
            tls: None,
        };
        nodes.push(Arc::new(Etcd::open(config).await.unwrap()));
        wires.push(wire);
    }
    for node in &nodes {
        // The election writes too, and some cases count revisions.
        node.leader().wait_for(|hint| hint.leader.is_some()).await.unwrap();
    }
    Store { nodes, ttl: Duration::from_secs(2), backend: Box::new(EtcdBackend { server, wires }) }
}

impl Backend for EtcdBackend {
    fn disturb(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            for wire in &self.wires {
                wire.close(true);
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
            for wire in &self.wires {
                wire.close(false);
            }
        })
    }

    fn cut_first(&self, cut: bool) {
        self.wires[0].silence(cut);
    }

    fn forget_history(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.server.compact())
    }
}
