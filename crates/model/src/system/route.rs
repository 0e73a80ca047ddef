//! Routes as the file describes them. What a proxy is told of them is [`crate::routes`].

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Carriage, duration};
use crate::{DatabaseName, ServiceName};

/// What clients connect to. It listens on every node outside witness sites.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where it listens.
    pub listen: Listen,
    /// Where it leads.
    pub target: RouteTarget,
    /// How long a new connection to a database may wait for a member before it gets a PostgreSQL error.
    #[serde(with = "duration")]
    pub park_limit: Duration,
    /// How many connections may wait so at once on one node.
    pub park_connections: u32,
    /// How it speaks with the clients of a service.
    #[serde(flatten)]
    pub carriage: Carriage,
}

/// Where a route listens on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Listen {
    /// `None`: on every address of the node (`":8080"`). Otherwise only this one, and only nodes that have it.
    pub address: Option<IpAddr>,
    /// The TCP port.
    pub port: u16,
}

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum RouteTarget {
    /// Requests, or TCP connections, to instances of a service.
    Service {
        /// The service.
        service: ServiceName,
    },
    /// PostgreSQL connections to members of a database.
    Database {
        /// The database.
        database: DatabaseName,
        /// Which members take them.
        role: Role,
    },
}

/// Which members of a database a route leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The one that accepts writes.
    Primary,
    /// Standbys only.
    Standby,
    /// Any member that answers reads.
    Any,
}

impl Role {
    /// The word in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Standby => "standby",
            Self::Any => "any",
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => write!(f, "{}", SocketAddr::new(address, self.port)),
            None => write!(f, ":{}", self.port),
        }
    }
}
