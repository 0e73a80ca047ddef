//! The drills as data: which fault, what is expected, how the fault is taken back.

use std::time::Duration;

use model::NodeName;

use super::catalogue::Drill;
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
const fn failover(words: &'static str, outage_ms: u64) -> Expectation {
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
const fn nothing_happens(words: &'static str) -> Expectation {
    Expectation {
        primary: Change::Stays,
        errors_allowed: false,
        reconnects_allowed: false,
        must_notice: false,
        ..failover(words, 200)
    }
}

impl Expectation {
    const fn within(mut self, seconds: u64) -> Self {
        self.outage = Some(Duration::from_secs(seconds));
        self.worst = 1;
        self
    }
}

impl Plan {
    /// The nodes that the fault strikes.
    pub fn victims(&self) -> Vec<&NodeName> {
        self.fault.iter().flat_map(Step::nodes).collect()
    }

    /// The nodes that nobody outside hears while the fault lasts.
    pub(super) fn silenced(&self) -> Vec<&NodeName> {
        self.fault.iter().filter(|step| step.silences()).flat_map(Step::nodes).collect()
    }
}

impl Drill {
    /// What must come of it. A run may vary in who becomes the primary (see [`Drill::plan`]).
    pub const fn expectation(self) -> Expectation {
        match self {
            Self::PostmasterKill => {
                failover("a standby takes over at once, and the member comes back as a standby", 350)
            }
            Self::PostmasterHang => {
                failover("a standby takes over, and new connections work again within 2 s", 2000).within(2)
            }
            Self::NodeKill => failover("a standby takes over, and the node comes back as a standby", 900),
            Self::NodeFreeze => failover("a standby takes over, and the thawed primary serves nobody", 1000),
            Self::NetworkCut => {
                failover("a standby takes over, and the healed node does not disturb it", 1000)
            }
            Self::Heal => failover(
                "a standby takes over and stays the primary; the healed one serves nobody after its lease",
                1000,
            ),
            Self::Switchover => Expectation {
                errors_allowed: false,
                must_notice: false,
                ..failover(
                    "another member is the primary, and no client that came through the route saw an error",
                    200,
                )
            },
            Self::StandbyKill => STANDBY_KILL,
            Self::BothStandbysKill => BOTH_STANDBYS_KILL,
            Self::AllNodesKill => ALL_NODES_KILL,
            Self::Rejoin => Expectation {
                redundancy: Some(Duration::from_secs(10)),
                primary: Change::Any,
                ..failover("full redundancy is back within 10 s of the node's return", 900)
            },
            Self::AgentKill => nothing_happens("nothing happens: no change of the primary, no failed write"),
            Self::CoordinationLeaderKill => nothing_happens(
                "another agent leads; no change of the primary, no failed write, no closed connection",
            ),
            Self::CoordinationQuorumLoss => Expectation {
                must_notice: true,
                hold: Duration::from_secs(6),
                ..nothing_happens("writes go on, because the sync set confirms them; no failed write")
            },
            Self::ProxyAgentCut => {
                nothing_happens("nothing happens: open connections live on, no failed write")
            }
            Self::DiskFullStandby => DISK_FULL_STANDBY,
            Self::DiskFullPrimary => {
                failover("a standby that has space takes over within 5 s", 5000).within(5)
            }
            Self::DiskHangPrimary => {
                failover("a standby whose disk works takes over within 5 s", 5000).within(5)
            }
            Self::AsyncLoss => Expectation {
                loses: true,
                ..failover("the check finds that acknowledged writes are lost, and says so", 5000)
            },
        }
    }

    /// What is done in a run, what takes it back, and what must come of it.
    pub fn plan(self, cast: &Cast) -> Plan {
        let fault = self.fault(cast);
        let mut recovery: Vec<Step> = fault.iter().flat_map(Step::undo).collect();
        let mut expectation = self.expectation();
        let (mut prepare, mut manner) = (vec![], Manner::Stays);
        match self {
            Self::AllNodesKill => {
                let count = recovery.len().max(1);
                recovery.rotate_left(cast.run % count);
                if cast.run / count % 2 == 1 {
                    recovery.reverse();
                }
            }
            Self::Rejoin => {
                expectation.primary = if is_odd(cast) { Change::Changes } else { Change::Stays };
            }
            Self::Heal if is_odd(cast) => expectation.hold = Duration::ZERO,
            Self::AgentKill if !is_odd(cast) => manner = Manner::ThroughVictim,
            Self::CoordinationLeaderKill => prepare = place_leader(cast),
            Self::CoordinationQuorumLoss | Self::ProxyAgentCut => manner = Manner::ThroughVictim,
            Self::PostmasterHang => manner = Manner::ConnectsAnew,
            Self::AsyncLoss => {
                manner = Manner::ThroughVictim;
                recovery = vec![Step::StartNode(cast.primary.clone())];
            }
            Self::PostmasterKill
            | Self::NodeKill
            | Self::NodeFreeze
            | Self::NetworkCut
            | Self::Heal
            | Self::Switchover
            | Self::StandbyKill
            | Self::BothStandbysKill
            | Self::AgentKill
            | Self::DiskFullStandby
            | Self::DiskFullPrimary
            | Self::DiskHangPrimary => {}
        }
        Plan { prepare, fault, recovery, manner, expectation }
    }

    /// What is done, to whom.
    fn fault(self, cast: &Cast) -> Vec<Step> {
        let (primary, standby) = (cast.primary.clone(), cast.standbys.first().cloned());
        let on_standby = |step: fn(NodeName) -> Step| standby.into_iter().map(step).collect();
        let all = || std::iter::once(&cast.primary).chain(&cast.standbys).cloned();
        match self {
            Self::PostmasterKill => vec![Step::KillPostmaster(primary)],
            Self::PostmasterHang => vec![Step::HangPostmaster(primary)],
            Self::NodeKill => vec![Step::KillNode(primary)],
            Self::NodeFreeze => vec![Step::FreezeNode(primary)],
            Self::NetworkCut | Self::Heal => vec![Step::CutNode(primary)],
            Self::Switchover => vec![Step::Switchover(primary)],
            Self::StandbyKill => on_standby(Step::KillNode),
            Self::BothStandbysKill => vec![Step::KillNodes(cast.standbys.clone())],
            Self::AllNodesKill => vec![Step::KillNodes(all().collect())],
            Self::Rejoin if is_odd(cast) => vec![Step::KillNode(primary)],
            Self::Rejoin => on_standby(Step::KillNode),
            Self::AgentKill => vec![Step::KillAgent(primary)],
            Self::CoordinationLeaderKill => vec![Step::KillAgent(cast.leader.clone().unwrap_or(primary))],
            Self::CoordinationQuorumLoss => cast.standbys.iter().cloned().map(Step::HangAgent).collect(),
            Self::ProxyAgentCut => all().map(Step::CutProxy).collect(),
            Self::DiskFullStandby => on_standby(Step::FillDisk),
            Self::DiskFullPrimary => vec![Step::FillDisk(primary)],
            Self::DiskHangPrimary => vec![Step::HangDisk(primary)],
            Self::AsyncLoss => vec![Step::SeparateNode(primary.clone()), Step::KillNode(primary)],
        }
    }

    /// Whether it is for databases that may lose writes, and for no other.
    pub const fn is_for_async(self) -> bool {
        self.expectation().loses
    }

    /// Whether it needs nodes whose databases lie on volumes of their own.
    pub fn needs_volumes(self) -> bool {
        let anybody = Cast {
            primary: NodeName::from("primary"),
            standbys: vec![NodeName::from("standby")],
            leader: None,
            run: 1,
        };
        self.fault(&anybody).iter().any(Step::needs_volume)
    }
}

const STANDBY_KILL: Expectation = Expectation {
    primary: Change::Stays,
    ..failover("writes go on with the other standby, and the node comes back as a standby", 200)
};

const BOTH_STANDBYS_KILL: Expectation = Expectation {
    primary: Change::Stays,
    writes: Writes::WaitForFirst(Duration::from_secs(2)),
    outage: None,
    status: &["no standby confirms them", "start node"],
    ..failover(
        "writes wait, the status says why and what would help, and they flow within 2 s of a standby's return",
        0,
    )
};

const ALL_NODES_KILL: Expectation = Expectation {
    primary: Change::Any,
    writes: Writes::WaitForAll(Duration::from_secs(30)),
    outage: None,
    hold: Duration::from_secs(1),
    ..failover("writes flow again without help once the nodes are back, and none is lost", 0)
};

const DISK_FULL_STANDBY: Expectation = Expectation {
    primary: Change::Stays,
    leaves_set: Some(Duration::from_secs(5)),
    hold: Duration::from_secs(5),
    ..failover("writes go on, and the standby is out of the sync set within 5 s until it has space", 200)
};

fn is_odd(cast: &Cast) -> bool {
    cast.run % 2 == 1
}

/// Has the leader of the coordination on the primary's node in odd runs, and on another one in even runs.
fn place_leader(cast: &Cast) -> Vec<Step> {
    let Some(leader) = &cast.leader else { return vec![] };
    let to = match (is_odd(cast), *leader == cast.primary) {
        (true, false) => cast.standbys.iter().find(|node| *node == leader),
        (false, true) => cast.standbys.first(),
        (true, true) | (false, false) => None,
    };
    to.cloned().map(Step::HandTo).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cast(run: usize) -> Cast {
        Cast { primary: "a".into(), standbys: vec!["b".into(), "c".into()], leader: Some("b".into()), run }
    }

    #[test]
    fn what_lasts_is_taken_back() {
        for drill in Drill::ALL {
            let plan = drill.plan(&cast(1));
            let lasts = plan.fault.iter().any(|step| !step.undo().is_empty());
            assert_eq!(lasts, !plan.recovery.is_empty(), "{drill}");
        }
    }

    #[test]
    fn all_nodes_come_back_in_every_order() {
        let orders: std::collections::BTreeSet<Vec<String>> = (1..=10)
            .map(|run| Drill::AllNodesKill.plan(&cast(run)).recovery.iter().map(Step::to_string).collect())
            .collect();
        assert_eq!(orders.len(), 6);
    }

    #[test]
    fn the_leader_is_killed_on_the_primarys_node_and_on_another_in_turn() {
        assert_eq!(Drill::CoordinationLeaderKill.plan(&cast(1)).prepare, [Step::HandTo("b".into())]);
        assert_eq!(Drill::CoordinationLeaderKill.plan(&cast(2)).prepare, []);
        let led_by_primary = Cast { leader: Some("a".into()), ..cast(2) };
        assert_eq!(Drill::CoordinationLeaderKill.plan(&led_by_primary).prepare, [Step::HandTo("b".into())]);
    }

    #[test]
    fn a_rejoin_strikes_the_primary_and_a_standby_in_turn() {
        assert_eq!(Drill::Rejoin.plan(&cast(1)).fault, [Step::KillNode("a".into())]);
        let even = Drill::Rejoin.plan(&cast(2));
        assert_eq!((even.fault, even.expectation.primary), (vec![Step::KillNode("b".into())], Change::Stays));
    }
}
