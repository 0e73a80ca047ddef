//! What operators have asked for beyond the system file: nodes that are emptied for maintenance, services scaled for a while.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{NodeName, ServiceName};

/// Coordination key `upkeep`: stands until somebody takes it back, whatever file is applied meanwhile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upkeep {
    /// Nodes that are emptied: no instance and no primary stays there, and none comes. The reason is shown in the status.
    #[serde(default)]
    pub drained: BTreeMap<NodeName, String>,
    /// Services of which another number of instances runs than the file says.
    #[serde(default)]
    pub scaled: BTreeMap<ServiceName, u32>,
}

impl Upkeep {
    /// The drained nodes.
    pub fn drained_nodes(&self) -> BTreeSet<NodeName> {
        self.drained.keys().cloned().collect()
    }

    /// Whether nothing may stay on `node`.
    pub fn is_drained(&self, node: &NodeName) -> bool {
        self.drained.contains_key(node)
    }

    /// How many instances of a service shall run, of which the file wants `written`.
    pub fn instances(&self, service: &ServiceName, written: u32) -> u32 {
        self.scaled.get(service).copied().unwrap_or(written)
    }
}

/// One change that an operator asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpkeepChange {
    /// Empty a node.
    Drain {
        /// The node.
        node: NodeName,
        /// Why, in the operator's words.
        reason: String,
    },
    /// Use it again.
    Undrain {
        /// The node.
        node: NodeName,
    },
    /// Run so many instances of a service.
    Scale {
        /// The service.
        service: ServiceName,
        /// How many; as many as the file says when not given.
        instances: Option<u32>,
    },
}
