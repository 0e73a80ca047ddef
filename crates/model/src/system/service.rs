//! Services: stateless applications in several instances.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::carriage::is_default;
use super::traffic::Traffic;
use super::{InstanceTls, Protocol, duration, placeholder, size};
use crate::{DatabaseName, JobName, NodeName, ServiceName, SiteName};

/// A stateless application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Program and arguments, with placeholders; with `image` what its entry point is given. Empty only with `image` or
    /// `addresses`.
    pub command: Vec<String>,
    /// The image from which it runs as a container; `None`: it is a program of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Where it runs that nobody here starts or supervises: then requests are routed there, and nothing else is done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<ExternalAddress>,
    /// How many copies run, at least 1; 0 with `addresses`.
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
    /// The operating system user it runs as when the agent is root; `None`: the agent's own user, or `nobody` for root; with
    /// `image` whomever that names.
    pub user: Option<String>,
    /// How requests are spread over its instances.
    #[serde(default)]
    pub traffic: Traffic,
    /// How an instance that may take requests is told from one that lives but may not; `None`: `health` says both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<Health>,
    /// The most memory that an instance with all it starts may use, in bytes.
    #[serde(default, with = "size::optional", skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// What must be ready before an instance is started for the first time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<After>,
    /// What its instances speak.
    #[serde(default, skip_serializing_if = "is_default")]
    pub protocol: Protocol,
    /// Each TCP connection begins with a PROXY header that names the client.
    #[serde(default, skip_serializing_if = "is_default")]
    pub send_proxy_protocol: bool,
    /// What its releases need.
    #[serde(default, skip_serializing_if = "is_default")]
    pub release: Releasing,
    /// How its instances are recognised where proxies speak TLS with them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<InstanceTls>,
    /// How the number of its instances follows the load; then `instances` is the least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<Scale>,
}

/// How the number of instances follows the load.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scale {
    /// The most instances, more than the least.
    pub max: u32,
    /// How many requests one instance is to have under way at most, on average.
    pub requests: u32,
    /// For how long fewer instances must have been enough before one ends.
    #[serde(with = "duration")]
    pub cool_down: Duration,
}

/// What the releases of a service need.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Releasing {
    /// The job of which one run, from the new release, must succeed before anything changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<JobName>,
}

/// An address at which somebody else runs a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalAddress {
    /// Where.
    pub address: SocketAddr,
    /// The site in which it is reached soonest; `None`: it is as near to all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<SiteName>,
}

/// Something that an instance's first start waits for; written `web` or `database:orders`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum After {
    /// Some instance of this service is ready.
    Service(ServiceName),
    /// This database takes writes.
    Database(DatabaseName),
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
    /// An instance that lived and has not for this long is ended and started again.
    #[serde(default = "default_restart_after", with = "duration")]
    pub restart_after: Duration,
}

/// Used where the file says nothing, and for what an earlier version stored.
pub(super) fn default_restart_after() -> Duration {
    Duration::from_secs(10)
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

impl After {
    /// Before the name of a database.
    const DATABASE: &'static str = "database:";

    /// Reads what the file says.
    pub fn read(text: &str) -> Self {
        match text.strip_prefix(Self::DATABASE) {
            Some(name) => Self::Database(name.into()),
            None => Self::Service(text.into()),
        }
    }
}

impl fmt::Display for After {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => name.fmt(f),
            Self::Database(name) => write!(f, "{}{name}", Self::DATABASE),
        }
    }
}

impl Serialize for After {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for After {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self::read(&text))
    }
}

impl Service {
    /// Whether others run it, so that it is only routed to and asked.
    pub fn is_external(&self) -> bool {
        !self.addresses.is_empty()
    }

    /// The most instances that the file lets run.
    pub fn most_instances(&self) -> u32 {
        self.scale.as_ref().map_or(self.instances, |scale| scale.max)
    }

    /// Whether its command or environment names `{release}`, so that nothing can run before the first one.
    pub fn needs_release(&self) -> bool {
        self.command.iter().chain(self.env.values()).any(|text| placeholder::uses_release(text))
    }
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
