//! How requests are spread over the instances of a service.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::duration;
use crate::NodeName;

/// How every proxy chooses among the instances of a service, and how much it asks of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Traffic {
    /// How much of the traffic an instance on a node takes beside the others, 1 to 100. Nodes that are not here have 1.
    pub weights: BTreeMap<NodeName, u32>,
    /// Whether instances of the proxy's own site come first, as long as they are fit and not loaded.
    pub prefer_site: bool,
    /// How long a new or returning instance takes to get its full share.
    #[serde(with = "duration")]
    pub slow_start: Duration,
    /// The cookie that keeps a client at its instance; `None`: requests go anywhere.
    pub sticky: Option<String>,
    /// The most requests that one proxy has under way at one instance; `None`: any number.
    pub limit: Option<u32>,
    /// How many requests may wait in one proxy while every instance is at its limit; more are refused at once.
    pub queue: u32,
    /// How long one may wait so.
    #[serde(with = "duration")]
    pub queue_wait: Duration,
    /// Whether the service answers a request that carries an `Idempotency-Key` once however often it comes, so that it may
    /// be sent again.
    pub idempotency_keys: bool,
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            weights: BTreeMap::new(),
            prefer_site: true,
            slow_start: Duration::from_secs(5),
            sticky: None,
            limit: None,
            queue: 100,
            queue_wait: Duration::from_secs(1),
            idempotency_keys: false,
        }
    }
}

impl Traffic {
    /// The weight of an instance on `node`.
    pub fn weight(&self, node: &NodeName) -> u32 {
        self.weights.get(node).copied().unwrap_or(1)
    }
}
