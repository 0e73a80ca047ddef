//! The names of the drills.

use std::fmt;
use std::str::FromStr;

/// A drill's name on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Drill {
    /// The primary's postmaster is killed.
    PostmasterKill,
    /// The primary's postmaster hangs, and nothing else does.
    PostmasterHang,
    /// The primary's whole node loses power.
    NodeKill,
    /// The primary's whole node stands still and wakes up later, unaware.
    NodeFreeze,
    /// The primary's node loses every line.
    NetworkCut,
    /// The primary's node loses every line and gets them back early or late.
    Heal,
    /// The primary hands over in an orderly way.
    Switchover,
    /// A standby's whole node loses power.
    StandbyKill,
    /// The nodes of all standbys lose power.
    BothStandbysKill,
    /// Every node loses power at once.
    AllNodesKill,
    /// A node loses power and comes back: the primary's and a standby's in turn.
    Rejoin,
    /// The agent of the primary's node is killed.
    AgentKill,
    /// The agent that leads the coordination is killed.
    CoordinationLeaderKill,
    /// The agents of all nodes but the primary's stand still.
    CoordinationQuorumLoss,
    /// Proxies lose the connection to their agent.
    ProxyAgentCut,
    /// The disk of a standby is full.
    DiskFullStandby,
    /// The disk of the primary is full.
    DiskFullPrimary,
    /// The disk of the primary hangs.
    DiskHangPrimary,
    /// A database that may lose writes loses some, and it is seen.
    AsyncLoss,
}

impl Drill {
    /// All drills, in the order in which documents list them.
    pub const ALL: [Self; 19] = [
        Self::PostmasterKill,
        Self::NodeKill,
        Self::NodeFreeze,
        Self::NetworkCut,
        Self::Switchover,
        Self::StandbyKill,
        Self::AgentKill,
        Self::PostmasterHang,
        Self::BothStandbysKill,
        Self::AllNodesKill,
        Self::Heal,
        Self::Rejoin,
        Self::CoordinationLeaderKill,
        Self::CoordinationQuorumLoss,
        Self::ProxyAgentCut,
        Self::DiskFullStandby,
        Self::DiskFullPrimary,
        Self::DiskHangPrimary,
        Self::AsyncLoss,
    ];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PostmasterKill => "postmaster-kill",
            Self::PostmasterHang => "postmaster-hang",
            Self::NodeKill => "node-kill",
            Self::NodeFreeze => "node-freeze",
            Self::NetworkCut => "network-cut",
            Self::Heal => "heal",
            Self::Switchover => "switchover",
            Self::StandbyKill => "standby-kill",
            Self::BothStandbysKill => "both-standbys-kill",
            Self::AllNodesKill => "all-nodes-kill",
            Self::Rejoin => "rejoin",
            Self::AgentKill => "agent-kill",
            Self::CoordinationLeaderKill => "coordination-leader-kill",
            Self::CoordinationQuorumLoss => "coordination-quorum-loss",
            Self::ProxyAgentCut => "proxy-agent-cut",
            Self::DiskFullStandby => "disk-full-standby",
            Self::DiskFullPrimary => "disk-full-primary",
            Self::DiskHangPrimary => "disk-hang-primary",
            Self::AsyncLoss => "async-loss",
        }
    }

    /// What it does, in one sentence.
    pub const fn summary(self) -> &'static str {
        match self {
            Self::PostmasterKill => "kills the primary's postmaster with SIGKILL",
            Self::PostmasterHang => {
                "stops the primary's postmaster alone: open sessions go on, new ones get no answer"
            }
            Self::NodeKill => "takes the power from the primary's node: its links first, then every process",
            Self::NodeFreeze => "freezes the primary's node for some seconds, its links cut, and thaws it",
            Self::NetworkCut => "cuts the primary's node from every line for some seconds",
            Self::Heal => {
                "cuts the primary's node off and heals it, in turn as soon as another leads and after its lease"
            }
            Self::Switchover => "hands the primary over to a standby in an orderly way",
            Self::StandbyKill => "takes the power from a standby's node",
            Self::BothStandbysKill => {
                "takes the power from the nodes of all standbys and starts one after another"
            }
            Self::AllNodesKill => {
                "takes the power from every member's node at once and starts them, each run in another order"
            }
            Self::Rejoin => {
                "takes the power from a node and starts it again: the primary's and a standby's in turn"
            }
            Self::AgentKill => "kills the agent on the primary's node with SIGKILL",
            Self::CoordinationLeaderKill => {
                "kills the agent that leads the coordination: in turn on the primary's node and on another one"
            }
            Self::CoordinationQuorumLoss => {
                "stops the agents of all nodes but the primary's, so that nothing can be decided"
            }
            Self::ProxyAgentCut => "shuts down the connection between every proxy and its agent",
            Self::DiskFullStandby => "fills the disk of a standby to the last block",
            Self::DiskFullPrimary => "fills the disk of the primary to the last block",
            Self::DiskHangPrimary => {
                "lets the disk of the primary hang: writes to it wait and cannot be killed"
            }
            Self::AsyncLoss => {
                "cuts the primary of a database with async durability from its standbys, then takes its power"
            }
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
}
