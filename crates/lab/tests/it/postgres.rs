//! A real PostgreSQL in a node: found by what it is, killed, hung, and alive again after its node's death.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use lab::fault::Target;
use lab::{Data, Lab};
use model::DatabaseName;
use tokio_postgres::error::SqlState;

use crate::support::{Bench, Traces, eventually, node, with_database};

/// The newest PostgreSQL of Debian.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found =
        versions.map(|entry| entry.path().join("bin")).filter(|bin| bin.join("postgres").exists()).max();
    found.expect("this test needs PostgreSQL; `make setup` installs it")
}

/// Founds the database on the first start and runs it.
fn server() -> Vec<String> {
    let script = format!(
        "set -e\n\
         home={{root}}/databases/orders\n\
         as_postgres='setpriv --reuid=postgres --regid=postgres --init-groups'\n\
         [ -d $home/data ] || {{ install -d -o postgres $home; \
         $as_postgres {bin}/initdb -D $home/data -A trust -N >/dev/null; }}\n\
         exec $as_postgres {bin}/postgres -D $home/data -c unix_socket_directories= -c listen_addresses='*'",
        bin = programs().display()
    );
    vec!["sh".to_owned(), "-c".to_owned(), script]
}

fn serving(lab: &Lab, name: &str) -> bool {
    let address = SocketAddr::new(lab.node(&node(name)).unwrap().address().unwrap(), 5432);
    let runtime = lab.client_runtime().unwrap();
    let answers = runtime.run(async move {
        let (host, port) = (address.ip(), address.port());
        let login = format!("host={host} port={port} user=postgres dbname=postgres");
        // A stopped postmaster's kernel takes the connection; only the login hangs.
        let connecting = tokio_postgres::connect(&login, tokio_postgres::NoTls);
        tokio::time::timeout(Duration::from_secs(1), connecting).await.map(|result| result.map(|_| ()))
    });
    runtime.shutdown();
    // Whoever is refused a login by name has been answered by a server at work.
    let at_work = |error: &tokio_postgres::Error| {
        error
            .as_db_error()
            .is_some_and(|refusal| *refusal.code() == SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
    };
    answers.is_ok_and(|login| login.is_ok() || login.is_err_and(|error| at_work(&error)))
}

#[test]
fn a_postmaster_is_found_by_its_directory_and_its_own_number() {
    let bench = Bench::new();
    let before = Traces::of(&bench);
    let (bench, options) = with_database(bench);
    let options = lab::Options { command: server(), data_volume: Some(256 << 20), ..options };
    let mut lab = Lab::up(&bench.system, &bench.file, &options).unwrap();
    let (e1, target) = (node("e1"), Target::Postmaster(DatabaseName::new("orders")));
    let log = || std::fs::read_to_string(lab.log(&e1)).unwrap_or_default();
    eventually("PostgreSQL serves", log, || serving(&lab, "e1"));
    let first = lab.find_process(&e1, &target).unwrap();
    assert_eq!(std::fs::read_to_string(format!("/proc/{}/comm", first.pid)).unwrap(), "postgres\n");

    let (hung, _) = lab.hang_process(&e1, &target).unwrap();
    assert_eq!(hung, first);
    assert!(!serving(&lab, "e1"), "a stopped postmaster logs in");
    assert!(lab.resume_process(hung));
    eventually("it goes on", String::new, || serving(&lab, "e1"));

    lab.kill_process(&e1, &target).unwrap();
    eventually("another runs", String::new, || {
        lab.find_process(&e1, &target).is_ok_and(|second| second != first) && serving(&lab, "e1")
    });
    lab.lose_power(&e1).unwrap();
    assert!(lab.find_process(&e1, &target).is_err());
    lab.start_node(&e1).unwrap();
    eventually("it recovers", String::new, || serving(&lab, "e1"));
    bench.down(Data::Remove);
    assert_eq!(Traces::of(&bench), before);
}
