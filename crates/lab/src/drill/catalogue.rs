//! The drills, as data: which fault, what is expected, how the fault is taken back.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use model::NodeName;

/// A drill's name on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Drill {
    /// The primary's postmaster is killed.
    PostmasterKill,
    /// The primary's whole node loses power.
    NodeKill,
    /// The primary's whole node stands still and wakes up later, unaware.
    NodeFreeze,
    /// The primary's node loses every line.
    NetworkCut,
    /// The primary hands over in an orderly way.
    Switchover,
    /// A standby's whole node loses power.
    StandbyKill,
    /// The agent of the primary's node is killed.
    AgentKill,
}

/// One thing that is done to the system, to one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// SIGKILL to the postmaster.
    KillPostmaster(NodeName),
    /// Silent death: its links first, then every process of the node.
    KillNode(NodeName),
    /// Stands still silently: its links first, then every process stops where it is.
    FreezeNode(NodeName),
    /// Every line of the node drops what it receives.
    CutNode(NodeName),
    /// SIGKILL to the agent.
    KillAgent(NodeName),
    /// An orderly change of the primary, away from this node.
    Switchover(NodeName),
    /// Power comes back: the node starts.
    StartNode(NodeName),
    /// Every process goes on, then the links come back.
    ThawNode(NodeName),
    /// The lines deliver again.
    HealNode(NodeName),
}

/// Whom a drill strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// The primary's node.
    Primary,
    /// The node of a standby.
    Standby,
}

/// What must come of it, beside what every drill demands: no acknowledged write lost or doubled, never two primaries,
/// and full redundancy again without help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// In one sentence.
    pub words: &'static str,
    /// Whether another member is the primary afterwards.
    pub primary_changes: bool,
    /// Whether the client may see errors at all.
    pub errors_allowed: bool,
    /// Whether the system must notice that its redundancy is gone while the fault lasts.
    pub must_notice: bool,
    /// The objective for the median outage of several runs. One run is held to three times this.
    pub outage: Duration,
}

/// One drill as data.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Whom it strikes.
    pub victim: Victim,
    /// What is done.
    pub fault: fn(NodeName) -> Step,
    /// What takes it back; none when the fault is over in a moment.
    pub recovery: Option<fn(NodeName) -> Step>,
    /// What must come of it.
    pub expectation: Expectation,
}

impl Drill {
    /// All drills, in the order in which documents list them.
    pub const ALL: [Self; 7] = [
        Self::PostmasterKill,
        Self::NodeKill,
        Self::NodeFreeze,
        Self::NetworkCut,
        Self::Switchover,
        Self::StandbyKill,
        Self::AgentKill,
    ];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PostmasterKill => "postmaster-kill",
            Self::NodeKill => "node-kill",
            Self::NodeFreeze => "node-freeze",
            Self::NetworkCut => "network-cut",
            Self::Switchover => "switchover",
            Self::StandbyKill => "standby-kill",
            Self::AgentKill => "agent-kill",
        }
    }

    /// What it does, in one sentence.
    pub const fn summary(self) -> &'static str {
        match self {
            Self::PostmasterKill => "kills the primary's postmaster with SIGKILL",
            Self::NodeKill => "takes the power from the primary's node: its links first, then every process",
            Self::NodeFreeze => "freezes the primary's node for some seconds, its links cut, and thaws it",
            Self::NetworkCut => "cuts the primary's node from every line for some seconds",
            Self::Switchover => "hands the primary over to a standby in an orderly way",
            Self::StandbyKill => "takes the power from a standby's node",
            Self::AgentKill => "kills the agent on the primary's node with SIGKILL",
        }
    }

    /// What is done, what must come of it, and what takes it back.
    pub fn plan(self) -> Plan {
        match self {
            Self::PostmasterKill => Plan {
                victim: Victim::Primary,
                fault: Step::KillPostmaster,
                recovery: None,
                expectation: failover(
                    "a standby takes over at once, and the member comes back as a standby",
                    350,
                ),
            },
            Self::NodeKill => Plan {
                victim: Victim::Primary,
                fault: Step::KillNode,
                recovery: Some(Step::StartNode),
                expectation: failover("a standby takes over, and the node comes back as a standby", 900),
            },
            Self::NodeFreeze => Plan {
                victim: Victim::Primary,
                fault: Step::FreezeNode,
                recovery: Some(Step::ThawNode),
                expectation: failover("a standby takes over, and the thawed primary serves nobody", 1000),
            },
            Self::NetworkCut => Plan {
                victim: Victim::Primary,
                fault: Step::CutNode,
                recovery: Some(Step::HealNode),
                expectation: failover("a standby takes over, and the healed node does not disturb it", 1000),
            },
            Self::Switchover => Plan {
                victim: Victim::Primary,
                fault: Step::Switchover,
                recovery: None,
                expectation: Expectation {
                    errors_allowed: false,
                    must_notice: false,
                    ..failover(HANDED_OVER, 200)
                },
            },
            Self::StandbyKill => Plan {
                victim: Victim::Standby,
                fault: Step::KillNode,
                recovery: Some(Step::StartNode),
                expectation: Expectation {
                    primary_changes: false,
                    ..failover(
                        "writes go on with the other standby, and the node comes back as a standby",
                        200,
                    )
                },
            },
            Self::AgentKill => Plan {
                victim: Victim::Primary,
                fault: Step::KillAgent,
                recovery: None,
                expectation: NOTHING_HAPPENS,
            },
        }
    }
}

