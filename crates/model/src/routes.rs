//! What an agent tells its node's proxy: an immutable table of all routes, replaced as a whole, acknowledged by generation.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::leadership::Term;
use crate::system::traffic::Traffic;
use crate::system::{Carriage, ExternalAddress, Health, InstanceTls, Protocol};
use crate::{DatabaseName, NodeName, RouteName, ServiceName, SiteName};

/// All routes as one node's proxy must serve them. Never changed in place: a higher generation replaces it as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteTable {
    /// Counts up with every change by the agent that made the table; the proxy acknowledges it.
    pub generation: u64,
    /// The site this proxy stands in (same-site preference).
    pub site: Option<SiteName>,
    /// Every route that listens on this node.
    pub routes: Vec<Route>,
}

/// One thing clients connect to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Its name in the system file.
    pub name: RouteName,
    /// Where this node's proxy listens.
    pub listen: Vec<SocketAddr>,
    /// Where connections or requests go.
    pub target: RouteTarget,
}

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum RouteTarget {
    /// PostgreSQL connections (layer 4).
    Database(DatabaseTarget),
    /// Requests (layer 7), or connections to services that speak something else.
    Service(Box<ServiceTarget>),
}

/// A database route: which member takes new connections, and what happens to those that exist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseTarget {
    /// The database behind it.
    pub database: DatabaseName,
    /// What to do with connections now.
    pub state: DatabaseRouteState,
    /// How long a new connection may be parked before it gets a PostgreSQL error, in milliseconds.
    pub park_limit_ms: u64,
    /// How many connections may be parked at once; more get the PostgreSQL error immediately.
    pub park_limit_count: u32,
}

/// What a database route does with connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum DatabaseRouteState {
    /// New connections go to one of `members`; existing connections to any other (member, term) pair are closed at once.
    Open {
        /// Members that may take connections, the preferred ones first is NOT implied: the proxy balances.
        members: Vec<DatabaseEndpoint>,
    },
    /// No member may take connections: new ones wait, existing ones are closed at once.
    Parked {
        /// One sentence, shown to clients whose wait ends without a member.
        because: String,
    },
    /// A switchover is under way: new connections wait; existing sessions are closed as soon as they are idle outside a
    /// transaction, and all that are left after `drain_ms` are closed then.
    Draining {
        /// The member being left.
        members: Vec<DatabaseEndpoint>,
        /// Deadline for sessions that do not become idle, in milliseconds since the table arrived.
        drain_ms: u64,
        /// One sentence, shown to clients whose wait ends without a member.
        because: String,
    },
}

/// One member of a database as a route's destination.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DatabaseEndpoint {
    /// The member's node.
    pub node: NodeName,
    /// PostgreSQL's address there.
    pub address: SocketAddr,
    /// The term under which it may be used; a connection opened under another term is closed.
    pub term: Term,
}

/// A service route: the instances that exist and what their supervisors know of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceTarget {
    /// The service behind it.
    pub service: ServiceName,
    /// All instances, also those not ready (so that panic mode has something to use).
    pub instances: Vec<InstanceEndpoint>,
    /// How to choose among them.
    #[serde(default)]
    pub traffic: Traffic,
    /// The page that says whether an instance works, if there is one; without it any answer does.
    #[serde(default)]
    pub health_path: Option<String>,
    /// What the instances speak.
    #[serde(default)]
    pub protocol: Protocol,
    /// With [`Protocol::Tcp`]: each connection begins with a PROXY header that names the client.
    #[serde(default)]
    pub send_proxy_protocol: bool,
    /// How the instances are recognised where they speak TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<InstanceTls>,
    /// How the route speaks with its clients.
    #[serde(default)]
    pub carriage: Carriage,
    /// Those that get a part of their own of all requests, if there are such.
    #[serde(default)]
    pub trial: Option<Trial>,
    /// Addresses at which others run it, if they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
}

/// Addresses that no supervisor knows: each proxy asks for itself how they do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct External {
    /// Where.
    pub addresses: Vec<ExternalAddress>,
    /// What they are asked.
    pub health: Health,
}

/// Instances of a release that is being tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// Their ids.
    pub instances: BTreeSet<String>,
    /// The part of all requests, of a thousand, that they get together.
    pub share: u16,
}

