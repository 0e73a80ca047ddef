//! Faults of what a machine has only so much of: processes, processors, memory, files, and connections.

use std::time::Duration;

use super::super::act::{Act, EXPIRES, Ends, Shows};
use super::super::catalogue::{Drill, Layer};
use super::super::plan::{Change, Expectation, Manner, failover, nothing_happens};
use crate::fault::Target;

/// What a starved node keeps, in hundredths of one processor.
const STARVED: u32 = 5;

/// What a node has left before its memory is used up: an ordinary statement may take that much.
const MEMORY_LEFT: u64 = 256 << 20;

/// How many busy processes: more than the processors of the machines that drills run on.
const HOGS: usize = 8;

static LIMIT_PROCESSES: Act = Act {
    name: "limit-processes",
    words: "allow {} no process beyond those it has",
    means: "a control group of its processes, whose pids.max is 1; the kernel counts who is refused",
    inject: |lab, _, node| lab.limit_processes(node),
    ..Act::until(&FREE_PROCESSES)
};

static FREE_PROCESSES: Act = Act {
    name: "free-processes",
    words: "allow {} as many processes as it wants",
    means: "pids.max is max",
    inject: |lab, _, node| lab.free_processes(node),
    ..Act::ONCE
};

static STARVE: Act = Act {
    name: "starve",
    words: "leave {} a twentieth of one processor",
    means: "a control group of its processes with a quota of 5 ms in 100 ms; the kernel counts how often it held it back",
    inject: |lab, _, node| lab.limit_cpu(node, STARVED),
    ..Act::until(&FREE_PROCESSORS)
};

static FREE_PROCESSORS: Act = Act {
    name: "free-processors",
    words: "give {} its processors back",
    means: "the quota is removed",
    inject: |lab, _, node| lab.free_cpu(node),
    ..Act::ONCE
};

static HOG: Act = Act {
    name: "hog",
    words: "keep the processors of {} busy",
    means: "eight processes in it that only count; each is ended by its own alarm(2)",
    ends: Ends::ByKernel(EXPIRES),
    inject: |lab, _, node| lab.hog_processors(node, HOGS, EXPIRES),
    ..Act::until(&END_HOGS)
};

static END_HOGS: Act = Act {
    name: "end-hogs",
    words: "end the busy processes of {}",
    means: "SIGKILL to the processes that bear the fault's mark",
    inject: |lab, _, node| lab.end_hogs(node),
    ..Act::ONCE
};

static EXHAUST_MEMORY: Act = Act {
    name: "exhaust-memory",
    words: "let a statement use up the memory of {}",
    means: "a control group with 256 MB left, and a client's statement that wants more: the kernel kills the largest process",
    inject: |lab, _, node| lab.exhaust_memory(node, MEMORY_LEFT),
    ..Act::until(&FREE_MEMORY)
};

static FREE_MEMORY: Act = Act {
    name: "free-memory",
    words: "give {} its memory back",
    means: "the limit is removed",
    inject: |lab, _, node| lab.free_memory(node),
    ..Act::ONCE
};

static FLOOD: Act = Act {
    name: "flood",
    words: "take every connection to the primary on {} that the application may have",
    means: "a client that connects through the route until it is refused, and holds on; it is ended by its own alarm(2)",
    ends: Ends::ByKernel(EXPIRES),
    inject: |lab, _, node| lab.flood_connections(node, EXPIRES),
    ..Act::until(&END_FLOOD)
};

static END_FLOOD: Act = Act {
    name: "end-flood",
    words: "end the client that holds the connections to {}",
    means: "SIGKILL to it: the kernel closes what it had",
    inject: |lab, _, node| lab.end_flood(node),
    ..Act::ONCE
};

static LIMIT_FILES: Act = Act {
    name: "limit-files",
    words: "allow the agent on {} no open file beyond those it has",
    means: "RLIMIT_NOFILE of the running agent (prlimit(2)) is below what it has open: sockets are files too",
    shows: Shows::SilentAgent,
    inject: |lab, _, node| lab.limit_files(node, &Target::Agent),
    ..Act::until(&FREE_FILES)
};

