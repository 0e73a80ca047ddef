//! The single steps of drills, and what takes each of them back.

use std::fmt;
use std::slice::from_ref;
use std::time::Duration;

use model::NodeName;
use serde::{Deserialize, Serialize};

use super::act::{Act, Ends, Needs, Shows, deserialize_act, serialize_act};

/// One thing that is done to the system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// An act of the catalogue, done to a node.
    Do {
        /// What is done.
        #[serde(serialize_with = "serialize_act", deserialize_with = "deserialize_act")]
        act: &'static Act,
        /// To which node.
        node: NodeName,
    },
    /// An act that is over in a moment, done to the node of whoever is the primary by then; there is waited for one.
    OnPrimary {
        /// What is done.
        #[serde(serialize_with = "serialize_act", deserialize_with = "deserialize_act")]
        act: &'static Act,
    },
    /// Silent death of several nodes: the links of all first.
    KillNodes(Vec<NodeName>),
    /// These nodes and all others do not reach each other; among themselves they do, and clients reach all.
    CutApart(Vec<NodeName>),
    /// A cut between these two, while others still reach both.
    Part([NodeName; 2]),
    /// Nothing is done for so long.
    Wait(Duration),
    /// Nothing is done until writes flow.
    AwaitWrites,
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
            Self::Do { node, .. } | Self::Switchover(node) | Self::HandTo(node) => from_ref(node),
            Self::KillNodes(nodes) | Self::CutApart(nodes) => nodes.as_slice(),
            Self::Part(both) => both.as_slice(),
            Self::OnPrimary { .. } | Self::Wait(_) | Self::AwaitWrites | Self::AskStatus => &[],
        }
    }

    /// What takes it back; empty when it is over in a moment.
    pub fn undo(&self) -> Vec<Self> {
        match self {
            Self::Do { act, node } => {
                act.undo.into_iter().map(|act| Self::Do { act, node: node.clone() }).collect()
            }
            Self::KillNodes(nodes) => {
                let start =
                    |node: &NodeName| Self::Do { act: &super::faults::START_NODE, node: node.clone() };
                nodes.iter().map(start).collect()
            }
            Self::CutApart(nodes) => {
                let heal = |node: &NodeName| Self::Do { act: &super::faults::HEAL_NODE, node: node.clone() };
                nodes.iter().map(heal).collect()
            }
            Self::Part([one, _]) => {
                vec![Self::Do { act: &super::faults::HEAL_NODE, node: one.clone() }]
            }
            Self::OnPrimary { .. }
            | Self::Wait(_)
            | Self::AwaitWrites
            | Self::Switchover(_)
            | Self::HandTo(_)
            | Self::AskStatus => vec![],
        }
    }

    /// The act, where it is one that is done to a node.
    pub const fn act(&self) -> Option<&'static Act> {
        match self {
            Self::Do { act, .. } | Self::OnPrimary { act } => Some(act),
            Self::KillNodes(_) => Some(&super::faults::KILL_NODE),
            Self::CutApart(_) => Some(&super::faults::SEPARATE),
            Self::Part(_) => Some(&super::faults::PART),
            Self::Wait(_) | Self::AwaitWrites | Self::Switchover(_) | Self::HandTo(_) | Self::AskStatus => {
                None
            }
        }
    }

    /// After how long a guard must take it back; `None` where nothing lasts or the kernel ends it.
    pub(super) fn guarded(&self) -> Option<Duration> {
        match self.act()?.ends {
            Ends::ByGuard(lasting) => Some(lasting),
            Ends::AtOnce | Ends::ByKernel(_) | Ends::ByOwnGuard(_) => None,
        }
    }

    /// After how long it has ended by itself, whoever ends it.
    pub(super) fn lasts(&self) -> Duration {
        match self.act().map(Act::ends) {
            Some(Ends::ByKernel(lasts) | Ends::ByGuard(lasts) | Ends::ByOwnGuard(lasts)) => lasts,
            Some(Ends::AtOnce) | None => Duration::ZERO,
        }
    }

    /// The node that it switches on, if it does that.
    pub(crate) fn starts(&self) -> Option<&NodeName> {
        match self {
            Self::Do { act, node } if **act == super::faults::START_NODE => Some(node),
            Self::Do { .. }
            | Self::OnPrimary { .. }
            | Self::KillNodes(_)
            | Self::CutApart(_)
            | Self::Part(_)
            | Self::Wait(_)
            | Self::AwaitWrites
            | Self::Switchover(_)
            | Self::HandTo(_)
            | Self::AskStatus => None,
        }
    }

    /// What others must see of it.
    pub(super) fn shows(&self) -> Shows {
        self.act().map_or(Shows::Nothing, |act| act.shows)
    }

    /// What its nodes must have.
    pub(super) fn needs(&self) -> Needs {
        self.act().map_or(Needs::Nothing, Act::needs)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Do { act, node } => f.write_str(&act.on(node)),
            Self::KillNodes(nodes) => {
                let names: Vec<&str> = nodes.iter().map(NodeName::as_str).collect();
                write!(f, "take the power from {} at once", names.join(" and "))
            }
            Self::CutApart(nodes) => {
                let names: Vec<&str> = nodes.iter().map(NodeName::as_str).collect();
                write!(f, "cut {} from all other nodes, not from clients", names.join(" and "))
            }
            Self::OnPrimary { act } => f.write_str(&act.on(&NodeName::new("the present primary's node"))),
            Self::Part([one, other]) => write!(f, "cut {one} and {other} from each other"),
            Self::Wait(time) => write!(f, "wait {} ms", time.as_millis()),
            Self::AwaitWrites => write!(f, "wait until writes flow"),
            Self::Switchover(node) => write!(f, "switch over, away from {node}"),
            Self::HandTo(node) => write!(f, "switch over to {node}"),
            Self::AskStatus => write!(f, "ask for the status"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::catalogue::Drill;
    use super::super::faults::{START_NODE, acts};
    use super::super::plan::Cast;
    use super::*;

    #[test]
    fn what_lasts_names_what_takes_it_back_on_the_same_nodes() {
        let (a, b) = (NodeName::from("a"), NodeName::from("b"));
        let both = Step::KillNodes(vec![a.clone(), b.clone()]);
        let start = |node| Step::Do { act: &START_NODE, node };
        assert_eq!(both.undo(), [start(a), start(b)]);
    }

    #[test]
    fn what_is_done_to_an_unknown_node_needs_nobody_to_take_it_back() {
        let cast = |run| Cast { leader: Some("b".into()), run, ..Cast::of("a", &["b", "c"]) };
        let plans = Drill::all().flat_map(|drill| [1, 2].map(|run| drill.plan(&cast(run))));
        for step in plans.flat_map(|plan| [plan.prepare, plan.fault, plan.recovery].concat()) {
            if let Step::OnPrimary { act } = step {
                assert!(act.undo.is_none() && act.ends == Ends::AtOnce, "{act:?}");
            }
        }
    }

    #[test]
    fn every_step_survives_the_way_to_another_process() {
        for act in acts() {
            let step = Step::Do { act, node: "a".into() };
            let text = serde_json::to_string(&step).unwrap();
            assert_eq!(serde_json::from_str::<Step>(&text).unwrap(), step);
            assert_eq!(
                act.on(&"a".into()).matches('a').count(),
                1 + act.words.matches('a').count(),
                "{act:?}"
            );
        }
        let error = serde_json::from_str::<Step>(r#"{"do":{"act":"earthquake","node":"a"}}"#).unwrap_err();
        assert!(error.to_string().contains("no act `earthquake`"), "{error}");
    }
}
