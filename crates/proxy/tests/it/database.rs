//! Database routes: waiting, changing members, cancelling, surviving the agent and the proxy.

use std::time::{Duration, Instant};

use model::routes::{DatabaseRouteState, RouteTarget};
use rustix::process::Signal;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_postgres::NoTls;
use tokio_postgres::error::SqlState;

use crate::agent::{LONG, Proxy, endpoint, free_address, open, parked};
use crate::postgres::{Postgres, connect, give, psql};

#[tokio::test]
async fn a_parked_connection_goes_on_when_the_route_opens() {
    let (server, proxy, listen) = (Postgres::start().await, Proxy::start(), free_address());
    let mut agent = proxy.agent().await;
    assert_eq!(agent.apply(1, parked(listen)).await, [""; 0]);
    let waiting = tokio::spawn(connect(listen));
    sleep(Duration::from_millis(300)).await;
    let report = agent.report().await.routes.remove(0);
    assert_eq!((report.parked, report.open, report.accepted), (1, 0, 1));
    let begin = Instant::now();
    agent.apply(2, open(listen, &[endpoint("e1", server.address, 1)])).await;
    let client = timeout(LONG, waiting).await.unwrap().unwrap().expect("no error, only a delay");
    println!("connected {:?} after the route opened", begin.elapsed());
    assert_eq!(client.query_one("select 42", &[]).await.unwrap().get::<_, i32>(0), 42);
    let report = agent.report().await.routes.remove(0);
    assert_eq!((report.parked, report.open, report.failed), (0, 1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_to_a_deposed_primary_are_closed_before_the_table_is_acknowledged() {
    let (server, proxy, listen) = (Postgres::start().await, Proxy::start(), free_address());
    let mut agent = proxy.agent().await;
    agent.apply(1, open(listen, &[endpoint("e1", server.address, 1)])).await;
    let mut ends = JoinSet::new();
    let mut clients = Vec::new();
    for _ in 0..100 {
        let settings = format!("host=127.0.0.1 port={} user=postgres", listen.port());
        let (client, connection) = tokio_postgres::connect(&settings, NoTls).await.unwrap();
        ends.spawn(async move { (connection.await, Instant::now()) });
        clients.push(client);
    }
    let begin = Instant::now();
    agent.apply(2, open(listen, &[endpoint("e1", server.address, 2)])).await;
    let acknowledged = begin.elapsed();
    let direct = connect(server.address).await.unwrap();
    let mut last = begin;
    while let Some(end) = ends.join_next().await {
        let (outcome, when) = end.unwrap();
        outcome.expect_err("a reset, not an orderly end");
        last = last.max(when);
    }
    println!("100 sessions: acknowledged after {acknowledged:?}, last client knew after {:?}", last - begin);
    assert!(last - begin < Duration::from_millis(500));
    let left = "select count(*) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()";
    let begin = Instant::now();
    while direct.query_one(left, &[]).await.unwrap().get::<_, i64>(0) > 0 {
        assert!(begin.elapsed() < LONG, "the server keeps backends of closed connections");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn who_has_waited_too_long_reads_why() {
    let (proxy, listen) = (Proxy::start(), free_address());
    let mut agent = proxy.agent().await;
    let mut routes = parked(listen);
    let RouteTarget::Database(target) = &mut routes[0].target else { unreachable!() };
    target.park_limit_ms = 200;
    agent.apply(1, routes).await;
    let error = connect(listen).await.expect_err("nobody takes the connection");
    let error = error.as_db_error().expect("a PostgreSQL error");
    assert_eq!(error.code(), &SqlState::CANNOT_CONNECT_NOW);
    let reason = "database \"orders\" takes no connections on this route: e1 does not answer and its successor is being elected";
    assert_eq!(error.message(), reason);
    assert!(error.hint().unwrap().starts_with("The connection waited 2"), "{:?}", error.hint());
    for setting in ["sslmode=disable", "sslmode=prefer", "sslmode=prefer gssencmode=prefer"] {
        let output = psql(listen, setting, "select 1").await;
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains(reason), "{setting}: {text}");
    }
    let output = psql(listen, "sslmode=require", "select 1").await;
    println!("sslmode=require: {}", String::from_utf8_lossy(&output.stderr));
    assert!(!output.status.success());
    let report = agent.report().await.routes.remove(0);
    assert_eq!((report.parked, report.open, report.failed), (0, 0, 5));
}

#[tokio::test]
async fn without_an_agent_nobody_waits_long_for_a_member() {
    let (proxy, listen) = (Proxy::start(), free_address());
    let mut agent = proxy.agent().await;
    agent.apply(1, parked(listen)).await;
    let patient = tokio::spawn(connect(listen));
    while agent.report().await.routes[0].parked < 1 {}
    let begin = Instant::now();
    drop(agent);
    let error = patient.await.unwrap().expect_err("nobody would tell this proxy of a successor");
    let error = error.as_db_error().expect("a PostgreSQL error").clone();
    println!("refused {:?} after the agent had gone", begin.elapsed());
    assert!(
        error.message().ends_with("and this node's agent, which would know more, is not there"),
        "{error}"
    );
    // An agent that is back in time is heard, and its clients have all the time of the table again.
    let server = Postgres::start().await;
    let waiting = tokio::spawn(connect(listen));
    sleep(Duration::from_millis(300)).await;
    let mut agent = proxy.agent().await;
    sleep(Duration::from_millis(1700)).await;
    agent.apply(2, open(listen, &[endpoint("e1", server.address, 1)])).await;
    let client = timeout(LONG, waiting).await.unwrap().unwrap().expect("no error, only a delay");
    assert_eq!(client.query_one("select 42", &[]).await.unwrap().get::<_, i32>(0), 42);
}

#[tokio::test]
async fn who_cannot_be_reached_from_here_is_not_waited_for_to_the_end() {
    let (proxy, listen) = (Proxy::start(), free_address());
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    // Its queue is full, so that the kernel answers nobody any more, as if a line were cut.
    let silent = socket.listen(0).unwrap();
    let address = silent.local_addr().unwrap();
    let _queued = TcpStream::connect(address).await.unwrap();
    let mut agent = proxy.agent().await;
    agent.apply(1, open(listen, &[endpoint("e1", address, 1)])).await;
    let begin = Instant::now();
    let error = timeout(LONG, connect(listen)).await.unwrap().expect_err("nobody answers");
    println!("told after {:?}", begin.elapsed());
    let error = error.as_db_error().expect("a PostgreSQL error");
    assert_eq!(error.code(), &SqlState::CANNOT_CONNECT_NOW);
    assert_eq!(error.message(), "e1 of database \"orders\" does not answer this node");
}

#[tokio::test]
async fn more_waiting_clients_than_allowed_are_told_at_once() {
    let (proxy, listen) = (Proxy::start(), free_address());
    let mut agent = proxy.agent().await;
    let mut routes = parked(listen);
    let RouteTarget::Database(target) = &mut routes[0].target else { unreachable!() };
    target.park_limit_count = 1;
    agent.apply(1, routes).await;
    let first = tokio::spawn(connect(listen));
    while agent.report().await.routes[0].parked < 1 {
        sleep(Duration::from_millis(5)).await;
    }
    let begin = Instant::now();
    let error = connect(listen).await.expect_err("no room");
    assert!(begin.elapsed() < Duration::from_secs(2));
    assert_eq!(
        error.as_db_error().unwrap().hint(),
        Some("1 connections wait already, which is the limit. Try again later.")
    );
    first.abort();
    while agent.report().await.routes[0].parked > 0 {
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_member_that_refuses_is_left_for_another() {
    let (server, proxy, listen) = (Postgres::start().await, Proxy::start(), free_address());
    let mut agent = proxy.agent().await;
    let dead = endpoint("e2", free_address(), 1);
    agent.apply(1, open(listen, &[dead.clone(), endpoint("e1", server.address, 1)])).await;
    for _ in 0..8 {
        connect(listen).await.expect("e1 takes all");
    }
    agent.apply(2, open(listen, std::slice::from_ref(&dead))).await;
    let waiting = tokio::spawn(connect(listen));
    sleep(Duration::from_millis(100)).await;
    agent.apply(3, open(listen, &[endpoint("e1", server.address, 1)])).await;
    timeout(LONG, waiting).await.unwrap().unwrap().expect("a refused connection waits for the next table");
    let report = agent.report().await.routes.remove(0);
    assert!(report.retried > 0);
    assert_eq!(report.failed, 0);
}

#[tokio::test]
async fn a_client_greeted_by_a_hung_postmaster_is_passed_to_the_next_primary() {
    let (hung, healthy) = tokio::join!(Postgres::start(), Postgres::start());
    let (proxy, listen) = (Proxy::start(), free_address());
    let mut agent = proxy.agent().await;
    agent.apply(1, open(listen, &[endpoint("e1", hung.address, 1)])).await;
    hung.signal_postmaster(Signal::STOP);
    let waiting = tokio::spawn(connect(listen));
    sleep(Duration::from_millis(300)).await;
    assert_eq!(agent.report().await.routes[0].open, 1, "the kernel has taken the connection");
    agent.apply(2, open(listen, &[endpoint("e2", healthy.address, 2)])).await;
    timeout(LONG, waiting)
        .await
        .unwrap()
        .unwrap()
        .expect("nothing had happened yet: the client notices nothing");
    assert_eq!(agent.report().await.routes[0].failed, 0);
}

#[tokio::test]
async fn a_cancel_request_finds_its_session() {
    let (one, two) = tokio::join!(Postgres::start(), Postgres::start());
    let (proxy, listen) = (Proxy::start(), free_address());
    let mut agent = proxy.agent().await;
    agent.apply(1, open(listen, &[endpoint("e1", one.address, 1), endpoint("e2", two.address, 1)])).await;
    for _ in 0..2 {
        let client = connect(listen).await.unwrap();
        let cancel = client.cancel_token();
        let asleep = tokio::spawn(async move { client.execute("select pg_sleep(60)", &[]).await });
        sleep(Duration::from_millis(200)).await;
        let begin = Instant::now();
        cancel.cancel_query(NoTls).await.unwrap();
        let error = timeout(LONG, asleep).await.unwrap().unwrap().unwrap_err();
        println!("cancelled in {:?}", begin.elapsed());
        assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED));
    }
}

#[tokio::test]
async fn encryption_passes_through_untouched() {
    let certify = |data: &std::path::Path| {
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        for (name, text) in
            [("server.crt", certified.cert.pem()), ("server.key", certified.signing_key.serialize_pem())]
        {
            std::fs::write(data.join(name), text).unwrap();
            give(&data.join(name));
        }
    };
    let server = Postgres::start_with(&["ssl=on"], certify).await;
    let (proxy, listen) = (Proxy::start(), free_address());
    proxy.agent().await.apply(1, open(listen, &[endpoint("e1", server.address, 1)])).await;
    let sql = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
    for (setting, encrypted) in [("sslmode=require", "t"), ("sslmode=prefer", "t"), ("sslmode=disable", "f")]
    {
        let output = psql(listen, setting, sql).await;
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), encrypted, "{setting}: {output:?}");
    }
}

#[tokio::test]
async fn the_agent_and_then_the_proxy_die_and_clients_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let (server, listen) = (Postgres::start().await, free_address());
    let proxy = Proxy::start_in(directory.path());
    let mut agent = proxy.agent().await;
    assert_eq!(agent.found, 0);
    agent.apply(7, open(listen, &[endpoint("e1", server.address, 1)])).await;
    let before = connect(listen).await.unwrap();
    drop(agent);
    sleep(Duration::from_millis(50)).await;
    before.query_one("select 1", &[]).await.expect("an open session does not notice that the agent is gone");
    connect(listen).await.expect("new connections are served by the last table");
    while !proxy.state_file().exists() {
        sleep(Duration::from_millis(5)).await;
    }
    proxy.kill();
    let proxy = Proxy::start_in(directory.path());
    let mut agent = proxy.agent().await;
    let begin = Instant::now();
    while connect(listen).await.is_err() {
        assert!(begin.elapsed() < LONG, "the restarted proxy serves the kept table");
        sleep(Duration::from_millis(2)).await;
    }
    if agent.found == 0 {
        agent.applied(7).await;
    }
    agent
        .say(&model::routes::ToProxy::Table(model::routes::RouteTable {
            generation: 6,
            ..Default::default()
        }))
        .await;
    assert_eq!(agent.refused().await, (6, 7));
    agent.say_bytes(b"{\"table\":5}\n").await;
    assert_eq!(agent.refused().await, (0, 7));
    agent.apply(8, open(listen, &[endpoint("e1", server.address, 1)])).await;
}

#[tokio::test]
async fn a_route_taken_out_of_the_table_ends_its_sessions() {
    let (server, proxy, listen) = (Postgres::start().await, Proxy::start(), free_address());
    let mut agent = proxy.agent().await;
    agent.apply(1, open(listen, &[endpoint("e1", server.address, 1)])).await;
    let client = connect(listen).await.unwrap();
    agent.apply(2, vec![]).await;
    client.query_one("select 1", &[]).await.expect_err("no table answers for this session any more");
    let refused = tokio::net::TcpStream::connect(listen).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn strangers_get_an_error_and_do_no_harm() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (proxy, listen) = (Proxy::start(), free_address());
    let mut agent = proxy.agent().await;
    agent
        .apply(1, vec![crate::agent::database_route(listen, DatabaseRouteState::Open { members: vec![] })])
        .await;
    let mut stream = tokio::net::TcpStream::connect(listen).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    timeout(LONG, stream.read_to_end(&mut answer)).await.unwrap().expect("an orderly end, no reset");
    let text = String::from_utf8_lossy(&answer);
    assert!(text.contains("08P01") && text.contains("not a PostgreSQL client"), "{text}");
}
