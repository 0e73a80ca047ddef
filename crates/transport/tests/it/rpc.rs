//! Requests and answers.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::NodeName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use transport::{Identity, Listener, RpcClient, RpcError, RpcPool, RpcTarget, StreamKind, serve_rpc};

use crate::support::{DEADLINE, World, any_port};

const LARGE: usize = 5 << 20;

/// Answers with what it was sent, fails on `fail`, takes its time on `slow`, never answers `hang`.
async fn handler(peer: NodeName, body: Bytes) -> Result<Vec<u8>, String> {
    match body.as_ref() {
        b"fail" => Err("told to fail".into()),
        b"who" => Ok(peer.to_string().into_bytes()),
        b"slow" => {
            tokio::time::sleep(Duration::from_millis(2500)).await;
            Ok(b"at last".to_vec())
        }
        b"hang" => std::future::pending().await,
        b"large" => Ok(vec![0; LARGE]),
        b"huge" => Ok(vec![0; (16 << 20) + 1]),
        other => Ok(other.to_vec()),
    }
}

/// A serving node that can be stopped with all its connections.
struct Server {
    task: JoinHandle<()>,
    address: SocketAddr,
}

impl Server {
    fn start(address: SocketAddr, identity: &Identity) -> Self {
        let mut listener = Listener::bind(address, identity).unwrap();
        let address = listener.local_addr();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                connections.spawn(serve_rpc(listener.accept().await.connection, handler));
            }
        });
        Self { task, address }
    }

    async fn stop(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

fn client(world: &World, address: SocketAddr) -> RpcClient {
    let target = RpcTarget { node: "e1".into(), lines: vec![(address, None)] };
    RpcClient::start(target, StreamKind::Raft, &world.identity("w1"))
}

async fn connected(client: &RpcClient) -> Duration {
    let begin = Instant::now();
    while !client.is_connected() {
        assert!(begin.elapsed() < DEADLINE, "not connected");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    begin.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_share_a_connection_and_each_gets_its_own_answer() {
    let world = World::new();
    let server = Server::start(any_port(), &world.identity("e1"));
    let client = client(&world, server.address);
    connected(&client).await;
    assert_eq!(client.call("who", DEADLINE).await.unwrap(), "w1");

    let slow = tokio::spawn({
        let client = client.clone();
        async move { client.call("slow", DEADLINE).await }
    });
    let mut calls = Vec::new();
    for number in 0..100_u32 {
        let client = client.clone();
        calls.push(tokio::spawn(async move { client.call(format!("number {number}"), DEADLINE).await }));
    }
    for (number, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap().unwrap(), format!("number {number}"));
    }
    assert!(!slow.is_finished(), "the slow request held the others up");
    // Longer than the silence limit: the pings keep the connection.
    assert_eq!(slow.await.unwrap().unwrap(), "at last");
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_told_in_words_and_spoil_nothing() {
    let world = World::new();
    let server = Server::start(any_port(), &world.identity("e1"));
    let client = client(&world, server.address);
    connected(&client).await;

    let refused = client.call("fail", DEADLINE).await.unwrap_err();
    assert_eq!(refused, RpcError::Refused { node: "e1".into(), reason: "told to fail".into() });
    let late = client.call("hang", Duration::from_millis(50)).await;
    assert!(matches!(late, Err(RpcError::TimedOut { .. })), "{late:?}");
    for too_long in [Bytes::from_static(b"huge"), Bytes::from(vec![0; 16 << 20])] {
        let refused = client.call(too_long, DEADLINE).await;
        assert!(
            matches!(&refused, Err(RpcError::Refused { reason, .. }) if reason.contains("longer")),
            "{refused:?}"
        );
    }
    assert_eq!(client.call("still here", DEADLINE).await.unwrap(), "still here");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_server_fails_requests_at_once_and_is_found_again() {
    let world = World::new();
    let identity = world.identity("e1");
    let server = Server::start(any_port(), &identity);
    let address = server.address;
    let client = client(&world, address);
    connected(&client).await;

    let hanging = tokio::spawn({
        let client = client.clone();
        async move { client.call("hang", DEADLINE).await }
    });
    client.call("x", DEADLINE).await.unwrap();
    let begin = Instant::now();
    server.stop().await;
    assert_eq!(hanging.await.unwrap(), Err(RpcError::ConnectionLost("e1".into())));
    assert!(begin.elapsed() < Duration::from_millis(500), "{:?}", begin.elapsed());

    tokio::time::sleep(Duration::from_millis(20)).await;
    let begin = Instant::now();
    assert_eq!(client.call("x", DEADLINE).await, Err(RpcError::NotConnected("e1".into())));
    assert!(begin.elapsed() < Duration::from_millis(20), "{:?}", begin.elapsed());

    let _server = Server::start(address, &identity);
    let found = connected(&client).await;
    assert!(found < Duration::from_secs(1), "{found:?}");
    println!("a returned server was connected again after {found:?}");
    assert_eq!(client.call("x", DEADLINE).await.unwrap(), "x");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_reads_nothing_is_given_up() {
    let world = World::new();
    let mut listener = world.listener("e1");
    let client = client(&world, listener.local_addr());
    // Accepts and then never reads, like a frozen process.
    let frozen = listener.accept().await;
    connected(&client).await;
    let begin = Instant::now();
    let lost = client.call("x", DEADLINE).await;
    assert_eq!(lost, Err(RpcError::ConnectionLost("e1".into())));
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    drop(frozen);
}

/// Forwards one connection, to the client at 2.5 MiB/s.
async fn slow_line(to: SocketAddr) -> SocketAddr {
    let line = tokio::net::TcpListener::bind(any_port()).await.unwrap();
    let address = line.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut from_client, mut to_client) = line.accept().await.unwrap().0.into_split();
        let (mut from_server, mut to_server) = tokio::net::TcpStream::connect(to).await.unwrap().into_split();
        tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
        let mut piece = vec![0; 64 << 10];
        while let Ok(length @ 1..) = from_server.read(&mut piece).await {
            to_client.write_all(&piece[..length]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_answer_on_its_way_is_not_taken_for_silence() {
    let world = World::new();
    let server = Server::start(any_port(), &world.identity("e1"));
    let client = client(&world, slow_line(server.address).await);
    connected(&client).await;
    let begin = Instant::now();
    assert_eq!(client.call("large", DEADLINE).await.unwrap().len(), LARGE);
    assert!(begin.elapsed() > Duration::from_millis(1500), "the line was not slow: {:?}", begin.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_lines_the_one_that_works_is_used() {
    let world = World::new();
    let server = Server::start(any_port(), &world.identity("e1"));
    // Accepted by the kernel, never answered: a line that swallows everything.
    let dead = tokio::net::TcpListener::bind(any_port()).await.unwrap();
    let lines =
        vec![(dead.local_addr().unwrap(), None), (server.address, Some("127.0.0.9".parse().unwrap()))];
    let target = RpcTarget { node: "e1".into(), lines };
    let client = RpcClient::start(target, StreamKind::Raft, &world.identity("w1"));
    let needed = connected(&client).await;
    assert!(needed < Duration::from_millis(500), "{needed:?}");
    assert_eq!(client.call("x", DEADLINE).await.unwrap(), "x");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_requests_is_refused_not_stored() {
    let world = World::new();
    let server = Server::start(any_port(), &world.identity("e1"));
    let client = client(&world, server.address);
    connected(&client).await;
    let mut calls = Vec::new();
    for _ in 0..200 {
        let client = client.clone();
        calls.push(tokio::spawn(async move { client.call("hang", Duration::from_millis(500)).await }));
    }
    let mut refused = 0;
    for call in calls {
        if let Err(RpcError::Refused { reason, .. }) = call.await.unwrap() {
            assert_eq!(reason, "too many requests at once");
            refused += 1;
        }
    }
    assert_eq!(refused, 200 - transport::rpc::MAX_REQUESTS_IN_WORK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_follows_its_nodes() {
    let world = World::new();
    let servers =
        [Server::start(any_port(), &world.identity("e1")), Server::start(any_port(), &world.identity("n1"))];
    let target =
        |node: &str, server: &Server| RpcTarget { node: node.into(), lines: vec![(server.address, None)] };
    let pool = RpcPool::new(StreamKind::Raft, &world.identity("w1"));
    pool.set_targets([target("e1", &servers[0])]);
    connected(&pool.client(&"e1".into()).unwrap()).await;
    assert_eq!(pool.call(&"e1".into(), "x", DEADLINE).await.unwrap(), "x");
    assert_eq!(pool.call(&"n1".into(), "x", DEADLINE).await, Err(RpcError::UnknownNode("n1".into())));

    pool.set_targets([target("e1", &servers[0]), target("n1", &servers[1])]);
    assert!(pool.client(&"e1".into()).unwrap().is_connected(), "an unchanged node was connected anew");
    connected(&pool.client(&"n1".into()).unwrap()).await;
    pool.set_targets([]);
    assert!(pool.client(&"e1".into()).is_none());
}
