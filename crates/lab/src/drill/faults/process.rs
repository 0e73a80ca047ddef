//! Faults of single processes.

use std::time::Duration;

use super::super::act::{Act, Shows};
use super::super::catalogue::{Drill, Layer};
use super::super::plan::{Cast, Expectation, Manner, failover, nothing_happens};
use super::super::step::Step;
use crate::fault::Target;

pub(in super::super) static KILL_POSTMASTER: Act = Act {
    name: "kill-postmaster",
    words: "kill the postmaster on {}",
    means: "SIGKILL to the process that postmaster.pid names",
    inject: |lab, database, node| lab.kill_process(node, &Target::Postmaster(database.clone())),
    ..Act::ONCE
};

static HANG_POSTMASTER: Act = Act {
    name: "hang-postmaster",
    words: "stop the postmaster on {} alone",
    means: "SIGSTOP to the postmaster; its children go on",
    inject: |lab, database, node| {
        lab.hang_process(node, &Target::Postmaster(database.clone())).map(|(_, evidence)| evidence)
    },
    ..Act::until(&RESUME_POSTMASTER)
};

static RESUME_POSTMASTER: Act = Act {
    name: "resume-postmaster",
    words: "let the postmaster on {} go on",
    means: "SIGCONT, if it is still there",
    inject: |lab, database, node| lab.resume(node, &Target::Postmaster(database.clone())),
    ..Act::ONCE
};

pub(in super::super) static KILL_AGENT: Act = Act {
    name: "kill-agent",
    words: "kill the agent on {}",
    means: "SIGKILL to the process that listens on run/agent.sock",
    shows: Shows::AnotherAgent,
    inject: |lab, _, node| lab.kill_process(node, &Target::Agent),
    ..Act::ONCE
};

pub(in super::super) static HANG_AGENT: Act = Act {
    name: "hang-agent",
    words: "stop the agent on {}",
    means: "SIGSTOP to the agent: its connections stay open and say nothing",
    shows: Shows::SilentAgent,
    inject: |lab, _, node| lab.hang_process(node, &Target::Agent).map(|(_, evidence)| evidence),
    ..Act::until(&RESUME_AGENT)
};

static RESUME_AGENT: Act = Act {
    name: "resume-agent",
    words: "let the agent on {} go on",
    means: "SIGCONT, if it is still there",
    inject: |lab, _, node| lab.resume(node, &Target::Agent),
    ..Act::ONCE
};

static CUT_PROXY: Act = Act {
    name: "cut-proxy",
    words: "cut the proxy on {} from its agent",
    means: "shutdown(2) of their connection at both ends, through a borrowed descriptor (pidfd_getfd(2))",
    inject: |lab, _, node| lab.cut_proxy(node),
    ..Act::ONCE
};

static KILL_PROXY: Act = Act {
    name: "kill-proxy",
    words: "kill the proxy on {}",
    means: "SIGKILL to the process that listens on run/proxy.sock",
    shows: Shows::EndedConnection,
    inject: |lab, _, node| lab.kill_process(node, &Target::Proxy),
    ..Act::ONCE
};

pub(super) const ACTS: &[&Act] = &[
    &KILL_POSTMASTER,
    &HANG_POSTMASTER,
    &RESUME_POSTMASTER,
    &KILL_AGENT,
    &HANG_AGENT,
    &RESUME_AGENT,
    &CUT_PROXY,
    &KILL_PROXY,
];