/// One running copy of a service as a route's destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceEndpoint {
    /// Unique and stable while the instance lives, e.g. `web-2@e1`.
    pub id: String,
    /// The node it runs on.
    pub node: NodeName,
    /// That node's site.
    pub site: SiteName,
    /// Where it listens.
    pub address: SocketAddr,
    /// What its supervisor knows.
    pub state: InstanceRouteState,
}

/// What an instance's supervisor tells the proxies about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceRouteState {
    /// Passed its health check: takes requests.
    Ready,
    /// Runs but is not (or no longer) healthy: takes none unless all others are worse.
    NotReady,
    /// On its way out: takes no new requests, finishes those under way.
    Draining,
    /// Its process is known to be gone or its node silent: never used.
    Gone,
}

/// Agent to proxy, one JSON document a line over the proxy's unix socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToProxy {
    /// Serve this table from now on.
    Table(RouteTable),
    /// Make and read the cookies that keep clients at their instances with this key: 32 bytes in hexadecimal digits, the
    /// same for all proxies of the system. Until it comes, clients go anywhere and keep the cookies that they have.
    Cookies {
        /// The key.
        key: String,
    },
    /// Send a [`FromProxy::Report`] now.
    Report,
}

/// Proxy to agent, one JSON document a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FromProxy {
    /// The table of this generation is in force: every new connection and request obeys it, and every connection it
    /// forbids has been closed. `listen_errors` names listeners that could not be opened (`route address: reason`).
    Applied {
        /// The generation in force.
        generation: u64,
        /// Routes that do not listen, with the reason.
        listen_errors: Vec<String>,
    },
    /// A table was not taken: it is older than the one in force, or could not be read.
    Refused {
        /// The generation that was offered; 0 when the line could not be read.
        generation: u64,
        /// The generation in force; continue above it.
        current: u64,
        /// Why, in one sentence.
        because: String,
    },
    /// A draining database route has no session left on the members being left; sent once for each draining, after its
    /// `Applied`.
    Drained {
        /// The generation in force.
        generation: u64,
        /// The route.
        route: RouteName,
        /// Sessions that were told to leave while they were idle.
        idle: u64,
        /// Sessions that were cut at the deadline.
        cut: u64,
    },
    /// Counters and what live traffic showed; sent on request and every second while anything changed.
    Report(ProxyReport),
}

/// What a proxy saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyReport {
    /// One entry for each route.
    pub routes: Vec<RouteReport>,
}

/// Counters of one route since the proxy started, and its state now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteReport {
    /// The route.
    pub route: RouteName,
    /// Connections open now.
    pub open: u64,
    /// Connections parked now; of a service, requests that wait for an instance below its limit.
    pub parked: u64,
    /// Connections or requests accepted since start.
    pub accepted: u64,
    /// Connections or requests that ended with an error made by the proxy.
    pub failed: u64,
    /// Requests repeated on another instance.
    pub retried: u64,
    /// Instances that live traffic has ejected now.
    pub ejected: Vec<String>,
    /// Most instances that are ready have been ejected by live traffic: those left take what they can, and what is beyond
    /// that goes to the ejected ones all the same (panic mode).
    #[serde(default)]
    pub panic: bool,
    /// What the route lacks although it serves: a file that cannot be used, with the reason.
    #[serde(default)]
    pub troubles: Vec<String>,
    /// The certificate that it shows, if it has one that can be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateReport>,
    /// What a service's instances did with the requests they were given.
    #[serde(default)]
    pub instances: Vec<InstanceReport>,
}

/// What a certificate says of itself. Times are in seconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateReport {
    /// When it begins to count.
    pub begins: i64,
    /// When it ends.
    pub ends: i64,
    /// The names and addresses that it is for, in lower case; `*.` stands for one label.
    pub names: Vec<String>,
}

/// What one instance did with the requests that one proxy gave it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceReport {
    /// Its id, e.g. `web-2@e1`; the address of one that nobody supervises.
    pub id: String,
    /// Requests under way now.
    pub under_way: u64,
    /// What came of the others since the instance came.
    pub tally: Tally,
    /// What an address that nobody supervises answers to the proxy's own questions; `None`: it is not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answering: Option<Answering>,
}

