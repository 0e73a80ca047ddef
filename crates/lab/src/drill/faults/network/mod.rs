//! Faults of links: cuts here, and what is worse than a cut in the files below.

pub(super) mod apart;
pub(super) mod flapping;
pub(super) mod flaws;
pub(super) mod slow;

use std::thread;
use std::time::Duration;

use super::super::act::{Act, EXPIRES, Ends, Shows};
use super::super::catalogue::{Drill, Layer};
use super::super::plan::{Change, Expectation, failover};
use crate::fault::{CutOptions, Direction};

/// How long clients write to a separated node before it is struck again: shorter than others take to judge it silent and
/// to wait for its lease.
const SEPARATED: Duration = Duration::from_millis(300);

/// What the switch drops ends by the kernel's clock.
const BY_TIMEOUT: Act = Act { ends: Ends::ByKernel(EXPIRES), ..Act::until(&HEAL_NODE) };

pub(in super::super) static CUT_NODE: Act = Act {
    name: "cut-node",
    words: "cut {} from every line",
    means: "the switch drops all it sends and should get (nftables set elements with a timeout)",
    shows: Shows::Silence,
    inject: |lab, _, node| lab.cut_node(node, &CutOptions::whole().lasting(EXPIRES)),
    ..BY_TIMEOUT
};

static DEAFEN: Act = Act {
    name: "deafen",
    words: "let {} send and hear nothing",
    means: "the switch drops what is sent to it (nftables set elements with a timeout)",
    inject: |lab, _, node| lab.cut_node(node, &CutOptions::whole().only(Direction::ToNode).lasting(EXPIRES)),
    ..BY_TIMEOUT
};

pub(in super::super) static MUTE: Act = Act {
    name: "mute",
    words: "let {} hear and be heard by nobody",
    means: "the switch drops what it sends (nftables set elements with a timeout)",
    shows: Shows::Silence,
    inject: |lab, _, node| {
        lab.cut_node(node, &CutOptions::whole().only(Direction::FromNode).lasting(EXPIRES))
    },
    ..BY_TIMEOUT
};

pub(in super::super) static SEPARATE: Act = Act {
    name: "separate",
    words: "cut {} from all other nodes, not from clients",
    means: "the switch drops what it and other nodes send each other (nftables set elements with a timeout)",
    inject: |lab, _, node| {
        let evidence = lab.separate_nodes(std::slice::from_ref(node), EXPIRES)?;
        thread::sleep(SEPARATED);
        Ok(evidence)
    },
    ..BY_TIMEOUT
};

pub(in super::super) static HEAL_NODE: Act = Act {
    name: "heal-node",
    words: "heal the lines of {}",
    means: "the elements are removed",
    inject: |lab, _, node| lab.heal_node(node),
    ..Act::ONCE
};

pub(super) const ACTS: &[&Act] = &[
    &CUT_NODE,
    &DEAFEN,
    &MUTE,
    &SEPARATE,
    &HEAL_NODE,
    &apart::PART,
    &flapping::BLIP,
    &flaws::LOSE,
    &flaws::LEAK,
    &flaws::NARROW,
    &flaws::SLIM,
    &flaws::MEND,
    &slow::SLOW,
    &slow::SCRAMBLE,
    &slow::SPEED,
];

const NETWORK: Drill = Drill { layer: Layer::Network, ..Drill::PLAIN };

pub(in super::super) static DRILLS: &[Drill] = &[
    Drill {
        name: "network-cut",
        summary: "cuts the primary's node from every line for some seconds",
        expectation: failover("a standby takes over, and the healed node does not disturb it", 1000),
        acts: |cast| cast.on_primary(&CUT_NODE),
        ..NETWORK
    },
    Drill {
        name: "heal",
        summary: "cuts the primary's node off and heals it, in turn as soon as another leads and after its lease",
        expectation: failover(
            "a standby takes over and stays the primary; the healed one serves nobody after its lease",
            1000,
        ),
        acts: |cast| cast.on_primary(&CUT_NODE),
        vary: |plan, cast| {
            if cast.is_odd() {
                plan.expectation.hold = Duration::ZERO;
            }
        },
        ..NETWORK
    },
    Drill {
        name: "network-cut-standby",
        summary: "cuts a standby's node from every line for some seconds",
        expectation: Expectation {
            primary: Change::Stays,
            ..failover("writes go on with the other standby, and the healed one catches up", 200)
        },
        acts: |cast| cast.on_standby(&CUT_NODE),
        ..NETWORK
    },
    Drill {
        name: "primary-deaf",
        summary: "lets the primary's node send and hear nothing: others hear it and get no answer",
        expectation: failover("a standby takes over, and the deaf primary serves nobody", 2000).within(5),
        acts: |cast| cast.on_primary(&DEAFEN),
        ..NETWORK
    },
    Drill {
        name: "primary-mute",
        summary: "lets the primary's node hear everything and be heard by nobody",
        expectation: failover("a standby takes over, and the healed node does not disturb it", 2000)
            .within(5),
        acts: |cast| cast.on_primary(&MUTE),
        ..NETWORK
    },
    Drill {
        name: "primary-separated",
        summary: "cuts the primary from all other nodes, while clients still reach it",
        expectation: failover("a standby takes over, and nothing that the separated one says counts", 2000)
            .within(5),
        acts: |cast| cast.on_primary(&SEPARATE),
        ..NETWORK
    },
];
