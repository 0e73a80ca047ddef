//! Faults of whole machines.

use std::time::Duration;

use super::super::act::{Act, Shows};
use super::super::catalogue::{Drill, Layer};
use super::super::plan::{Change, Expectation, Manner, Writes, failover};
use super::super::step::Step;
use super::network::SEPARATE;

pub(in super::super) static KILL_NODE: Act = Act {
    name: "kill-node",
    words: "take the power from {}",
    means: "its links fall silent (nftables at the switch), then the kernel kills its PID namespace",
    shows: Shows::Silence,
    inject: |lab, _, node| lab.kill_node(node),
    ..Act::until(&START_NODE)
};

pub(in super::super) static START_NODE: Act = Act {
    name: "start-node",
    words: "start {}",
    means: "a new init in new namespaces",
    inject: |lab, _, node| lab.start_node(node),
    ..Act::ONCE
};

pub(in super::super) static FREEZE_NODE: Act = Act {
    name: "freeze-node",
    words: "freeze {}",
    means: "its links fall silent, then the kernel's freezer (cgroup) stops every process where it is",
    shows: Shows::Silence,
    inject: |lab, _, node| lab.freeze_node(node, true),
    ..Act::until(&THAW_NODE)
};

static PAUSE_NODE: Act = Act {
    name: "pause-node",
    words: "pause {}, its kernel still answers TCP",
    means: "the kernel's freezer (cgroup) stops every process where it is; links and kernel go on",
    shows: Shows::SilentAgent,
    inject: |lab, _, node| lab.freeze_node(node, false),
    ..Act::until(&THAW_NODE)
};

static THAW_NODE: Act = Act {
    name: "thaw-node",
    words: "thaw {}",
    means: "the freezer lets every process go on",
    inject: |lab, _, node| lab.thaw_node(node),
    ..Act::ONCE
};

static SHUT_DOWN_NODE: Act = Act {
    name: "shut-down-node",
    words: "shut {} down in order",
    means: "SIGTERM to its init, which ends the agent first and then everything else",
    inject: |lab, _, node| lab.stop_node(node),
    ..Act::until(&START_NODE)
};

pub(super) const ACTS: &[&Act] =
    &[&KILL_NODE, &START_NODE, &FREEZE_NODE, &PAUSE_NODE, &THAW_NODE, &SHUT_DOWN_NODE];

const NODE: Drill = Drill { layer: Layer::Node, ..Drill::PLAIN };

