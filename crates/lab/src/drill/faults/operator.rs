//! What people do: by order, and by mistake.

use std::time::Duration;

use super::super::act::{Act, Shows};
use super::super::catalogue::{Drill, Layer};
use super::super::plan::{Change, Expectation, Manner, failover, nothing_happens};
use super::super::step::Step;
use super::network::SEPARATE;
use super::node::{KILL_NODE, START_NODE};

static STOP_SERVER: Act = Act {
    name: "stop-server",
    words: "shut PostgreSQL on {} down by hand",
    means: "SIGINT to the postmaster, as `pg_ctl stop -m fast` sends it",
    inject: |lab, database, node| lab.stop_server(node, database),
    ..Act::ONCE
};

static END_SESSIONS: Act = Act {
    name: "end-sessions",
    words: "end all sessions of clients on {}",
    means: "pg_terminate_backend() for every client backend",
    shows: Shows::EndedConnection,
    inject: |lab, database, node| {
        lab.run_sql(
            node,
            database,
            &["select count(pg_terminate_backend(pid)) from pg_stat_activity \
               where backend_type = 'client backend' and usename <> current_user"],
        )
    },
    ..Act::ONCE
};

pub(in super::super) static END_REPLICATION: Act = Act {
    name: "end-replication",
    words: "end all WAL senders on {}",
    means: "pg_terminate_backend() for every WAL sender",
    shows: Shows::OtherSenders,
    inject: |lab, database, node| {
        lab.run_sql(
            node,
            database,
            &["select count(pg_terminate_backend(pid)) from pg_stat_activity where backend_type = 'walsender'"],
        )
    },
    ..Act::ONCE
};

static PROMOTE: Act = Act {
    name: "promote",
    words: "promote PostgreSQL on {} by hand",
    means: "pg_promote() as superuser",
    inject: |lab, database, node| lab.run_sql(node, database, &["select pg_promote(false)"]),
    ..Act::ONCE
};

static DROP_SLOTS: Act = Act {
    name: "drop-slots",
    words: "drop all replication slots on {}",
    means: "pg_terminate_backend() for who uses them, then pg_drop_replication_slot()",
    shows: Shows::OtherSenders,
    inject: |lab, database, node| {
        lab.run_sql(
            node,
            database,
            &["select count(pg_terminate_backend(active_pid, 2000)) from pg_replication_slots where active",
              "select count(pg_drop_replication_slot(slot_name)) from pg_replication_slots where not active"],
        )
    },
    ..Act::ONCE
};

static EMPTY_SYNC_NAMES: Act = Act {
    name: "empty-sync-names",
    words: "let PostgreSQL on {} acknowledge without any standby",
    means: "ALTER SYSTEM SET synchronous_standby_names = '' as superuser, and a reload",
    inject: |lab, database, node| {
        lab.run_sql(
            node,
            database,
            &["alter system set synchronous_standby_names = ''", "select pg_reload_conf()"],
        )
    },
    ..Act::ONCE
};

static REMOVE_DATA: Act = Act {
    name: "remove-data",
    words: "remove the data directory on {} while the server runs",
    means: "find DATA -mindepth 1 -delete",
    inject: |lab, database, node| lab.remove_data(node, database),
    ..Act::ONCE
};

static FLUSH_RULES: Act = Act {
    name: "flush-rules",
    words: "flush the firewall of {}",
    means: "nft flush ruleset in the node: the gate's rules are gone too",
    inject: |lab, _, node| lab.flush_rules(node),
    ..Act::ONCE
};

pub(super) const ACTS: &[&Act] = &[
    &STOP_SERVER,
    &END_SESSIONS,
    &END_REPLICATION,
    &PROMOTE,
    &DROP_SLOTS,
    &EMPTY_SYNC_NAMES,
    &REMOVE_DATA,
    &FLUSH_RULES,
];

const OPERATOR: Drill = Drill { layer: Layer::Operator, ..Drill::PLAIN };

