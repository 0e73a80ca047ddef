//! Faults of clocks. They need nodes with clocks of their own.
//!
//! Write safety does not rest on clocks, and nothing but leases does on monotonic ones: a wall clock may say what it likes,
//! and a monotonic clock that is a twentieth off, a thousand times what real ones are, may not change what clients see.

use std::time::Duration;

use super::super::act::{Act, Inject, Needs};
use super::super::catalogue::{Drill, Layer};
use super::super::plan::{Cast, Expectation, Manner, failover, nothing_happens};
use super::super::step::Step;
use super::network::SEPARATE;
use super::process::KILL_AGENT;
use crate::error::Result;
use crate::fault::{Clocks, Evidence};
use crate::lab::Lab;
use model::{DatabaseName, NodeName};

/// How far a wall clock jumps, in seconds.
const JUMP: i64 = 3600;

/// How much too fast or too slow a clock runs, in millionths.
const RATE: i64 = 50_000;

/// By how much a strobing wall clock jumps to and fro, and how long a period is, in milliseconds.
const STROBE: (i64, i64) = (3_600_000, 200);

/// How long a slow clock runs before something else happens: the lease is measured by it several times over.
const RUNS_SLOWLY: Duration = Duration::from_secs(5);

const RIGHT: Clocks = Clocks { ahead: 0, wall_ppm: 0, monotonic_ppm: 0, strobe: None };

/// Makes the clocks wrong, and proves that the agent and PostgreSQL read them.
fn set(lab: &Lab, database: &DatabaseName, node: &NodeName, wrong: &Clocks) -> Result<Evidence> {
    let read = lab.reads_own_clocks(node, database)?;
    let evidence = lab.set_clocks(node, wrong)?;
    Ok(Evidence { what: format!("{}; {}", evidence.what, read.what), ..evidence })
}

const fn wrong(name: &'static str, words: &'static str, inject: Inject) -> Act {
    const MEANS: &str =
        "the node's processes read the time through a library of the lab (ld.so.preload), which adds to it";
    Act { name, words, means: MEANS, needs: Needs::Clock, inject, ..Act::until(&SET_RIGHT) }
}

static JUMP_AHEAD: Act =
    wrong("clock-ahead", "set the wall clock of {} an hour ahead", |lab, database, node| {
        set(lab, database, node, &Clocks { ahead: JUMP, ..RIGHT })
    });

static JUMP_BACK: Act =
    wrong("clock-back", "set the wall clock of {} an hour back", |lab, database, node| {
        set(lab, database, node, &Clocks { ahead: -JUMP, ..RIGHT })
    });

static DRIFT: Act = wrong("clock-drift", "let the wall clock of {} run 5 % fast", |lab, database, node| {
    set(lab, database, node, &Clocks { wall_ppm: RATE, ..RIGHT })
});

static FLICKER: Act = wrong(
    "clock-strobe",
    "let the wall clock of {} jump an hour ahead and back, five times in a second",
    |lab, database, node| set(lab, database, node, &Clocks { strobe: Some(STROBE), ..RIGHT }),
);

static RUN_FAST: Act = wrong("clocks-fast", "let all clocks of {} run 5 % fast", |lab, database, node| {
    set(lab, database, node, &Clocks { wall_ppm: RATE, monotonic_ppm: RATE, ..RIGHT })
});

static RUN_SLOWLY: Act = wrong("clocks-slow", "let all clocks of {} run 5 % slow", |lab, database, node| {
    set(lab, database, node, &Clocks { wall_ppm: -RATE, monotonic_ppm: -RATE, ..RIGHT })
});

static SET_RIGHT: Act = Act {
    name: "clocks-right",
    words: "set the clocks of {} right",
    means: "the library adds nothing to the wall clock; what a monotonic clock has gained it keeps, as it may not jump",
    needs: Needs::Clock,
    inject: |lab, _, node| lab.set_clocks(node, &RIGHT),
    ..Act::ONCE
};

pub(super) const ACTS: &[&Act] =
    &[&JUMP_AHEAD, &JUMP_BACK, &DRIFT, &FLICKER, &RUN_FAST, &RUN_SLOWLY, &SET_RIGHT];

const CLOCK: Drill = Drill { layer: Layer::Clock, shows: false, ..Drill::PLAIN };

/// Long enough for PostgreSQL's timeouts (5 s), which rest on the wall clock, and for several leases.
const WRONG: Expectation = Expectation {
    hold: Duration::from_secs(8),
    ..nothing_happens("nothing changes: the same primary, no failed write, and none waits 1 s").within(1)
};

pub(super) static DRILLS: &[Drill] = &[
    Drill {
        name: "clock-ahead-primary",
        summary: "sets the wall clock of the primary's node an hour ahead",
        expectation: WRONG,
        acts: |cast| cast.on_primary(&JUMP_AHEAD),
        ..CLOCK
    },
    Drill {
        name: "clock-back-primary",
        summary: "sets the wall clock of the primary's node an hour back",
        expectation: WRONG,
        acts: |cast| cast.on_primary(&JUMP_BACK),
        ..CLOCK
    },
    Drill {
        name: "clock-jump-standby",
        summary: "sets the wall clock of a standby's node an hour ahead and back, in turn",
        expectation: WRONG,
        acts: |cast| cast.on_standby(if cast.is_odd() { &JUMP_AHEAD } else { &JUMP_BACK }),
        ..CLOCK
    },
    Drill {
        name: "clock-drift-primary",
        summary: "lets the wall clock of the primary's node run 5 % fast",
        expectation: WRONG,
        acts: |cast| cast.on_primary(&DRIFT),
        ..CLOCK
    },
    Drill {
        name: "clock-strobe-primary",
        summary: "lets the wall clock of the primary's node jump an hour ahead and back, five times in a second",
        expectation: WRONG,
        acts: |cast| cast.on_primary(&FLICKER),
        ..CLOCK
    },
    Drill {
        name: "clocks-fast-primary",
        summary: "lets all clocks of the primary's node run 5 % fast, also those that leases are measured by",
        expectation: WRONG,
        acts: |cast| cast.on_primary(&RUN_FAST),
        ..CLOCK
    },
    Drill {
        name: "clock-back-agent-kill",
        summary: "sets the wall clock of the primary's node an hour back, kills its agent, and switches over",
        expectation: Expectation {
            must_notice: false,
            ..failover("the agent of a machine whose clock was corrected is heard: another member is the primary", 1000)
        },
        manner: Manner::ThroughVictim,
        acts: back_and_restarted,
        shows: true,
        ..CLOCK
    },
    Drill {
        name: "clocks-slow-separated",
        summary: "lets all clocks of the primary's node run 5 % slow, then cuts it from all other nodes, not from clients",
        expectation: failover(
            "a standby takes over; the slow one takes its lease for longer than it is, and yet says nothing that is stale",
            2000,
        )
        .within(5),
        manner: Manner::Stays,
        acts: slow_and_separated,
        shows: true,
        ..CLOCK
    },
];

/// How long a new agent has to be heard by all.
const UP_AGAIN: Duration = Duration::from_secs(2);

fn back_and_restarted(cast: &Cast) -> Vec<Step> {
    let switchover = vec![Step::Wait(UP_AGAIN), Step::Switchover(cast.primary.clone())];
    [cast.on_primary(&JUMP_BACK), cast.on_primary(&KILL_AGENT), switchover].concat()
}

fn slow_and_separated(cast: &Cast) -> Vec<Step> {
    [cast.on_primary(&RUN_SLOWLY), vec![Step::Wait(RUNS_SLOWLY)], cast.on_primary(&SEPARATE)].concat()
}
