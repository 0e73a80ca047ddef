//! Links that carry everything, late.

use std::time::Duration;

use super::super::super::act::{Act, EXPIRES, Ends, Shows};
use super::super::super::catalogue::Drill;
use super::super::super::plan::{Expectation, failover, nothing_happens};
use super::super::super::step::Step;
use super::super::process::KILL_POSTMASTER;
use super::NETWORK;
use crate::fault::Pace;

/// As between continents.
const FAR: Pace =
    Pace { delay: Duration::from_millis(50), jitter: Duration::from_millis(10), overtake: 0, double: 0 };

/// As over several paths at once.
const SCRAMBLED: Pace =
    Pace { delay: Duration::from_millis(5), jitter: Duration::from_millis(5), overtake: 25, double: 10 };

/// The relay ends by itself, and its two halves guard each other.
const BY_RELAY: Act = Act { ends: Ends::ByOwnGuard(EXPIRES), ..Act::until(&SPEED) };

pub(super) static SLOW: Act = Act {
    name: "slow",
    words: "let what {} sends arrive 50 ms late",
    means: "a relay in the place of its ports keeps every frame for 50 ms, 10 more or less (AF_PACKET and TAP)",
    shows: Shows::Late { percent: 90, by: Duration::from_millis(38) },
    inject: |lab, _, node| lab.slow_node(node, FAR, EXPIRES),
    ..BY_RELAY
};

pub(super) static SCRAMBLE: Act = Act {
    name: "scramble",
    words: "let what {} sends arrive in another order, and some of it twice",
    means: "a relay in the place of its ports keeps frames for 0 to 10 ms, lets a quarter overtake and doubles a tenth",
    // Five milliseconds are no more than a busy machine makes: what the relay did is in its account only.
    shows: Shows::Nothing,
    inject: |lab, _, node| lab.slow_node(node, SCRAMBLED, EXPIRES),
    ..BY_RELAY
};

pub(super) static SPEED: Act = Act {
    name: "speed",
    words: "let {} send as fast as before",
    means: "the relay ends and puts the ports back into their places",
    inject: |lab, _, node| lab.speed_node(node),
    ..Act::ONCE
};

const SLOWLY: Expectation = Expectation {
    outage: Some(Duration::from_secs(1)),
    worst: 1,
    hold: Duration::from_secs(8),
    ..nothing_happens("slow is not dead: writes go on, no change of the primary, no failed write")
};

pub(in super::super) static DRILLS: &[Drill] = &[
    Drill {
        name: "primary-slow",
        summary: "lets what the primary's node sends arrive 50 ms late",
        expectation: SLOWLY,
        acts: |cast| cast.on_primary(&SLOW),
        ..NETWORK
    },
    Drill {
        name: "standby-slow",
        summary: "lets what a standby's node sends arrive 50 ms late",
        expectation: SLOWLY,
        acts: |cast| cast.on_standby(&SLOW),
        is_light: true,
        ..NETWORK
    },
    Drill {
        name: "network-slow",
        summary: "lets what any member's node sends arrive 50 ms late: 100 ms for every round trip between nodes",
        expectation: SLOWLY,
        acts: |cast| cast.on_all(&SLOW),
        ..NETWORK
    },
    Drill {
        name: "network-scrambled",
        summary: "lets what any member's node sends arrive in another order, and some of it twice",
        expectation: SLOWLY,
        acts: |cast| cast.on_all(&SCRAMBLE),
        shows: false,
        is_light: true,
        ..NETWORK
    },
    Drill {
        name: "slow-kill-loop",
        summary: "makes all links slow, and kills the postmaster of whoever is the primary three times in a row",
        expectation: failover("writes flow again within 5 s of every kill, whoever is the primary", 5000)
            .within(5)
            .whoever(),
        acts: |cast| {
            let kill = || [Step::AwaitWrites, Step::OnPrimary { act: &KILL_POSTMASTER }];
            cast.on_all(&SLOW).into_iter().chain((0..3).flat_map(|_| kill())).collect()
        },
        longer: Some("half an hour of it: mainstay drill run slow-kill-loop --runs 60"),
        ..NETWORK
    },
];