pub(super) static DRILLS: &[Drill] = &[
    Drill {
        name: "postmaster-kill",
        summary: "kills the primary's postmaster with SIGKILL",
        expectation: failover("a standby takes over at once, and the member comes back as a standby", 350),
        acts: |cast| cast.on_primary(&KILL_POSTMASTER),
        ..Drill::PLAIN
    },
    Drill {
        name: "postmaster-hang",
        summary: "stops the primary's postmaster alone: open sessions go on, new ones get no answer",
        expectation: failover("a standby takes over, and new connections work again within 2 s", 2000).within(2),
        manner: Manner::ConnectsAnew,
        acts: |cast| cast.on_primary(&HANG_POSTMASTER),
        ..Drill::PLAIN
    },
    Drill {
        name: "agent-kill",
        summary: "kills the agent on the primary's node with SIGKILL",
        expectation: nothing_happens("nothing happens: no change of the primary, no failed write"),
        acts: |cast| cast.on_primary(&KILL_AGENT),
        vary: |plan, cast| {
            if !cast.is_odd() {
                plan.manner = Manner::ThroughVictim;
            }
        },
        is_light: true,
        ..Drill::PLAIN
    },
    Drill {
        name: "agent-kill-loop",
        summary: "kills the agent on the primary's node five times in a row, each time as soon as it is up again",
        expectation: nothing_happens("nothing happens: no change of the primary, no failed write"),
        acts: |cast| {
            let kill = || cast.on_primary(&KILL_AGENT).into_iter().chain([Step::Wait(UP_AGAIN)]);
            (0..5).flat_map(|_| kill()).collect()
        },
        ..Drill::PLAIN
    },
    Drill {
        name: "agent-hang",
        summary: "stops the agent on the primary's node: PostgreSQL goes on, and nobody renews its lease",
        expectation: failover(
            "a standby takes over, or the primary goes on serving within its lease; writes stand still for at most 5 s",
            5000,
        )
        .within(5)
        .whoever(),
        acts: |cast| cast.on_primary(&HANG_AGENT),
        ..Drill::PLAIN
    },
    Drill {
        name: "standby-agent-hang",
        summary: "stops the agent on a standby's node",
        expectation: Expectation {
            must_notice: true,
            ..nothing_happens("writes go on; no change of the primary, no failed write")
        },
        acts: |cast| cast.on_standby(&HANG_AGENT),
        ..Drill::PLAIN
    },
    Drill {
        name: "coordination-leader-kill",
        summary: "kills the agent that leads the coordination: in turn on the primary's node and on another one",
        expectation: nothing_happens(
            "another agent leads; no change of the primary, no failed write, no closed connection",
        ),
        acts: |cast| {
            let node = cast.leader.clone().unwrap_or_else(|| cast.primary.clone());
            vec![Step::Do { act: &KILL_AGENT, node }]
        },
        vary: |plan, cast| plan.prepare = place_leader(cast),
        ..Drill::PLAIN
    },
    Drill {
        name: "coordination-quorum-loss",
        summary: "stops the agents of all nodes but the primary's, so that nothing can be decided",
        expectation: Expectation {
            must_notice: true,
            hold: Duration::from_secs(6),
            ..nothing_happens("writes go on, because the sync set confirms them; no failed write")
        },
        manner: Manner::ThroughVictim,
        acts: |cast| cast.on_standbys(&HANG_AGENT),
        ..Drill::PLAIN
    },
    Drill {
        name: "proxy-agent-cut",
        summary: "shuts down the connection between every proxy and its agent",
        expectation: nothing_happens("nothing happens: open connections live on, no failed write"),
        manner: Manner::ThroughVictim,
        acts: |cast| cast.on_all(&CUT_PROXY),
        shows: false,
        is_light: true,
        ..Drill::PLAIN
    },
    Drill {
        name: "proxy-kill",
        summary: "kills the proxy through which the client comes with SIGKILL",
        expectation: Expectation {
            errors_allowed: true,
            reconnects_allowed: true,
            outage: Some(Duration::from_millis(500)),
            ..nothing_happens("a new proxy serves at once; the client connects anew, no change of the primary")
        },
        manner: Manner::ThroughVictim,
        acts: |cast| cast.on_standby(&KILL_PROXY),
        ..Drill::PLAIN
    },
];

/// How long a killed agent has to be up again: its restart, and a moment to begin its work.
const UP_AGAIN: Duration = Duration::from_millis(600);

/// Has the leader of the coordination on the primary's node in odd runs, and on another one in even runs.
pub(super) fn place_leader(cast: &Cast) -> Vec<Step> {
    let Some(leader) = &cast.leader else { return vec![] };
    let to = match (cast.is_odd(), *leader == cast.primary) {
        (true, false) => cast.standbys.iter().find(|node| *node == leader),
        (false, true) => cast.standbys.first(),
        (true, true) | (false, false) => None,
    };
    to.cloned().map(Step::HandTo).into_iter().collect()
}

// The layer of `Drill::PLAIN`.
const _: () = assert!(matches!(Drill::PLAIN.layer, Layer::Process));

#[cfg(test)]
mod tests {
    use super::super::super::catalogue::drill;
    use super::*;

    fn cast(run: usize) -> Cast {
        Cast { leader: Some("b".into()), run, ..Cast::of("a", &["b", "c"]) }
    }

    #[test]
    fn the_leader_is_killed_on_the_primarys_node_and_on_another_in_turn() {
        let kill = drill("coordination-leader-kill");
        assert_eq!(kill.plan(&cast(1)).prepare, [Step::HandTo("b".into())]);
        assert_eq!(kill.plan(&cast(2)).prepare, []);
        let led_by_primary = Cast { leader: Some("a".into()), ..cast(2) };
        assert_eq!(kill.plan(&led_by_primary).prepare, [Step::HandTo("b".into())]);
    }
}