pub(super) static DRILLS: &[Drill] = &[
    Drill {
        name: "switchover",
        summary: "hands the primary over to a standby in an orderly way",
        expectation: Expectation {
            errors_allowed: false,
            must_notice: false,
            ..failover(
                "another member is the primary, and no client that came through the route saw an error",
                200,
            )
        },
        acts: |cast| vec![Step::Switchover(cast.primary.clone())],
        ..OPERATOR
    },
    Drill {
        name: "server-stop",
        summary: "shuts the primary's PostgreSQL down by hand, behind the agent's back",
        expectation: failover("a standby takes over at once, and the member comes back as a standby", 900),
        acts: |cast| cast.on_primary(&STOP_SERVER),
        ..OPERATOR
    },
    Drill {
        name: "sessions-end",
        summary: "ends all sessions of clients on the primary",
        expectation: Expectation {
            errors_allowed: true,
            reconnects_allowed: true,
            ..nothing_happens("clients connect anew and go on; no change of the primary")
        },
        acts: |cast| cast.on_primary(&END_SESSIONS),
        is_light: true,
        ..OPERATOR
    },
    Drill {
        name: "replication-end",
        summary: "ends all WAL senders on the primary",
        expectation: Expectation {
            outage: Some(Duration::from_millis(500)),
            ..nothing_happens("standbys connect anew; writes wait for them and go on, no failed write")
        },
        acts: |cast| cast.on_primary(&END_REPLICATION),
        is_light: true,
        ..OPERATOR
    },
    Drill {
        name: "standby-promoted",
        summary: "promotes a standby by hand, behind everybody's back",
        expectation: Expectation {
            primary: Change::Stays,
            ..failover(
                "the primary stays; the wrong one serves nobody, and is a standby again by itself",
                500,
            )
        },
        acts: |cast| cast.on_standby(&PROMOTE),
        ..OPERATOR
    },
    Drill {
        name: "slots-dropped",
        summary: "drops all replication slots on the primary",
        expectation: Expectation {
            outage: Some(Duration::from_millis(2000)),
            worst: 1,
            ..nothing_happens("the slots are made anew, standbys go on; no failed write")
        },
        acts: |cast| cast.on_primary(&DROP_SLOTS),
        ..OPERATOR
    },
    Drill {
        name: "sync-names-emptied",
        summary: "lets the primary acknowledge without any standby, cuts it from them a moment later and takes its power",
        expectation: failover("it was put right before: a standby takes over and nothing is lost", 2000)
            .within(5),
        manner: Manner::ThroughVictim,
        acts: |cast| {
            let mut acts = cast.on_primary(&EMPTY_SYNC_NAMES);
            acts.push(Step::Wait(NOTICED));
            acts.extend(cast.on_primary(&SEPARATE));
            acts.extend(cast.on_primary(&KILL_NODE));
            acts
        },
        vary: |plan, cast| plan.recovery = cast.on_primary(&START_NODE),
        ..OPERATOR
    },
    Drill {
        name: "standby-data-removed",
        summary: "removes the data directory of a standby while it runs",
        expectation: Expectation {
            primary: Change::Stays,
            // PostgreSQL itself would notice within a minute.
            redundancy: Some(Duration::from_secs(15)),
            ..failover("writes go on; the standby is noticed and copied anew by itself", 200)
        },
        acts: |cast| cast.on_standby(&REMOVE_DATA),
        ..OPERATOR
    },
    Drill {
        name: "primary-data-removed",
        summary: "removes the data directory of the primary while it runs",
        expectation: failover("a standby takes over within 5 s; the member is copied anew by itself", 5000)
            .within(5),
        acts: |cast| cast.on_primary(&REMOVE_DATA),
        ..OPERATOR
    },
    Drill {
        name: "firewall-flushed",
        summary: "flushes the firewall of the primary's node, gate and all, then separates it from the other nodes",
        expectation: failover(
            "a standby takes over, and the old primary serves nobody after its lease",
            2000,
        )
        .within(5),
        acts: |cast| {
            let then = [Step::Wait(NOTICED)].into_iter().chain(cast.on_primary(&SEPARATE));
            cast.on_primary(&FLUSH_RULES).into_iter().chain(then).collect()
        },
        ..OPERATOR
    },
];

/// How long the system has to put right what somebody has set wrongly.
const NOTICED: Duration = Duration::from_secs(3);
