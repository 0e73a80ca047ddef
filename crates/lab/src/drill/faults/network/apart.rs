//! Partitions in which everyone still sees a majority: two nodes do not hear each other, and a third hears both.

use model::NodeName;

use super::super::super::act::Act;
use super::super::super::catalogue::Drill;
use super::super::super::plan::{Cast, Change, Expectation, failover, nothing_happens};
use super::super::super::step::Step;
use super::super::process::KILL_POSTMASTER;
use super::{BY_TIMEOUT, CUT_NODE, NETWORK};

/// How [`Step::Part`] is done; the step names both nodes.
pub(in super::super::super) static PART: Act = Act {
    name: "part",
    words: "cut {} from one other node",
    means: "the switch drops what the two send each other (nftables set elements with a timeout)",
    ..BY_TIMEOUT
};

/// The primary and a standby do not hear each other.
fn primary_and_standby(cast: &Cast) -> Vec<Step> {
    let part = |standby: &NodeName| Step::Part([cast.primary.clone(), standby.clone()]);
    cast.standbys.first().map(part).into_iter().collect()
}

/// The first two standbys do not hear each other.
fn standbys(cast: &Cast) -> Vec<Step> {
    match cast.standbys.as_slice() {
        [one, other, ..] => vec![Step::Part([one.clone(), other.clone()])],
        [_] | [] => vec![],
    }
}

pub(in super::super) static DRILLS: &[Drill] = &[
    Drill {
        name: "primary-standby-apart",
        summary: "cuts the primary and a standby from each other, while the other standby hears both",
        expectation: Expectation {
            must_notice: true,
            ..nothing_happens(
                "writes go on with the other standby, and nobody takes over from a primary that lives",
            )
        },
        acts: primary_and_standby,
        ..NETWORK
    },
    Drill {
        name: "standbys-apart",
        summary: "cuts two standbys from each other, while the primary hears both",
        expectation: Expectation {
            must_notice: true,
            ..nothing_happens("nothing happens to clients: no change of the primary, no failed write")
        },
        acts: standbys,
        ..NETWORK
    },
    Drill {
        name: "bridge-postmaster-kill",
        summary: "cuts the standbys from each other and kills the primary's postmaster: only its node hears both",
        expectation: failover(
            "writes flow again within 5 s, although no standby can stream from the other",
            5000,
        )
        .within(5)
        .whoever(),
        acts: |cast| [standbys(cast), cast.on_primary(&KILL_POSTMASTER)].concat(),
        ..NETWORK
    },
    Drill {
        name: "coordination-leader-cut",
        summary: "cuts the node that leads the coordination from every line; it is not the primary's",
        expectation: Expectation {
            primary: Change::Stays,
            ..failover("another agent leads, and writes go on with the other standby", 200)
        },
        acts: |cast| match &cast.leader {
            Some(node) if *node != cast.primary => vec![Step::Do { act: &CUT_NODE, node: node.clone() }],
            Some(_) | None => cast.on_standby(&CUT_NODE),
        },
        ..NETWORK
    },
];
