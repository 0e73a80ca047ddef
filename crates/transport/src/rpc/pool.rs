//! Clients of several nodes.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use bytes::Bytes;
use model::NodeName;

use super::client::{RpcClient, RpcError, RpcTarget};
use crate::identity::Identity;
use crate::stream::StreamKind;

/// One [`RpcClient`] for each node of a changing set. Clones share the clients.
#[derive(Clone, Debug)]
pub struct RpcPool {
    kind: StreamKind,
    identity: Identity,
    clients: Arc<RwLock<BTreeMap<NodeName, RpcClient>>>,
}

impl RpcPool {
    /// A pool without nodes.
    pub fn new(kind: StreamKind, identity: &Identity) -> Self {
        Self { kind, identity: identity.clone(), clients: Arc::default() }
    }

    /// Makes `targets` the nodes of the pool. Connections to nodes whose addresses did not change stay. Must be called
    /// inside a tokio runtime.
    pub fn set_targets(&self, targets: impl IntoIterator<Item = RpcTarget>) {
        let mut clients = self.clients.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut before = std::mem::take(&mut *clients);
        for target in targets {
            let kept = before.remove(&target.node).filter(|client| *client.target() == target);
            let client = kept.unwrap_or_else(|| RpcClient::start(target.clone(), self.kind, &self.identity));
            clients.insert(target.node, client);
        }
    }

    /// Asks `node`; see [`RpcClient::call`].
    pub async fn call(
        &self,
        node: &NodeName,
        body: impl Into<Bytes>,
        deadline: Duration,
    ) -> Result<Bytes, RpcError> {
        let client = self.client(node).ok_or_else(|| RpcError::UnknownNode(node.clone()))?;
        client.call(body, deadline).await
    }

    /// The client of `node`.
    pub fn client(&self, node: &NodeName) -> Option<RpcClient> {
        self.clients.read().unwrap_or_else(|poisoned| poisoned.into_inner()).get(node).cloned()
    }
}
