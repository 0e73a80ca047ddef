//! Services: stateless applications in several instances.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::duration;
use super::traffic::Traffic;
use crate::{NodeName, SiteName};

/// A stateless application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Program and arguments, with placeholders. Never empty.
    pub command: Vec<String>,
    /// How many copies run, at least 1.
    pub instances: u32,
    /// Where they may run.
    pub placement: Placement,
    /// The ports instances get on a node; no two instances of a node share one.
    pub ports: PortRange,
    /// How a working instance is told from a broken one.
    pub health: Health,
    /// Environment variables, with placeholders.
    pub env: BTreeMap<String, String>,
    /// How long an instance may take to end after SIGTERM before SIGKILL.
    #[serde(with = "duration")]
    pub stop_grace: Duration,
    /// The operating system user it runs as when the agent is root; `None`: the agent's own user, or `nobody` for root.
    pub user: Option<String>,
    /// How requests are spread over its instances.
    #[serde(default)]
    pub traffic: Traffic,
}

/// Where instances may run. Empty means no limit; both given means both must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Only in these sites.
    pub sites: BTreeSet<SiteName>,
    /// Only on these nodes.
    pub nodes: BTreeSet<NodeName>,
}

/// TCP ports from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRange {
    /// The lowest port.
    pub first: u16,
    /// The highest port, not below `first`.
    pub last: u16,
}

/// How a working instance is told from a broken one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The question that is asked.
    pub probe: Probe,
    /// Time from one question to the next.
    #[serde(with = "duration")]
    pub interval: Duration,
    /// No answer within this is a wrong answer.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// So many good answers in a row make an instance healthy.
    pub healthy_after: u32,
    /// So many bad answers in a row make it unhealthy.
    pub unhealthy_after: u32,
}

/// The question that is asked of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Probe {
    /// `GET path` on its port: 200 to 399 is good.
    Http {
        /// Begins with `/`.
        path: String,
    },
    /// A TCP connection to its port is good.
    Tcp,
    /// A program, with placeholders, that ends with 0 is good.
    Command {
        /// Program and arguments. Never empty.
        command: Vec<String>,
    },
    /// Running is good; for services that listen nowhere.
    Process,
}

impl Placement {
    /// Whether an instance may run on `node`, which stands in `site`.
    pub fn allows(&self, node: &NodeName, site: &SiteName) -> bool {
        (self.sites.is_empty() || self.sites.contains(site))
            && (self.nodes.is_empty() || self.nodes.contains(node))
    }
}

impl PortRange {
    /// Every port of the range.
    pub fn iter(self) -> impl Iterator<Item = u16> {
        self.first..=self.last
    }

    /// How many ports it has.
    pub fn count(self) -> u32 {
        u32::from(self.last - self.first) + 1
    }

    /// Whether the two have a port in common.
    pub fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}