const HANDED_OVER: &str =
    "another member is the primary, and no client that came through the route saw an error";

const NOTHING_HAPPENS: Expectation = Expectation {
    words: "nothing happens: no change of the primary, no failed write",
    primary_changes: false,
    errors_allowed: false,
    must_notice: false,
    outage: Duration::from_millis(200),
};

/// What is expected when a silent or sudden fault strikes.
const fn failover(words: &'static str, outage_ms: u64) -> Expectation {
    Expectation {
        words,
        primary_changes: true,
        errors_allowed: true,
        must_notice: true,
        outage: Duration::from_millis(outage_ms),
    }
}

impl Step {
    /// The node it is done to.
    pub const fn node(&self) -> &NodeName {
        match self {
            Self::KillPostmaster(node)
            | Self::KillNode(node)
            | Self::FreezeNode(node)
            | Self::CutNode(node)
            | Self::KillAgent(node)
            | Self::Switchover(node)
            | Self::StartNode(node)
            | Self::ThawNode(node)
            | Self::HealNode(node) => node,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KillPostmaster(node) => write!(f, "kill the postmaster on {node}"),
            Self::KillNode(node) => write!(f, "take the power from {node}"),
            Self::FreezeNode(node) => write!(f, "freeze {node}"),
            Self::CutNode(node) => write!(f, "cut {node} from every line"),
            Self::KillAgent(node) => write!(f, "kill the agent on {node}"),
            Self::Switchover(node) => write!(f, "switch over, away from {node}"),
            Self::StartNode(node) => write!(f, "start {node}"),
            Self::ThawNode(node) => write!(f, "thaw {node}"),
            Self::HealNode(node) => write!(f, "heal the lines of {node}"),
        }
    }
}

impl fmt::Display for Drill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is no drill's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no drill `{0}`; there are: {names}", names = Drill::ALL.map(Drill::name).join(", "))]
pub struct UnknownDrill(String);

impl FromStr for Drill {
    type Err = UnknownDrill;

    fn from_str(name: &str) -> Result<Self, UnknownDrill> {
        Self::ALL.into_iter().find(|drill| drill.name() == name).ok_or_else(|| UnknownDrill(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drills_are_found_by_their_names() {
        for drill in Drill::ALL {
            assert_eq!(drill.name().parse(), Ok(drill));
        }
        let error = "earthquake".parse::<Drill>().unwrap_err().to_string();
        assert!(error.contains("`earthquake`") && error.contains("node-freeze"), "{error}");
    }

    #[test]
    fn what_lasts_is_taken_back() {
        for drill in Drill::ALL {
            let lasts = matches!(
                (drill.plan().fault)("a".into()),
                Step::KillNode(_) | Step::FreezeNode(_) | Step::CutNode(_)
            );
            assert_eq!(lasts, drill.plan().recovery.is_some(), "{drill}");
        }
    }
}
