//! Links that come and go.

use std::time::Duration;

use super::super::super::act::{Act, Ends, Shows};
use super::super::super::catalogue::Drill;
use super::super::super::plan::{Change, Expectation, failover};
use super::super::super::step::Step;
use super::super::node::KILL_NODE;
use super::NETWORK;

/// How long a node is cut off each time.
const OFF: Duration = Duration::from_millis(300);

/// How long it is heard in between. The act itself returns in the middle of its cut.
const ON: Duration = Duration::from_millis(700 + 150);

/// There is nothing to take back: the kernel ends each cut by itself, also when nobody is left to make another.
pub(super) static BLIP: Act = Act {
    name: "blip",
    words: "cut {} from every line for 300 ms",
    means: "the switch drops all it sends and should get (nftables set elements with a timeout of 300 ms)",
    ends: Ends::ByKernel(OFF),
    shows: Shows::Pause(Duration::from_millis(250)),
    inject: |lab, _, node| lab.blip(node, OFF),
    ..Act::ONCE
};

/// So many cuts, one after another.
fn flap(blip: &[Step], times: usize) -> Vec<Step> {
    let once = || blip.iter().cloned().chain([Step::Wait(ON)]);
    (0..times).flat_map(|_| once()).collect()
}

pub(in super::super) static DRILLS: &[Drill] = &[
    Drill {
        name: "primary-flapping",
        summary: "cuts the primary's node off for 0.3 s and lets it be heard for 0.7 s, ten times",
        expectation: Expectation {
            // A third of a second is not worth an alarm, and may be over before anybody looks.
            must_notice: false,
            ..failover(
                "whoever is the primary, writes never stand still for more than 5 s, and they flow at the end",
                5000,
            )
            .within(5)
            .whoever()
        },
        acts: |cast| flap(&cast.on_primary(&BLIP), 10),
        ..NETWORK
    },
    Drill {
        name: "standby-flapping",
        summary: "cuts a standby's node off for 0.3 s and lets it be heard for 0.7 s, ten times",
        expectation: Expectation {
            must_notice: false,
            primary: Change::Stays,
            ..failover("writes go on with the other standby, and the healed one catches up", 200)
        },
        acts: |cast| flap(&cast.on_standby(&BLIP), 10),
        ..NETWORK
    },
    Drill {
        name: "flapping-node-kill",
        summary: "takes the power from the primary's node while a standby's node flaps",
        expectation: failover("a standby that holds every acknowledged write takes over within 5 s", 5000)
            .within(5),
        acts: |cast| {
            let blip = cast.on_standby(&BLIP);
            // The power goes in the middle of a cut.
            [flap(&blip, 2), blip.clone(), cast.on_primary(&KILL_NODE), vec![Step::Wait(ON)], flap(&blip, 2)]
                .concat()
        },
        ..NETWORK
    },
];
