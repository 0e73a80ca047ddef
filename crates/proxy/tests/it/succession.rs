//! One proxy takes the place of another: requests, sessions, tunnels, and successors that end.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::Version;
use model::routes::InstanceRouteState::Ready;
use model::system::{Carriage, Protocol};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::agent::{
    Agent, LONG, Proxy, endpoint, free_address, instance, open, parked, service, service_route,
};
use crate::client::Wire;
use crate::peer::{Client, Instance, empty};
use crate::postgres::{Postgres, connect};

const DRAIN: Duration = Duration::from_secs(60);

/// The clients of a test, and what became of their requests.
struct Load {
    ends: Arc<AtomicBool>,
    ok: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

/// How a client uses connections.
#[derive(Clone, Copy, Debug)]
enum Manner {
    /// It keeps one until an answer says that it ends.
    Keeps,
    /// A new one for each request.
    New,
    /// One of HTTP/2.
    Http2,
}

impl Load {
    fn begin(at: SocketAddr, clients: &[(Manner, usize)], pause: Duration) -> Self {
        let (ends, ok) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let each = clients.iter().flat_map(|(manner, count)| std::iter::repeat_n(*manner, *count));
        let clients = each
            .map(|manner| {
                let (ends, ok) = (ends.clone(), ok.clone());
                tokio::spawn(async move { ask_on(at, manner, pause, &ends, &ok).await })
            })
            .collect();
        Self { ends, ok, clients }
    }

