//! The first start of a database.

use std::os::unix::fs::PermissionsExt;

use effects::postgres::{Application, FoundError, Member, StartError, StartRole};
use model::leadership::SyncSet;

use super::cluster::{Cluster, SOON, make_table, observe, rows, write};

#[tokio::test]
async fn a_founded_database_has_checksums_roles_and_an_application_database() {
    let (cluster, primary) = Cluster::founded(&["e1"]).await;
    let member = &cluster.members[0];
    assert!(member.control_data(SOON).await.unwrap().checksums);
    let client = cluster.client(0).await.unwrap();
    make_table(&client).await;
    write(&client, "one").await.unwrap();
    assert_eq!(rows(&client).await, ["one"]);
    let sql = "SELECT json_build_object('encoding', getdatabaseencoding(), 'superusers', \
        (SELECT json_agg(rolname) FROM pg_roles WHERE rolsuper), 'passwords', \
        (SELECT count(*) FROM pg_authid WHERE rolpassword LIKE 'SCRAM-SHA-256$%'), 'owner', \
        (SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'orders'))::text";
    let facts = member.control().text(sql, SOON).await.unwrap();
    let expected =
        r#"{"encoding" : "UTF8", "superusers" : ["mainstay"], "passwords" : 3, "owner" : "orders"}"#;
    assert_eq!(facts, expected);
    let facts = observe(&primary).await;
    assert!(!facts.in_recovery && facts.receiver.is_none() && facts.position.timeline.0 == 1, "{facts:?}");
}

#[tokio::test]
async fn secrets_are_private_and_the_server_does_not_run_as_root() {
    let (cluster, primary) = Cluster::founded(&["e1"]).await;
    let paths = cluster.members[0].paths();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&paths.secrets()), 0o600);
    assert_eq!(mode(&paths.tool_passfile()), 0o600);
    assert_eq!((mode(&paths.data), mode(&paths.conf)), (0o700, 0o750));
    assert_eq!(cluster.members[0].kept_secrets().await.unwrap().as_ref(), Some(&cluster.secrets));
    let status = std::fs::read_to_string(format!("/proc/{}/status", primary.process().id().pid)).unwrap();
    let uid = status.lines().find(|line| line.starts_with("Uid:")).unwrap();
    assert!(!uid.split_whitespace().skip(1).any(|uid| uid == "0"), "{uid}");
    let everything = std::fs::read_to_string(&paths.log).unwrap();
    assert!(!everything.contains(&cluster.secrets.owner), "a password was logged");
}

#[tokio::test]
async fn the_superuser_cannot_come_over_the_network() {
    let (cluster, _primary) = Cluster::founded(&["e1"]).await;
    let mut config = tokio_postgres::Config::new();
    config
        .host("127.0.0.1")
        .port(cluster.members[0].port())
        .user("mainstay")
        .dbname("postgres")
        .password("x");
    let error = config.connect(tokio_postgres::NoTls).await.err().expect("refused");
    let message = error.as_db_error().expect("an answer of the server").message().to_owned();
    assert!(message.contains("pg_hba.conf rejects connection"), "{message}");
}

#[tokio::test]
async fn existing_data_is_never_founded_again_and_missing_data_never_started() {
    let cluster = Cluster::of(&["e1"]).await;
    let member = &cluster.members[0];
    let start =
        async |member: &Member| member.start(&StartRole::Standby, &cluster.settings, SOON).await.unwrap_err();
    assert!(matches!(start(member).await, StartError::NoData(_)));
    let founded =
        member.found(&Application::named("orders"), &cluster.settings, &cluster.secrets, SOON).await.unwrap();
    println!("founded in {:?}", founded.took);
    let again = member
        .found(&Application::named("orders"), &cluster.settings, &cluster.secrets, SOON)
        .await
        .unwrap_err();
    assert!(matches!(again, FoundError::Exists(_)), "{again}");
    assert_eq!(member.control_data(SOON).await.unwrap().system_identifier, founded.system_identifier);
}

#[tokio::test]
async fn a_name_that_postgresql_has_already_is_an_error_and_leaves_nothing() {
    let cluster = Cluster::of(&["e1"]).await;
    let member = &cluster.members[0];
    let application = Application { role: "orders".to_owned(), database: "postgres".to_owned() };
    let error = member.found(&application, &cluster.settings, &cluster.secrets, SOON).await.unwrap_err();
    assert!(error.to_string().contains("database \"postgres\" already exists"), "{error}");
    assert!(!member.paths().data.exists());
}

#[tokio::test]
async fn the_application_gets_the_role_and_the_database_it_asked_for() {
    let cluster = Cluster::of(&["e1"]).await;
    let member = &cluster.members[0];
    let application = Application { role: "seller".to_owned(), database: "till-1".to_owned() };
    member.found(&application, &cluster.settings, &cluster.secrets, SOON).await.unwrap();
    let server = member.start(&StartRole::Standby, &cluster.settings, SOON).await.unwrap();
    server.ready(SOON).await.unwrap();
    let owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'till-1'";
    assert_eq!(member.control().text(owner, SOON).await.unwrap(), "seller");
    let others = "SELECT count(*) FROM pg_database WHERE datname = 'orders'";
    assert_eq!(member.control().text(others, SOON).await.unwrap(), "0");
}

#[tokio::test]
async fn a_look_at_a_server_is_cheap() {
    const LOOKS: u32 = 100;
    let (_cluster, servers) = Cluster::streaming(&["e1", "e2"]).await;
    for server in &servers {
        observe(server).await;
        let begin = std::time::Instant::now();
        for _ in 0..LOOKS {
            observe(server).await;
        }
        println!("{:?}: {:?} for each look", server.member(), begin.elapsed() / LOOKS);
        assert!(begin.elapsed() / LOOKS < std::time::Duration::from_millis(100));
    }
}

#[tokio::test]
async fn a_restarted_agent_adopts_the_running_server() {
    let (cluster, primary) = Cluster::founded(&["e1"]).await;
    let member = &cluster.members[0];
    let id = primary.process().id();
    drop(primary);
    let again = member.start(&StartRole::Standby, &cluster.settings, SOON).await.unwrap_err();
    assert!(matches!(again, StartError::AlreadyRunning(running) if running == id), "{again}");
    let adopted = member.adopt(id).await.expect("it runs");
    assert!(!observe(&adopted).await.in_recovery);
    // Also without any record of its own.
    assert_eq!(member.running().await.expect("it runs").process().id(), id);
    adopted.kill(SOON).await.unwrap();
    assert!(member.adopt(id).await.is_none());
    assert!(member.running().await.is_none());
    // A process that is not this member's server is not adopted.
    let own = effects::process::ProcessId::of(i32::try_from(std::process::id()).unwrap()).unwrap();
    assert!(member.adopt(own).await.is_none());
    let restarted = cluster.start_primary(0, SyncSet::default()).await;
    assert_ne!(restarted.process().id(), id);
}
