//! Sites and nodes.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::{LineName, SiteName};

/// The port agents listen on unless the file says otherwise.
pub const DEFAULT_AGENT_PORT: u16 = 7432;

/// A data centre or room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// Only votes: it breaks ties between the other sites and holds no data.
    pub witness: bool,
}

/// One Linux machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Where it stands.
    pub site: SiteName,
    /// Its address on each line. Never empty. A file that gives a single `address` makes a line `main`.
    pub lines: BTreeMap<LineName, IpAddr>,
    /// The line used where only one can be: the first in the file.
    pub preferred_line: LineName,
    /// Whether it votes in the embedded coordination.
    pub voter: bool,
    /// The port its agent listens on, on every line.
    pub agent_port: u16,
}

impl Node {
    /// Its address on the preferred line.
    ///
    /// # Panics
    /// When the node was not made by validation and `preferred_line` is none of its lines.
    pub fn address(&self) -> IpAddr {
        self.lines[&self.preferred_line]
    }

    /// Where its agent listens, one address for each line.
    pub fn agent_addresses(&self) -> impl Iterator<Item = (&LineName, SocketAddr)> {
        self.lines.iter().map(|(line, address)| (line, SocketAddr::new(*address, self.agent_port)))
    }
}