    /// How many were answered, and what happened to the others.
    async fn end(self) -> (u64, Vec<String>) {
        self.ends.store(true, Ordering::Relaxed);
        let mut failed = Vec::new();
        for client in self.clients {
            failed.extend(client.await.unwrap());
        }
        (self.ok.load(Ordering::Relaxed), failed)
    }
}

/// Asks again and again; nothing that was sent is sent again.
async fn ask_on(
    at: SocketAddr,
    manner: Manner,
    pause: Duration,
    ends: &AtomicBool,
    ok: &AtomicU64,
) -> Vec<String> {
    let (mut client, mut failed, mut next) = (None, Vec::new(), Instant::now());
    while !ends.load(Ordering::Relaxed) {
        sleep_until(next).await;
        next += pause;
        match timeout(LONG, ask(&mut client, at, manner)).await {
            Ok(Ok(())) => drop(ok.fetch_add(1, Ordering::Relaxed)),
            Ok(Err(error)) => {
                failed.push(format!("{manner:?}: {error}"));
                client = None;
            }
            Err(_) => failed.push(format!("{manner:?}: no answer")),
        }
    }
    failed
}

async fn ask(client: &mut Option<Client>, at: SocketAddr, manner: Manner) -> Result<(), String> {
    // A method that no proxy may repeat once it was sent.
    let response = loop {
        let mut asked = match client.take() {
            Some(client) => client,
            None => match manner {
                Manner::Http2 => Client::http2(at).await,
                Manner::Keeps | Manner::New => Client::http1(at).await,
            },
        };
        let request = asked.request("POST", "/", &[("content-length", "0")], empty());
        match asked.send(request).await {
            Ok(response) => {
                *client = Some(asked);
                break response;
            }
            // Nothing was sent, or the proxy says that it has not looked at it (RFC 9113 section 6.8): no failure, and
            // clients of HTTP/2 ask on another connection by themselves.
            Err(error) if matches!(manner, Manner::Http2) && was_not_taken(&error) => {}
            Err(error) => return Err(format!("{error:?}")),
        }
    };
    let (head, body) = response.into_parts();
    let is_last = head.headers.get("connection").is_some_and(|value| value == "close");
    body.collect().await.map_err(|error| format!("body: {error:?}"))?;
    if is_last || matches!(manner, Manner::New) {
        *client = None;
    }
    if head.status == 200 { Ok(()) } else { Err(format!("status {}", head.status)) }
}

fn was_not_taken(error: &hyper::Error) -> bool {
    error.is_canceled() || format!("{error:?}").contains("NO_ERROR, Remote")
}

async fn serving(
    directory: &Path,
    route: impl Fn(SocketAddr) -> Vec<model::routes::Route>,
) -> (Proxy, Agent, SocketAddr) {
    let (proxy, listen) = (Proxy::start_in(directory), free_address());
    let mut agent = proxy.agent().await;
    assert_eq!(agent.apply(1, route(listen)).await, [""; 0]);
    (proxy, agent, listen)
}

/// Waits until the successor answers agents, and returns such an agent.
async fn succeeded(proxy: &Proxy, generation: u64) -> Agent {
    timeout(LONG, proxy.serves()).await.expect("the successor takes over");
    let agent = proxy.agent().await;
    assert_eq!(agent.found, generation, "it goes on with the table in force");
    agent
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxies_replace_one_another_under_load_without_a_failed_request() {
    let directory = tempfile::tempdir().unwrap();
    let instance = Instance::http1().await;
    let route = |listen| service(listen, vec![self::instance("web-1", instance.address, Ready)]);
    let (mut proxy, _agent, listen) = serving(directory.path(), route).await;
    let manners = [(Manner::Keeps, 20), (Manner::New, 5), (Manner::Http2, 5)];
    let load = Load::begin(listen, &manners, Duration::from_millis(30));
    sleep(Duration::from_millis(500)).await;
    for _ in 0..5 {
        let next = Proxy::succeed_in(directory.path(), DRAIN);
        succeeded(&next, 1).await;
        sleep(Duration::from_millis(300)).await;
        timeout(LONG, proxy.ended())
            .await
            .expect("the former proxy ends when nobody uses it any more")
            .unwrap();
        proxy = next;
    }
    let (ok, failed) = load.end().await;
    println!("{ok} requests answered, {} failed: {:?}", failed.len(), failed.first());
    assert!(ok > 500 && failed.is_empty(), "{failed:?}");
}

#[tokio::test]
async fn a_kept_connection_gets_one_more_answer_that_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let instance = Instance::http1().await;
    let route = |listen| service(listen, vec![self::instance("web-1", instance.address, Ready)]);
    let (first, _agent, listen) = serving(directory.path(), route).await;
    let mut kept = Wire::connect(listen).await;
    assert!(!kept.get("/").await.headers.contains_key("connection"));
    let next = Proxy::succeed_in(directory.path(), DRAIN);
    succeeded(&next, 1).await;
    sleep(Duration::from_millis(1500)).await;
    assert_eq!(kept.get("/").await.headers["connection"], "close", "unused connections are not closed");
    assert!(kept.read().await.is_none());
    timeout(LONG, first.ended()).await.expect("then the proxy ends").unwrap();
    let mut fresh = Client::http1(listen).await;
    let answer = fresh.get("/").await;
    assert_eq!((answer.status, answer.version), (200, Version::HTTP_11));
    assert!(!answer.headers.contains_key("connection"));
}

#[tokio::test]
async fn sessions_go_on_in_the_former_proxy_and_end_there_when_their_primary_is_deposed() {
    let directory = tempfile::tempdir().unwrap();
    let server = Postgres::start().await;
    let (first, _agent, listen) =
        serving(directory.path(), |listen| open(listen, &[endpoint("e1", server.address, 1)])).await;
    let mut session = connect(listen).await.unwrap();
    let transaction = session.transaction().await.unwrap();
    transaction.query_one("select 1", &[]).await.unwrap();

    let next = Proxy::succeed_in(directory.path(), DRAIN);
    let mut agent = succeeded(&next, 1).await;
    transaction.query_one("select 2", &[]).await.expect("a transaction goes on");
    transaction.commit().await.expect("and commits");
    let fresh = connect(listen).await.expect("new sessions come to the successor");

    let mut beside = Agent::connect(&first.leaving_socket()).await;
    assert_eq!(beside.found, 1);
    assert_eq!(beside.report().await.routes[0].open, 1);
    for agent in [&mut agent, &mut beside] {
        agent.apply(2, parked(listen)).await;
    }
    for session in [session, fresh] {
        session.query_one("select 3", &[]).await.expect_err("the primary of term 1 is deposed");
    }
    timeout(LONG, first.ended()).await.expect("the former proxy ends with its last session").unwrap();
    assert!(!first.leaving_directory().read_dir().unwrap().any(|entry| entry.is_ok()));
}

#[tokio::test]
async fn a_session_that_stays_too_long_is_told_to_leave_when_it_is_idle() {
    let directory = tempfile::tempdir().unwrap();
    let server = Postgres::start().await;
    let (first, _agent, listen) =
        serving(directory.path(), |listen| open(listen, &[endpoint("e1", server.address, 1)])).await;
    let mut session = connect(listen).await.unwrap();
    let transaction = session.transaction().await.unwrap();
    transaction.query_one("select 1", &[]).await.unwrap();
    let next = Proxy::succeed_in(directory.path(), Duration::from_millis(300));
    succeeded(&next, 1).await;
    sleep(Duration::from_secs(1)).await;
    transaction.query_one("select 2", &[]).await.expect("a transaction may end");
    transaction.commit().await.unwrap();
    timeout(LONG, first.ended()).await.expect("then the session and the proxy end").unwrap();
    session.query_one("select 3", &[]).await.expect_err("it was told to leave");
}

#[tokio::test]
async fn a_tunnel_goes_on_in_the_former_proxy() {
    let directory = tempfile::tempdir().unwrap();
    let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = backend.local_addr().unwrap();
    let route = |listen| {
        let instances = vec![instance("chat-1", at, Ready)];
        vec![service_route("chat", listen, Protocol::Tcp, instances, Carriage::default())]
    };
    let (first, _agent, listen) = serving(directory.path(), route).await;
    let mut client = Wire::connect(listen).await;
    client.send("hello").await;
    let mut server = Wire::accept(&backend).await;
    assert_eq!(server.exactly(5).await.unwrap(), "hello");
    let next = Proxy::succeed_in(directory.path(), DRAIN);
    succeeded(&next, 1).await;
    sleep(Duration::from_millis(1500)).await;
    server.send("still there").await;
    assert_eq!(client.exactly(11).await.unwrap(), "still there");
    drop((client, server));
    timeout(LONG, first.ended()).await.expect("the proxy ends with the last tunnel").unwrap();
}

#[tokio::test]
async fn a_successor_that_ends_gives_the_place_back() {
    let directory = tempfile::tempdir().unwrap();
    let instance = Instance::http1().await;
    let route = |listen| service(listen, vec![self::instance("web-1", instance.address, Ready)]);
    let (first, agent, listen) = serving(directory.path(), route).await;
    // Something that keeps the former proxy.
    let mut kept = Wire::connect(listen).await;
    kept.get("/").await;
    let next = Proxy::succeed_in(directory.path(), DRAIN);
    let mut agent_of_next = succeeded(&next, 1).await;
    drop(agent);
    agent_of_next.apply(2, route(listen)).await;
    let mut beside = Agent::connect(&first.leaving_socket()).await;
    beside.apply(2, route(listen)).await;
    next.kill();
    let answer = timeout(LONG, async { Client::http1(listen).await.get("/").await }).await.unwrap();
    assert_eq!(answer.status, 200, "who came meanwhile has waited");
    let agent = first.agent().await;
    assert_eq!(agent.found, 2);
    assert!(!answer.headers.contains_key("connection"), "it is not leaving any more");
    // And it can be succeeded again.
    let next = Proxy::succeed_in(directory.path(), DRAIN);
    succeeded(&next, 2).await;
    assert_eq!(Client::http1(listen).await.get("/").await.status, 200);
}

#[tokio::test]
async fn a_successor_that_never_gets_ready_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let instance = Instance::http1().await;
    let route = |listen| service(listen, vec![self::instance("web-1", instance.address, Ready)]);
    let (proxy, mut agent, listen) = serving(directory.path(), route).await;
    let claims = directory.path().join("proxy.heir");
    let claim = tokio::net::UnixStream::connect(&claims).await.unwrap();
    sleep(Duration::from_millis(100)).await;
    assert_eq!(Client::http1(listen).await.get("/").await.status, 200);
    drop(claim);
    agent.apply(2, route(listen)).await;
    let next = Proxy::succeed_in(directory.path(), DRAIN);
    succeeded(&next, 2).await;
    assert_eq!(Client::http1(listen).await.get("/").await.status, 200);
    drop(proxy);
}

