//! The drills as data: which fault, what is expected, how the fault is taken back.

use std::collections::BTreeMap;
use std::time::Duration;

use model::{NodeName, SiteName};

use super::act::{Act, Shows};
use super::step::Step;

/// Who is who when a run begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cast {
    /// The primary's node.
    pub primary: NodeName,
    /// The nodes of the other members.
    pub standbys: Vec<NodeName>,
    /// The node that leads the coordination.
    pub leader: Option<NodeName>,
    /// Which site a node belongs to.
    pub sites: BTreeMap<NodeName, SiteName>,
    /// The number of the run, from 1: drills that vary do so with it.
    pub run: usize,
}

/// What must have become of the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Another member is the primary, and taking the fault back does not change that again.
    Changes,
    /// It is still the same, and never was another.
    Stays,
    /// Either is good.
    Any,
}

/// What must become of writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    /// They flow again before the fault is taken back.
    GoOn,
    /// None is acknowledged before the first of the killed nodes is back; then they flow within this time after its agent
    /// or its PostgreSQL can be reached.
    WaitForFirst(Duration),
    /// They flow within this time after the last of the killed nodes was started.
    WaitForAll(Duration),
    /// Nothing is promised while the fault lasts; they flow within this time after it was taken back.
    MayWait(Duration),
}

/// How the client behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// It keeps its connection, through a node that the fault does not strike.
    Stays,
    /// It keeps its connection, through a node that the fault strikes.
    ThroughVictim,
    /// It makes a new connection for every write.
    ConnectsAnew,
}

/// What must come of it, beside what every drill demands: no acknowledged write lost or doubled, never two primaries,
/// and full redundancy again without help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// In one sentence.
    pub words: &'static str,
    /// What must have become of the primary.
    pub primary: Change,
    /// What must become of writes.
    pub writes: Writes,
    /// Whether the client may see errors at all.
    pub errors_allowed: bool,
    /// Whether the client's connection may be closed, even while it is idle.
    pub reconnects_allowed: bool,
    /// Whether the system must notice that its redundancy is gone while the fault lasts.
    pub must_notice: bool,
    /// The objective for the median outage of several runs; `None` where writes have to wait.
    pub outage: Option<Duration>,
    /// One run is held to so many times the objective.
    pub worst: u32,
    /// Full redundancy must be back within this time after the recovery; `None`: within the drill's patience.
    pub redundancy: Option<Duration>,
    /// The victim must leave the sync set within this time.
    pub leaves_set: Option<Duration>,
    /// How long the fault lasts at least, where it lasts.
    pub hold: Duration,
    /// What the system must say of itself while the fault lasts.
    pub status: &'static [&'static str],
    /// Whether acknowledged writes must be lost: the drill is a control of the check itself.
    pub loses: bool,
}

/// One run of a drill as data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What must be so before the client begins: the cast is asked for again after it.
    pub prepare: Vec<Step>,
    /// What is done.
    pub fault: Vec<Step>,
    /// What takes it back; empty when the fault is over in a moment.
    pub recovery: Vec<Step>,
    /// How the client behaves.
    pub manner: Manner,
    /// What must come of it.
    pub expectation: Expectation,
}

/// How long a lasting fault lasts at least: longer than the lease, so that what wakes up is out of date.
const HOLD: Duration = Duration::from_secs(3);

/// What is expected when a silent or sudden fault strikes the primary.
pub(super) const fn failover(words: &'static str, outage_ms: u64) -> Expectation {
    Expectation {
        words,
        primary: Change::Changes,
        writes: Writes::GoOn,
        errors_allowed: true,
        reconnects_allowed: true,
        must_notice: true,
        outage: Some(Duration::from_millis(outage_ms)),
        worst: 3,
        redundancy: None,
        leaves_set: None,
        hold: HOLD,
        status: &[],
        loses: false,
    }
}

/// What is expected when clients must notice nothing.
pub(super) const fn nothing_happens(words: &'static str) -> Expectation {
    Expectation {
        primary: Change::Stays,
        errors_allowed: false,
        reconnects_allowed: false,
        must_notice: false,
        ..failover(words, 200)
    }
}

impl Expectation {
    pub(super) const fn within(mut self, seconds: u64) -> Self {
        self.outage = Some(Duration::from_secs(seconds));
        self.worst = 1;
        self
    }

    /// The same, whoever is the primary afterwards.
    pub(super) const fn whoever(mut self) -> Self {
        self.primary = Change::Any;
        self
    }
}

impl Cast {
    /// The first run with this primary and these standbys; nobody leads, and nobody says where the sites are.
    pub fn of(primary: &str, standbys: &[&str]) -> Self {
        Self {
            primary: NodeName::new(primary),
            standbys: standbys.iter().map(|name| NodeName::new(*name)).collect(),
            leader: None,
            sites: BTreeMap::new(),
            run: 1,
        }
    }

    /// The act, done to the primary's node.
    pub(super) fn on_primary(&self, act: &'static Act) -> Vec<Step> {
        vec![Step::Do { act, node: self.primary.clone() }]
    }

    /// The act, done to the node of a standby.
    pub(super) fn on_standby(&self, act: &'static Act) -> Vec<Step> {
        self.standbys.first().map(|node| Step::Do { act, node: node.clone() }).into_iter().collect()
    }

    /// The act, done to the nodes of all standbys.
    pub(super) fn on_standbys(&self, act: &'static Act) -> Vec<Step> {
        self.standbys.iter().map(|node| Step::Do { act, node: node.clone() }).collect()
    }

    /// The nodes of all members, the primary's first.
    pub(super) fn members(&self) -> impl Iterator<Item = &NodeName> {
        std::iter::once(&self.primary).chain(&self.standbys)
    }

    /// The act, done to the nodes of all members.
    pub(super) fn on_all(&self, act: &'static Act) -> Vec<Step> {
        self.on_primary(act).into_iter().chain(self.on_standbys(act)).collect()
    }

    /// All nodes at the site of this one; the node alone where nobody says what site it is at.
    pub(super) fn site_of(&self, node: &NodeName) -> Vec<NodeName> {
        let Some(site) = self.sites.get(node) else { return vec![node.clone()] };
        self.sites.iter().filter(|(_, its)| *its == site).map(|(node, _)| node.clone()).collect()
    }

    /// Whether the run's number is odd.
    pub(super) const fn is_odd(&self) -> bool {
        self.run % 2 == 1
    }
}

impl Plan {
    /// The nodes that the fault strikes.
    pub fn victims(&self) -> Vec<&NodeName> {
        self.fault.iter().flat_map(Step::nodes).collect()
    }

    /// How many steps of the fault strike a node.
    pub(super) fn blows(&self, node: &NodeName) -> usize {
        self.victims().iter().filter(|struck| **struck == node).count()
    }

    /// The nodes that nobody outside hears while the fault lasts.
    pub(super) fn silenced(&self) -> Vec<&NodeName> {
        self.fault.iter().filter(|step| step.shows() == Shows::Silence).flat_map(Step::nodes).collect()
    }
}