pub(super) static DRILLS: &[Drill] = &[
    Drill {
        name: "node-kill",
        summary: "takes the power from the primary's node: its links first, then every process",
        expectation: failover("a standby takes over, and the node comes back as a standby", 900),
        acts: |cast| cast.on_primary(&KILL_NODE),
        ..NODE
    },
    Drill {
        name: "node-freeze",
        summary: "freezes the primary's node for some seconds, its links cut, and thaws it",
        expectation: failover("a standby takes over, and the thawed primary serves nobody", 1000),
        acts: |cast| cast.on_primary(&FREEZE_NODE),
        ..NODE
    },
    Drill {
        name: "node-pause",
        summary: "stops every process of the primary's node, while its kernel still answers TCP",
        expectation: failover("a standby takes over, and the node that goes on serves nobody", 1000),
        acts: |cast| cast.on_primary(&PAUSE_NODE),
        ..NODE
    },
    Drill {
        name: "node-shutdown",
        summary: "shuts the primary's node down in order and starts it again",
        expectation: failover("a standby takes over, and the node comes back as a standby", 900),
        acts: |cast| cast.on_primary(&SHUT_DOWN_NODE),
        ..NODE
    },
    Drill {
        name: "standby-kill",
        summary: "takes the power from a standby's node",
        expectation: STANDBY_KILL,
        acts: |cast| cast.on_standby(&KILL_NODE),
        ..NODE
    },
    Drill {
        name: "standby-freeze",
        summary: "freezes a standby's node for some seconds, its links cut, and thaws it",
        expectation: Expectation {
            primary: Change::Stays,
            ..failover("writes go on with the other standby, and the thawed one catches up", 200)
        },
        acts: |cast| cast.on_standby(&FREEZE_NODE),
        ..NODE
    },
    Drill {
        name: "both-standbys-kill",
        summary: "takes the power from the nodes of all standbys and starts one after another",
        expectation: BOTH_STANDBYS_KILL,
        acts: |cast| vec![Step::KillNodes(cast.standbys.clone())],
        ..NODE
    },
    Drill {
        name: "all-nodes-kill",
        summary: "takes the power from every member's node at once and starts them, each run in another order",
        expectation: ALL_NODES_KILL,
        acts: |cast| vec![Step::KillNodes(cast.members().cloned().collect())],
        vary: |plan, cast| plan.recovery = in_turn(std::mem::take(&mut plan.recovery), cast.run),
        ..NODE
    },
    Drill {
        name: "outages-in-turn",
        summary: "takes the power from a standby, then from the other nodes, and starts the one that knows least first",
        expectation: Expectation { hold: Duration::from_secs(1), ..ALL_NODES_KILL },
        acts: |cast| {
            let (first, others): (Vec<_>, Vec<_>) =
                cast.members().cloned().partition(|node| cast.standbys.first() == Some(node));
            [Step::KillNodes(first), Step::Wait(ALONE), Step::KillNodes(others)].into()
        },
        vary: |plan, _| {
            // The stale one is alone for a while: it must not make anything of it.
            plan.recovery.insert(1, Step::Wait(ALONE));
        },
        ..NODE
    },
    Drill {
        name: "rejoin",
        summary: "takes the power from a node and starts it again: the primary's and a standby's in turn",
        expectation: Expectation {
            redundancy: Some(Duration::from_secs(10)),
            primary: Change::Any,
            ..failover("full redundancy is back within 10 s of the node's return", 900)
        },
        acts: |cast| if cast.is_odd() { cast.on_primary(&KILL_NODE) } else { cast.on_standby(&KILL_NODE) },
        vary: |plan, cast| {
            plan.expectation.primary = if cast.is_odd() { Change::Changes } else { Change::Stays };
        },
        ..NODE
    },
    Drill {
        name: "async-loss",
        summary: "cuts the primary of a database with async durability from its standbys, then takes its power",
        expectation: Expectation {
            loses: true,
            ..failover("the check finds that acknowledged writes are lost, and says so", 5000)
        },
        manner: Manner::ThroughVictim,
        acts: |cast| [cast.on_primary(&SEPARATE), cast.on_primary(&KILL_NODE)].concat(),
        vary: |plan, cast| plan.recovery = cast.on_primary(&START_NODE),
        ..NODE
    },
];

/// How long the system goes on without a node, and a stale node alone, where outages follow each other.
const ALONE: Duration = Duration::from_secs(3);

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

/// Another order in every run, until all have been.
fn in_turn(mut steps: Vec<Step>, run: usize) -> Vec<Step> {
    let count = steps.len().max(1);
    steps.rotate_left(run % count);
    if run / count % 2 == 1 {
        steps.reverse();
    }
    steps
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::super::catalogue::drill;
    use super::super::super::plan::Cast;
    use super::*;

    fn cast(run: usize) -> Cast {
        Cast { leader: Some("b".into()), run, ..Cast::of("a", &["b", "c"]) }
    }

    #[test]
    fn what_lasts_is_taken_back() {
        for drill in Drill::all() {
            let plan = drill.plan(&cast(1));
            let lasts = plan.fault.iter().any(|step| !step.undo().is_empty());
            assert_eq!(lasts, !plan.recovery.is_empty(), "{drill}");
        }
    }

    #[test]
    fn all_nodes_come_back_in_every_order() {
        let order = |run| drill("all-nodes-kill").plan(&cast(run)).recovery;
        let orders: BTreeSet<Vec<String>> =
            (1..=10).map(|run| order(run).iter().map(Step::to_string).collect()).collect();
        assert_eq!(orders.len(), 6);
    }

    #[test]
    fn a_rejoin_strikes_the_primary_and_a_standby_in_turn() {
        let strikes = |run| {
            let plan = drill("rejoin").plan(&cast(run));
            (plan.victims().into_iter().cloned().collect::<Vec<_>>(), plan.expectation.primary)
        };
        assert_eq!(strikes(1), (vec!["a".into()], Change::Changes));
        assert_eq!(strikes(2), (vec!["b".into()], Change::Stays));
    }
}