#[tokio::test]
async fn without_a_proxy_there_is_nothing_to_succeed() {
    let directory = tempfile::tempdir().unwrap();
    let next = Proxy::succeed_in(directory.path(), DRAIN);
    let error = timeout(LONG, next.ended()).await.unwrap().unwrap_err().to_string();
    assert!(error.starts_with("cannot take the place of the proxy on "), "{error}");
}

#[tokio::test]
async fn addresses_that_are_taken_out_of_the_table_are_closed_in_both_proxies() {
    let directory = tempfile::tempdir().unwrap();
    let instance = Instance::http1().await;
    let route = |listen| service(listen, vec![self::instance("web-1", instance.address, Ready)]);
    let (first, _agent, listen) = serving(directory.path(), route).await;
    let mut kept = Wire::connect(listen).await;
    kept.get("/").await;
    let next = Proxy::succeed_in(directory.path(), DRAIN);
    let mut agent = succeeded(&next, 1).await;
    let mut beside = Agent::connect(&first.leaving_socket()).await;
    agent.apply(2, Vec::new()).await;
    beside.apply(2, Vec::new()).await;
    let refused = timeout(LONG, async {
        while TcpStream::connect(listen).await.is_ok() {
            sleep(Duration::from_millis(5)).await;
        }
    });
    refused.await.expect("nobody listens there any more");
}
