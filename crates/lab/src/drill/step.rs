//! The single acts of drills, and what takes each of them back.

use std::fmt;
use std::slice::from_ref;

use model::NodeName;
use serde::{Deserialize, Serialize};

/// One thing that is done to the system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// SIGKILL to the postmaster.
    KillPostmaster(NodeName),
    /// SIGSTOP to the postmaster alone: its children go on.
    HangPostmaster(NodeName),
    /// The postmaster goes on, if it is still there.
    ResumePostmaster(NodeName),
    /// Silent death: its links first, then every process of the node.
    KillNode(NodeName),
    /// Silent death of several nodes: the links of all first.
    KillNodes(Vec<NodeName>),
    /// Power comes back: the node starts.
    StartNode(NodeName),
    /// Stands still silently: its links first, then every process stops where it is.
    FreezeNode(NodeName),
    /// Every process goes on, then the links come back.
    ThawNode(NodeName),
    /// Every line of the node drops what it receives.
    CutNode(NodeName),
    /// The node and all others do not reach each other; clients reach it. Returns after clients had time to write.
    SeparateNode(NodeName),
    /// The lines deliver again.
    HealNode(NodeName),
    /// SIGKILL to the agent.
    KillAgent(NodeName),
    /// SIGSTOP to the agent: its connections stay open and say nothing.
    HangAgent(NodeName),
    /// The agent goes on, if it is still there.
    ResumeAgent(NodeName),
    /// The connection between the node's proxy and its agent is shut down at both ends.
    CutProxy(NodeName),
    /// The volume of the node's databases is filled to the last block.
    FillDisk(NodeName),
    /// The space is given back.
    FreeDisk(NodeName),
    /// The volume of the node's databases hangs: who writes there waits and cannot be killed.
    HangDisk(NodeName),
    /// The volume goes on.
    ThawDisk(NodeName),
    /// An orderly change of the primary, away from this node.
    Switchover(NodeName),
    /// An orderly change of the primary to this node.
    HandTo(NodeName),
    /// Nothing is done: the system is asked what it says of its database.
    AskStatus,
}

impl Step {
    /// The nodes it is done to.
    pub const fn nodes(&self) -> &[NodeName] {
        match self {
            Self::KillPostmaster(node)
            | Self::HangPostmaster(node)
            | Self::ResumePostmaster(node)
            | Self::KillNode(node)
            | Self::StartNode(node)
            | Self::FreezeNode(node)
            | Self::ThawNode(node)
            | Self::CutNode(node)
            | Self::SeparateNode(node)
            | Self::HealNode(node)
            | Self::KillAgent(node)
            | Self::HangAgent(node)
            | Self::ResumeAgent(node)
            | Self::CutProxy(node)
            | Self::FillDisk(node)
            | Self::FreeDisk(node)
            | Self::HangDisk(node)
            | Self::ThawDisk(node)
            | Self::Switchover(node)
            | Self::HandTo(node) => from_ref(node),
            Self::KillNodes(nodes) => nodes.as_slice(),
            Self::AskStatus => &[],
        }
    }

    /// What takes it back; empty when it is over in a moment.
    pub fn undo(&self) -> Vec<Self> {
        match self {
            Self::HangPostmaster(node) => vec![Self::ResumePostmaster(node.clone())],
            Self::KillNode(node) => vec![Self::StartNode(node.clone())],
            Self::KillNodes(nodes) => nodes.iter().cloned().map(Self::StartNode).collect(),
            Self::FreezeNode(node) => vec![Self::ThawNode(node.clone())],
            Self::CutNode(node) | Self::SeparateNode(node) => vec![Self::HealNode(node.clone())],
            Self::HangAgent(node) => vec![Self::ResumeAgent(node.clone())],
            Self::FillDisk(node) => vec![Self::FreeDisk(node.clone())],
            Self::HangDisk(node) => vec![Self::ThawDisk(node.clone())],
            Self::KillPostmaster(_)
            | Self::ResumePostmaster(_)
            | Self::StartNode(_)
            | Self::ThawNode(_)
            | Self::HealNode(_)
            | Self::KillAgent(_)
            | Self::ResumeAgent(_)
            | Self::CutProxy(_)
            | Self::FreeDisk(_)
            | Self::ThawDisk(_)
            | Self::Switchover(_)
            | Self::HandTo(_)
            | Self::AskStatus => vec![],
        }
    }

