//! Parameters in force, and what their change demands.

use std::time::Duration;

use effects::postgres::{Application, Settings, StopMode, Tls};
use model::leadership::SyncSet;
use model::status::PendingSetting;

use super::cluster::{Cluster, SOON, wait_until_streaming};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_configured_is_in_force_and_a_change_demands_what_it_must() {
    let (mut cluster, primary) = Cluster::founded(&["e1"]).await;
    let member = primary.member().clone();
    let session = member.control();
    let contexts = session.contexts(SOON).await.unwrap();
    for (name, value) in cluster.settings.effective(&member) {
        assert!(contexts.contains_key(&name), "PostgreSQL does not know {name}");
        if name == "shared_buffers" {
            assert_eq!(session.text("SHOW shared_buffers", SOON).await.unwrap(), value);
        }
    }
    assert_eq!(session.settings_errors(SOON).await.unwrap(), Vec::<String>::new());
    cluster.settings.parameters.insert("work_mem".into(), "7MB".into());
    assert_eq!(primary.reload_settings(&cluster.settings, SOON).await.unwrap(), []);
    session.close().await;
    assert_eq!(session.text("SHOW work_mem", SOON).await.unwrap(), "7MB");
    cluster.settings.parameters.insert("max_connections".into(), "120".into());
    let pending = primary.reload_settings(&cluster.settings, SOON).await.unwrap();
    assert_eq!(in_short(&pending), ["max_connections 100 120"]);
    primary.stop(StopMode::Fast, SOON).await.unwrap();
    primary.process().exited().await;
    cluster.start_primary(0, SyncSet::default()).await;
    assert_eq!(session.text("SHOW max_connections", SOON).await.unwrap(), "120");
    assert_eq!(session.pending_restart(SOON).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_set_with_alter_system_is_seen_and_taken_back() {
    let (_cluster, primary) = Cluster::founded(&["e1"]).await;
    let session = primary.member().control();
    let names = session.text("SHOW synchronous_standby_names", SOON).await.unwrap();
    assert!(!primary.member().observer().observe(SOON).await.unwrap().altered);
    for set in ["synchronous_standby_names = 'somebody'", "work_mem = '9MB'"] {
        session.text(&format!("ALTER SYSTEM SET {set}"), SOON).await.unwrap();
    }
    session.text("SELECT pg_reload_conf()", SOON).await.unwrap();
    assert!(primary.member().observer().observe(SOON).await.unwrap().altered);
    let undone = primary.undo_alterations(SOON).await.unwrap();
    assert_eq!(undone, "synchronous_standby_names, work_mem");
    assert!(!primary.member().observer().observe(SOON).await.unwrap().altered);
    session.close().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(session.text("SHOW synchronous_standby_names", SOON).await.unwrap(), names);
    assert_eq!(session.text("SHOW work_mem", SOON).await.unwrap(), "4MB");
}

/// Name, value that runs, value wanted, and whether it is held.
fn in_short(pending: &[PendingSetting]) -> Vec<String> {
    let held = |setting: &PendingSetting| if setting.held { " held" } else { "" };
    let wanted = |setting: &PendingSetting| setting.wanted.clone().unwrap_or_default();
    pending.iter().map(|s| format!("{} {} {}{}", s.name, s.runs, wanted(s), held(s))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_keeps_what_its_primary_has_until_the_primary_has_less() {
    let (mut cluster, servers) = Cluster::streaming(&["e1", "e2"]).await;
    let [primary, standby] = servers.as_slice() else { panic!("two servers") };
    cluster.settings.parameters.insert("max_connections".into(), "60".into());
    let lower = ["max_connections 100 60"];
    assert_eq!(in_short(&primary.reload_settings(&cluster.settings, SOON).await.unwrap()), lower);
    let held = standby.reload_settings(&cluster.settings, SOON).await.unwrap();
    assert_eq!(in_short(&held), ["max_connections 100 60 held"]);
    // A restart changes nothing yet, and works all the same.
    standby.stop(StopMode::Fast, SOON).await.unwrap();
    standby.process().exited().await;
    let standby = cluster.start_standby(1).await;
    assert_eq!(standby.member().control().text("SHOW max_connections", SOON).await.unwrap(), "100");
    wait_until_streaming(primary, cluster.members[1].node()).await;
    primary.stop(StopMode::Fast, SOON).await.unwrap();
    primary.process().exited().await;
    let primary = cluster.start_primary(0, SyncSet::default()).await;
    assert_eq!(primary.member().control().text("SHOW max_connections", SOON).await.unwrap(), "60");
    wait_until_streaming(&primary, cluster.members[1].node()).await;
    let begin = std::time::Instant::now();
    loop {
        let pending = standby.reload_settings(&cluster.settings, SOON).await.unwrap();
        if in_short(&pending) == lower {
            break;
        }
        assert!(begin.elapsed() < SOON, "{pending:?}");
    }
    standby.stop(StopMode::Fast, SOON).await.unwrap();
    standby.process().exited().await;
    let standby = cluster.start_standby(1).await;
    assert_eq!(standby.member().control().text("SHOW max_connections", SOON).await.unwrap(), "60");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_the_server_does_not_accept_is_told_and_the_old_one_stays() {
    let (mut cluster, primary) = Cluster::founded(&["e1"]).await;
    cluster.settings.parameters.insert("work_mem".into(), "a lot".into());
    let error = primary.reload_settings(&cluster.settings, SOON).await.unwrap_err();
    assert!(error.to_string().contains("work_mem"), "{error}");
    let shown = primary.member().control().text("SHOW work_mem", SOON).await.unwrap();
    assert_eq!(shown, "4MB");
    let error = primary.member().check_settings(SOON).await.unwrap_err();
    assert!(error.to_string().contains("work_mem"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alter_system_does_not_survive_a_start() {
    let (cluster, primary) = Cluster::founded(&["e1"]).await;
    let session = primary.member().control();
    session.text("ALTER SYSTEM SET synchronous_standby_names = 'stranger'", SOON).await.unwrap();
    session.text("ALTER SYSTEM SET port = 1", SOON).await.unwrap();
    primary.stop(StopMode::Immediate, SOON).await.unwrap();
    let primary = cluster.start_primary(0, SyncSet::default()).await;
    let shown = primary.member().control().text("SHOW synchronous_standby_names", SOON).await.unwrap();
    assert_eq!(shown, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_terminated_and_the_agent_gets_in_when_connections_run_out() {
    let (mut cluster, primary) = Cluster::founded(&["e1"]).await;
    cluster.settings.parameters.insert("max_connections".into(), "12".into());
    primary.stop(StopMode::Fast, SOON).await.unwrap();
    primary.process().exited().await;
    let primary = cluster.start_primary(0, SyncSet::default()).await;
    let mut clients = Vec::new();
    let refused = loop {
        match cluster.client(0).await {
            Ok(client) => clients.push(client),
            Err(error) => break error,
        }
    };
    assert!(refused.as_db_error().is_some_and(|error| error.message().contains("reserved")), "{refused}");
    effects::postgres::Prober::new(primary.member()).write(SOON).await.unwrap();
    let ended = primary.terminate_clients(SOON).await.unwrap();
    assert_eq!(ended as usize, clients.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_certificates_members_talk_over_tls_only() {
    let mut cluster = Cluster::of(&["e1", "e2"]).await;
    cluster.settings = Settings { tls: Some(certificate()), ..cluster.settings.clone() };
    cluster.members[0]
        .found(&Application::named("orders"), &cluster.settings, &cluster.secrets, SOON)
        .await
        .unwrap();
    let primary = cluster.start_primary(0, SyncSet::default()).await;
    primary.keep_slots(&cluster.others(0), SOON).await.unwrap();
    let standby = &cluster.members[1];
    standby.keep_secrets(&cluster.secrets).await.unwrap();
    standby.write_settings(&cluster.settings).await.unwrap();
    standby.clone_from(&cluster.source(0), SOON, |_| ()).await.unwrap();
    let server = cluster.start_standby(1).await;
    server.follow(&cluster.source(0)).await.unwrap();
    wait_until_streaming(&primary, standby.node()).await;
    let sql = "SELECT string_agg(ssl::text, ' ') FROM pg_stat_ssl JOIN pg_stat_replication USING (pid)";
    assert_eq!(primary.member().control().text(sql, SOON).await.unwrap(), "true");
    let mut plain = cluster.source(0);
    plain.tls = false;
    let error = standby.ask_source(&plain, SOON).await.unwrap_err().to_string();
    assert!(error.contains("no encryption"), "{error}");
    let facts = standby.ask_source(&cluster.source(0), SOON).await.unwrap();
    assert_eq!(facts.history.timeline.0, 1);
}

/// An authority and a certificate signed by it.
fn certificate() -> Tls {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    authority.distinguished_name.push(rcgen::DnType::CommonName, "authority");
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_certificate = authority.self_signed(&key).unwrap();
    let issuer = rcgen::Issuer::from_params(&authority, &key);
    let server_key = rcgen::KeyPair::generate().unwrap();
    let mut server = rcgen::CertificateParams::new(vec!["e1".to_owned()]).unwrap();
    server.distinguished_name.push(rcgen::DnType::CommonName, "e1");
    Tls {
        certificate: server.signed_by(&server_key, &issuer).unwrap().pem(),
        key: server_key.serialize_pem(),
        authority: authority_certificate.pem(),
    }
}

#[tokio::test]
async fn the_application_leaves_connections_for_the_other_members() {
    let (_cluster, servers) = Cluster::streaming(&["e1", "e2"]).await;
    let primary = &servers[0];
    let limit = "SELECT rolconnlimit FROM pg_roles WHERE rolname = 'orders'";
    let ask = async || primary.member().control().text(limit, SOON).await.unwrap().parse::<i32>().unwrap();
    assert_eq!(ask().await, -1);
    primary.keep_room("orders", SOON).await.unwrap();
    let show = "SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int";
    let free: i32 = primary.member().control().text(show, SOON).await.unwrap().parse().unwrap();
    assert!((1..free).contains(&ask().await));
    primary.keep_room("orders", SOON).await.unwrap();
    assert!((1..free).contains(&ask().await), "a second time changes nothing");
    primary.keep_room("nobody", SOON).await.unwrap();
}
