//! Links that lose some of what they carry.

use std::time::Duration;

use super::super::super::act::{Act, EXPIRES, Ends, Shows};
use super::super::super::catalogue::Drill;
use super::super::super::plan::{Change, Expectation, Writes, failover, nothing_happens};
use super::NETWORK;
use crate::fault::Flaw;

/// What the switch loses ends by the kernel's clock.
const BY_TIMEOUT: Act = Act { ends: Ends::ByKernel(EXPIRES), ..Act::until(&MEND) };

pub(in super::super::super) static LOSE: Act = Act {
    name: "lose",
    words: "lose 20 % of what {} sends and gets",
    means: "the switch drops every fifth packet by chance (nftables numgen, set elements with a timeout)",
    // What was lost is sent again after 200 ms at the soonest (TCP_RTO_MIN).
    shows: Shows::Late { percent: 10, by: Duration::from_millis(150) },
    inject: |lab, _, node| lab.spoil_links(node, Flaw::Lossy, EXPIRES),
    ..BY_TIMEOUT
};

pub(in super::super::super) static LEAK: Act = Act {
    name: "leak",
    words: "lose 5 % of what {} sends and gets",
    means: "the switch drops every twentieth packet by chance (nftables numgen, set elements with a timeout)",
    shows: Shows::Late { percent: 2, by: Duration::from_millis(150) },
    inject: |lab, _, node| lab.spoil_links(node, Flaw::Leaky, EXPIRES),
    ..BY_TIMEOUT
};

pub(in super::super::super) static NARROW: Act = Act {
    name: "narrow",
    words: "lose the long packets of what {} sends and gets",
    means: "the switch drops packets of more than 1000 bytes (nftables set elements with a timeout); then a checkpoint, so that \
            the next writes put whole pages into the log",
    inject: |lab, database, node| {
        let evidence = lab.spoil_links(node, Flaw::Narrow, EXPIRES)?;
        lab.checkpoint(database)?;
        Ok(evidence)
    },
    ..BY_TIMEOUT
};

pub(super) static SLIM: Act = Act {
    name: "slim",
    words: "let {} send and get no more than 20 kB in a second",
    means: "the switch drops what exceeds 20 kB in a second, each way (nftables limits in set elements with a timeout)",
    inject: |lab, _, node| lab.spoil_links(node, Flaw::Slim, EXPIRES),
    ..BY_TIMEOUT
};

pub(super) static MEND: Act = Act {
    name: "mend",
    words: "mend the lines of {}",
    means: "the elements are removed",
    inject: |lab, _, node| lab.mend_links(node),
    ..Act::ONCE
};

/// Long enough for what is lost by chance, or only now and then, to be noticed.
const LONG: Duration = Duration::from_secs(8);

pub(in super::super) static DRILLS: &[Drill] = &[
    Drill {
        name: "primary-lossy",
        summary: "loses 20 % of the packets from and to the primary's node",
        expectation: Expectation {
            must_notice: false,
            hold: LONG,
            ..failover("whoever is the primary, writes never stand still for more than 5 s", 5000)
                .within(5)
                .whoever()
        },
        acts: |cast| cast.on_primary(&LOSE),
        ..NETWORK
    },
    Drill {
        name: "network-lossy",
        summary: "loses 5 % of the packets from and to every member's node",
        expectation: Expectation {
            must_notice: false,
            hold: LONG,
            ..failover("whoever is the primary, writes never stand still for more than 5 s", 5000)
                .within(5)
                .whoever()
        },
        acts: |cast| cast.on_all(&LEAK),
        ..NETWORK
    },
    // Every third exchange fails: TCP's pauses double with each packet that is lost again, and there is no way around.
    Drill {
        name: "network-very-lossy",
        summary: "loses 20 % of the packets from and to every member's node",
        expectation: Expectation {
            primary: Change::Any,
            writes: Writes::MayWait(Duration::from_secs(5)),
            must_notice: false,
            outage: None,
            hold: LONG,
            ..failover("no write is lost, and they flow again within 5 s of the end", 0)
        },
        acts: |cast| cast.on_all(&LOSE),
        ..NETWORK
    },
    Drill {
        name: "primary-narrow",
        summary: "loses packets of more than 1000 bytes at the primary's node: what is short still goes through",
        expectation: Expectation {
            hold: LONG,
            ..failover("it is noticed, and writes flow again within 5 s, wherever", 5000).within(5).whoever()
        },
        acts: |cast| cast.on_primary(&NARROW),
        ..NETWORK
    },
    Drill {
        name: "standby-narrow",
        summary: "loses packets of more than 1000 bytes at a standby's node",
        expectation: Expectation {
            primary: Change::Stays,
            hold: LONG,
            ..failover("writes go on with the other standby, and the mended one catches up", 200)
        },
        acts: |cast| cast.on_standby(&NARROW),
        ..NETWORK
    },
    Drill {
        name: "primary-slim",
        summary: "lets the primary's node send and get no more than 20 kB in a second",
        expectation: Expectation {
            hold: LONG,
            ..failover("whoever is the primary, writes never stand still for more than 5 s", 5000)
                .within(5)
                .whoever()
        },
        acts: |cast| cast.on_primary(&SLIM),
        ..NETWORK
    },
    Drill {
        name: "standby-slim",
        summary: "lets a standby's node send and get no more than 20 kB in a second",
        expectation: Expectation {
            must_notice: true,
            hold: LONG,
            ..nothing_happens(
                "writes go on with the other standby; no change of the primary, no failed write",
            )
        },
        acts: |cast| cast.on_standby(&SLIM),
        ..NETWORK
    },
];