    /// Whether nobody outside hears the node after it.
    pub(super) const fn silences(&self) -> bool {
        match self {
            Self::KillNode(_) | Self::KillNodes(_) | Self::FreezeNode(_) | Self::CutNode(_) => true,
            Self::KillPostmaster(_)
            | Self::HangPostmaster(_)
            | Self::ResumePostmaster(_)
            | Self::StartNode(_)
            | Self::ThawNode(_)
            | Self::SeparateNode(_)
            | Self::HealNode(_)
            | Self::KillAgent(_)
            | Self::HangAgent(_)
            | Self::ResumeAgent(_)
            | Self::CutProxy(_)
            | Self::FillDisk(_)
            | Self::FreeDisk(_)
            | Self::HangDisk(_)
            | Self::ThawDisk(_)
            | Self::Switchover(_)
            | Self::HandTo(_)
            | Self::AskStatus => false,
        }
    }

    /// Whether it needs a volume of the node's own.
    pub(super) const fn needs_volume(&self) -> bool {
        matches!(self, Self::FillDisk(_) | Self::HangDisk(_))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KillPostmaster(node) => write!(f, "kill the postmaster on {node}"),
            Self::HangPostmaster(node) => write!(f, "stop the postmaster on {node} alone"),
            Self::ResumePostmaster(node) => write!(f, "let the postmaster on {node} go on"),
            Self::KillNode(node) => write!(f, "take the power from {node}"),
            Self::KillNodes(nodes) => {
                let names: Vec<&str> = nodes.iter().map(NodeName::as_str).collect();
                write!(f, "take the power from {} at once", names.join(" and "))
            }
            Self::StartNode(node) => write!(f, "start {node}"),
            Self::FreezeNode(node) => write!(f, "freeze {node}"),
            Self::ThawNode(node) => write!(f, "thaw {node}"),
            Self::CutNode(node) => write!(f, "cut {node} from every line"),
            Self::SeparateNode(node) => write!(f, "cut {node} from all other nodes, not from clients"),
            Self::HealNode(node) => write!(f, "heal the lines of {node}"),
            Self::KillAgent(node) => write!(f, "kill the agent on {node}"),
            Self::HangAgent(node) => write!(f, "stop the agent on {node}"),
            Self::ResumeAgent(node) => write!(f, "let the agent on {node} go on"),
            Self::CutProxy(node) => write!(f, "cut the proxy on {node} from its agent"),
            Self::FillDisk(node) => write!(f, "fill the volume of {node}"),
            Self::FreeDisk(node) => write!(f, "free the volume of {node}"),
            Self::HangDisk(node) => write!(f, "hang the volume of {node}"),
            Self::ThawDisk(node) => write!(f, "let the volume of {node} go on"),
            Self::Switchover(node) => write!(f, "switch over, away from {node}"),
            Self::HandTo(node) => write!(f, "switch over to {node}"),
            Self::AskStatus => write!(f, "ask for the status"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lasts_names_what_takes_it_back_on_the_same_nodes() {
        let (a, b) = (NodeName::from("a"), NodeName::from("b"));
        let both = Step::KillNodes(vec![a.clone(), b.clone()]);
        assert_eq!(both.undo(), [Step::StartNode(a.clone()), Step::StartNode(b)]);
        assert_eq!(Step::HangDisk(a.clone()).undo(), [Step::ThawDisk(a.clone())]);
        assert_eq!(Step::ThawDisk(a).undo(), []);
    }

    #[test]
    fn a_step_survives_the_way_to_another_process() {
        let step = Step::KillNodes(vec!["a".into(), "b".into()]);
        let text = serde_json::to_string(&step).unwrap();
        assert_eq!(serde_json::from_str::<Step>(&text).unwrap(), step);
    }
}
