//! Patroni with etcd and HAProxy: three of each, one on every node, as its documentation draws it.
//!
//! `synchronous_mode: quorum` with `synchronous_mode_strict` is the durability that Mainstay calls zero loss: any one of
//! the two standbys confirms each commit, and without a standby writes wait. etcd runs with `--pre-vote`, the default
//! since 3.5: without it a node that comes back disturbs the others. There is no watchdog device in a lab.

pub(crate) mod rest;

use std::net::Ipv4Addr;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::layout::{MEMBERS, PASSWORD, POSTGRES_PORT};
use crate::place::Place;
use crate::postgres::PARAMETERS;
use crate::unit::Unit;
use crate::variant::Timers;

/// Where HAProxy takes clients of the primary, on every node.
pub(crate) const DOOR: u16 = 5000;

/// Where Patroni's REST interface answers.
pub(crate) const REST: u16 = 8008;

/// How long a primary may go on without the store, in seconds: Patroni's `ttl`.
pub(crate) const fn ttl(timers: Timers) -> u64 {
    match timers {
        Timers::Default => 30,
        // The lowest that Patroni accepts; it silently raises what is lower.
        Timers::Tuned => 20,
    }
}

/// Patroni's configuration. JSON is YAML too.
pub(crate) fn configuration(place: &Place<'_>, timers: Timers) -> String {
    let own = |port: u16| format!("{}:{port}", place.address);
    let everywhere = |port: u16| MEMBERS.map(|(_, address)| format!("{address}:{port}"));
    let login = |user: &str| json!({ "username": user, "password": PASSWORD });
    let configuration = json!({
        "scope": "app",
        "name": place.name,
        "restapi": { "listen": own(REST), "connect_address": own(REST) },
        "etcd3": { "hosts": everywhere(2379) },
        "bootstrap": {
            "dcs": store(timers),
            "initdb": [{ "encoding": "UTF8" }, "data-checksums"],
        },
        "postgresql": {
            "listen": own(POSTGRES_PORT),
            "connect_address": own(POSTGRES_PORT),
            "data_dir": place.data,
            "bin_dir": place.bin,
            "pgpass": place.directory.join("pgpass"),
            "pg_hba": [
                "local all all trust",
                "host all all all scram-sha-256",
                "host replication replicator all scram-sha-256",
            ],
            "authentication": {
                "superuser": login("postgres"),
                "replication": login("replicator"),
                "rewind": login("rewinder"),
            },
            "parameters": { "unix_socket_directories": place.directory },
        },
        "watchdog": { "mode": "off" },
    });
    format!("{configuration:#}\n")
}

/// What Patroni keeps in the store: the timers, and what all members have in common.
fn store(timers: Timers) -> Value {
    let parameters: Map<String, Value> =
        PARAMETERS.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    let mut store = json!({
        "ttl": ttl(timers),
        "loop_wait": 10,
        "retry_timeout": 10,
        "synchronous_mode": "quorum",
        "synchronous_mode_strict": true,
        "synchronous_node_count": 1,
        "postgresql": { "use_pg_rewind": true, "use_slots": true, "parameters": parameters },
    });
    match timers {
        Timers::Default => {}
        // The lowest that Patroni accepts (`patroni/config.py`), and failover at once instead of a restart in place.
        Timers::Tuned => {
            store["loop_wait"] = json!(1);
            store["retry_timeout"] = json!(3);
            store["primary_start_timeout"] = json!(0);
        }
    }
    store
}

/// HAProxy's configuration: the template of Patroni's own repository, with its check of `/primary`.
pub(crate) fn haproxy(timers: Timers) -> String {
    let (check, servers) = match timers {
        Timers::Default => ("5s", "inter 3s fall 3 rise 2"),
        Timers::Tuned => ("1s", "inter 500ms fastinter 200ms fall 2 rise 1"),
    };
    let server = |(name, address): (&str, Ipv4Addr)| {
        format!("    server {name} {address}:{POSTGRES_PORT} maxconn 100 check port {REST}\n")
    };
    format!(
        "global\n    maxconn 300\n\n\
         defaults\n    mode tcp\n    retries 2\n    timeout client 30m\n    timeout connect 4s\n    timeout server 30m\n    \
         timeout check {check}\n\n\
         listen primary\n    bind *:{DOOR}\n    option httpchk HEAD /primary\n    http-check expect status 200\n    \
         default-server {servers} on-marked-down shutdown-sessions\n{}",
        MEMBERS.map(server).concat()
    )
}

/// What runs on a node. `modules` is where Patroni and what it needs lie, `python` who runs it.
pub(crate) fn units(place: &Place<'_>, modules: &Path) -> Vec<Unit> {
    let url = |address: Ipv4Addr, port: u16| format!("http://{address}:{port}");
    let (peers, clients) = (url(place.address, 2380), url(place.address, 2379));
    let cluster = MEMBERS.map(|(name, address)| format!("{name}={}", url(address, 2380))).join(",");
    let file = |name: &str| place.directory.join(name).display().to_string();
    let etcd = Unit::new(
        "etcd",
        &[
            "etcd",
            "--name",
            place.name,
            "--data-dir",
            &file("etcd"),
            "--listen-peer-urls",
            &peers,
            "--initial-advertise-peer-urls",
            &peers,
            "--listen-client-urls",
            &clients,
            "--advertise-client-urls",
            &clients,
            "--initial-cluster",
            &cluster,
            "--pre-vote",
            "--logger=zap",
            "--log-level=warn",
        ],
    );
    let patroni = Unit::new("patroni", &[PYTHON, "-m", "patroni", &file("patroni.yml")])
        .with("PYTHONPATH", modules.display().to_string())
        .with("HOME", place.directory.display().to_string());
    let haproxy = Unit::new("haproxy", &["haproxy", "-db", "-f", &file("haproxy.cfg")]);
    vec![etcd, patroni, haproxy]
}

/// The system's own interpreter: another one may lie where the user of PostgreSQL cannot go.
const PYTHON: &str = "/usr/bin/python3";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tuned_timers_obey_patronis_own_rule() {
        let store = store(Timers::Tuned);
        let number = |key: &str| store[key].as_u64().unwrap();
        assert!(number("loop_wait") + 2 * number("retry_timeout") <= number("ttl"));
        assert!(number("ttl") >= 20 && number("loop_wait") >= 1 && number("retry_timeout") >= 3);
    }

    #[test]
    fn haproxy_asks_patroni_who_leads() {
        insta::assert_snapshot!(haproxy(Timers::Default));
    }
}