static FREE_FILES: Act = Act {
    name: "free-files",
    words: "allow the agent on {} as many open files as may be",
    means: "RLIMIT_NOFILE is what its hard limit allows",
    inject: |lab, _, node| lab.free_files(node, &Target::Agent),
    ..Act::ONCE
};

pub(super) const ACTS: &[&Act] = &[
    &LIMIT_PROCESSES,
    &FREE_PROCESSES,
    &STARVE,
    &FREE_PROCESSORS,
    &HOG,
    &END_HOGS,
    &EXHAUST_MEMORY,
    &FREE_MEMORY,
    &FLOOD,
    &END_FLOOD,
    &LIMIT_FILES,
    &FREE_FILES,
];

const RESOURCES: Drill = Drill { layer: Layer::Resources, ..Drill::PLAIN };

pub(super) static DRILLS: &[Drill] = &[
    Drill {
        name: "processes-full",
        summary: "lets the primary's node have no further process: open sessions go on, new ones are refused",
        expectation: failover("a standby takes over, and new connections work again within 5 s", 5000)
            .within(5),
        manner: Manner::ConnectsAnew,
        acts: |cast| cast.on_primary(&LIMIT_PROCESSES),
        ..RESOURCES
    },
    Drill {
        name: "processes-full-standby",
        summary: "lets a standby's node have no further process",
        expectation: nothing_happens("writes go on; no change of the primary, no failed write"),
        acts: |cast| cast.on_standby(&LIMIT_PROCESSES),
        shows: false,
        ..RESOURCES
    },
    Drill {
        name: "cpu-starved-primary",
        summary: "leaves the primary's node a twentieth of one processor",
        expectation: Expectation {
            must_notice: false,
            hold: Duration::from_secs(8),
            ..failover(
                "the primary goes on slowly, or a standby takes over; writes stand still for at most 5 s",
                5000,
            )
            .within(5)
            .whoever()
        },
        acts: |cast| cast.on_primary(&STARVE),
        shows: false,
        ..RESOURCES
    },
    Drill {
        name: "cpu-starved-standby",
        summary: "leaves a standby's node a twentieth of one processor",
        expectation: Expectation {
            hold: Duration::from_secs(8),
            ..nothing_happens(
                "writes go on with the other standby; no change of the primary, no failed write",
            )
        },
        acts: |cast| cast.on_standby(&STARVE),
        shows: false,
        ..RESOURCES
    },
    Drill {
        name: "cpu-hogs",
        summary: "starts eight processes on the primary's node that do nothing but count",
        expectation: Expectation {
            hold: Duration::from_secs(8),
            ..nothing_happens(
                "writes go on: a busy machine is not a dead one; no failed write, none waits 1 s",
            )
            .within(1)
        },
        acts: |cast| cast.on_primary(&HOG),
        shows: false,
        ..RESOURCES
    },
    Drill {
        name: "out-of-memory",
        summary: "has a statement use up the memory of the primary's node, so that the kernel kills its process",
        expectation: failover("a standby takes over at once, and the member comes back as a standby", 1000),
        acts: |cast| cast.on_primary(&EXHAUST_MEMORY),
        ..RESOURCES
    },
    Drill {
        name: "connection-flood",
        summary: "takes every connection that the application may have, by a client that does nothing",
        expectation: Expectation {
            primary: Change::Stays,
            hold: Duration::from_secs(8),
            ..nothing_happens(
                "who is connected works on; the system's own connections still work, so that nothing else changes",
            )
        },
        acts: |cast| cast.on_primary(&FLOOD),
        shows: false,
        ..RESOURCES
    },
    Drill {
        name: "agent-files-full",
        summary: "lets the agent on the primary's node open no further file or connection",
        expectation: failover(
            "a standby takes over, or the primary goes on; writes stand still for at most 5 s",
            5000,
        )
        .within(5)
        .whoever(),
        acts: |cast| cast.on_primary(&LIMIT_FILES),
        ..RESOURCES
    },
];
