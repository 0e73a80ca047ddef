//! Faults of storage. They need nodes whose databases lie on volumes of their own.

use std::time::Duration;

use super::super::act::{Act, DISK_EXPIRES, Ends, Needs, Shows};
use super::super::catalogue::{Drill, Layer};
use super::super::plan::{Change, Expectation, failover};
use super::node::START_NODE;

static FILL_DISK: Act = Act {
    name: "fill-disk",
    words: "fill the volume of {}",
    means: "a file takes every free block (fallocate(2)) of the ext4 volume",
    needs: Needs::Volume,
    inject: |lab, _, node| lab.fill_volume(node),
    ..Act::until(&FREE_DISK)
};

static FREE_DISK: Act = Act {
    name: "free-disk",
    words: "free the volume of {}",
    means: "the file that took all blocks is removed",
    inject: |lab, _, node| lab.unfill_volume(node),
    ..Act::ONCE
};

static HANG_DISK: Act = Act {
    name: "hang-disk",
    words: "hang the volume of {}",
    means: "FIFREEZE on the ext4 volume: who writes there waits and cannot be killed",
    ends: Ends::ByOwnGuard(DISK_EXPIRES),
    needs: Needs::Volume,
    inject: |lab, _, node| lab.freeze_volume(node, DISK_EXPIRES).map(|(_, evidence)| evidence),
    ..Act::until(&THAW_DISK)
};

static THAW_DISK: Act = Act {
    name: "thaw-disk",
    words: "let the volume of {} go on",
    means: "FITHAW",
    inject: |lab, _, node| lab.thaw_volume(node),
    ..Act::ONCE
};

static LOSE_POWER: Act = Act {
    name: "lose-power",
    words: "take the power from {} and lose what was not flushed",
    means: "EXT4_IOC_SHUTDOWN without a flush of the journal, then the kernel kills its PID namespace",
    needs: Needs::Volume,
    shows: Shows::Silence,
    inject: |lab, _, node| lab.lose_power(node),
    ..Act::until(&START_NODE)
};

pub(super) const ACTS: &[&Act] = &[&FILL_DISK, &FREE_DISK, &HANG_DISK, &THAW_DISK, &LOSE_POWER];

const DISK: Drill = Drill { layer: Layer::Disk, ..Drill::PLAIN };

pub(super) static DRILLS: &[Drill] = &[
    Drill {
        name: "disk-full-primary",
        summary: "fills the disk of the primary to the last block",
        expectation: failover("a standby that has space takes over within 5 s", 5000).within(5),
        acts: |cast| cast.on_primary(&FILL_DISK),
        ..DISK
    },
    Drill {
        name: "disk-full-standby",
        summary: "fills the disk of a standby to the last block",
        expectation: Expectation {
            primary: Change::Stays,
            leaves_set: Some(Duration::from_secs(5)),
            hold: Duration::from_secs(5),
            ..failover(
                "writes go on, and the standby is out of the sync set within 5 s until it has space",
                200,
            )
        },
        acts: |cast| cast.on_standby(&FILL_DISK),
        ..DISK
    },
    Drill {
        name: "disk-hang-primary",
        summary: "lets the disk of the primary hang: writes to it wait and cannot be killed",
        expectation: failover("a standby whose disk works takes over within 5 s", 5000).within(5),
        acts: |cast| cast.on_primary(&HANG_DISK),
        ..DISK
    },
    Drill {
        name: "disk-hang-standby",
        summary: "lets the disk of a standby hang: it still streams, and flushes nothing",
        expectation: Expectation {
            primary: Change::Stays,
            leaves_set: Some(Duration::from_secs(5)),
            hold: Duration::from_secs(5),
            ..failover(
                "writes go on, and the standby is out of the sync set within 5 s until its disk works",
                200,
            )
        },
        acts: |cast| cast.on_standby(&HANG_DISK),
        ..DISK
    },
    Drill {
        name: "power-loss-primary",
        summary: "takes the power from the primary's node, and what it had not flushed is gone",
        expectation: failover("a standby takes over, and the node comes back as a standby", 900),
        acts: |cast| cast.on_primary(&LOSE_POWER),
        ..DISK
    },
    Drill {
        name: "power-loss-standby",
        summary: "takes the power from a standby's node, and what it had not flushed is gone",
        expectation: Expectation {
            primary: Change::Stays,
            ..failover("writes go on with the other standby, and the node comes back as a standby", 200)
        },
        acts: |cast| cast.on_standby(&LOSE_POWER),
        ..DISK
    },
];