/// What an address answers when a proxy asks how it does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum Answering {
    /// Too few questions have been answered or missed since it came.
    #[default]
    Unknown,
    /// It answers as it should, and takes requests.
    Good,
    /// It does not, and takes none while others do.
    Bad {
        /// What was wrong last, to follow its address: `takes no connection`.
        because: String,
    },
}

/// Counts of an instance's answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Answers that were no failure.
    pub good: u64,
    /// Failures: no connection, broken off, a server error, or beaten by an instance that was asked later.
    pub bad: u64,
    /// Good answers by how long they took: the first count is of those below 256 us, each next one's limit is the square
    /// root of two times higher, the last one has no limit. Counts of zero at the end are left out.
    pub taken: Vec<u64>,
}

impl Tally {
    /// So many counts there are at most: the last but one ends at 23 s.
    pub const BUCKETS: usize = 34;
    /// The limit of the first count, in microseconds.
    const FIRST_US: u64 = 256;

    /// A good answer after so many microseconds.
    pub fn good(&mut self, taken_us: u64) {
        self.good += 1;
        let bucket = Self::bucket(taken_us);
        if self.taken.len() <= bucket {
            self.taken.resize(bucket + 1, 0);
        }
        self.taken[bucket] += 1;
    }

    /// A failure.
    pub fn bad(&mut self) {
        self.bad += 1;
    }

    /// All that ended.
    pub fn all(&self) -> u64 {
        self.good + self.bad
    }

    /// Adds what another proxy counted.
    pub fn add(&mut self, other: &Self) {
        self.good += other.good;
        self.bad += other.bad;
        self.taken.resize(self.taken.len().max(other.taken.len()).min(Self::BUCKETS), 0);
        for (own, more) in self.taken.iter_mut().zip(&other.taken) {
            *own += more;
        }
    }

    /// What came since `before`; all of it when the counts began anew meanwhile.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let of = |counts: &[u64], place: usize| counts.get(place).copied().unwrap_or(0);
        let restarted = self.good < before.good
            || self.bad < before.bad
            || (0..before.taken.len()).any(|place| of(&self.taken, place) < before.taken[place]);
        if restarted {
            return self.clone();
        }
        let taken = (0..self.taken.len()).map(|place| self.taken[place] - of(&before.taken, place));
        Self { good: self.good - before.good, bad: self.bad - before.bad, taken: taken.collect() }
    }

    /// How long all but the slowest answers took, in microseconds: an upper limit of the `share`th answer of 1000.
    pub fn quantile_us(&self, share: u64) -> Option<u64> {
        let all: u64 = self.taken.iter().sum();
        let rank = (all * share).div_ceil(1000).max(1);
        let mut seen = 0;
        for (bucket, count) in self.taken.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Some(Self::limit_us(bucket));
            }
        }
        None
    }

    fn bucket(taken_us: u64) -> usize {
        (0..Self::BUCKETS - 1).find(|bucket| taken_us < Self::limit_us(*bucket)).unwrap_or(Self::BUCKETS - 1)
    }

    /// Powers of two, and between two of them the lower one times 181/128, which is the root of two.
    fn limit_us(bucket: usize) -> u64 {
        let whole = Self::FIRST_US << (bucket / 2);
        if bucket.is_multiple_of(2) { whole } else { whole * 181 / 128 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_tells_how_long_answers_took_within_half_of_it() {
        let mut tally = Tally::default();
        for _ in 0..90 {
            tally.good(2000);
        }
        for _ in 0..10 {
            tally.good(50_000);
        }
        let (middle, slow) = (tally.quantile_us(500).unwrap(), tally.quantile_us(990).unwrap());
        assert!((2000..3000).contains(&middle) && (50_000..75_000).contains(&slow), "{middle} {slow}");
        assert_eq!(Tally::default().quantile_us(500), None);
        tally.good(u64::MAX);
        assert_eq!(tally.taken.len(), Tally::BUCKETS);
    }

    #[test]
    fn what_came_since_counts_anew_after_a_restart_of_the_proxy() {
        let mut before = Tally::default();
        before.good(300);
        let mut after = before.clone();
        after.good(300);
        after.bad();
        let since = after.since(&before);
        assert_eq!((since.good, since.bad, since.taken.iter().sum::<u64>()), (1, 1, 1));
        assert_eq!(before.since(&after), before, "the proxy has restarted");
        before.add(&after);
        assert_eq!((before.good, before.bad), (3, 1));
    }
}
