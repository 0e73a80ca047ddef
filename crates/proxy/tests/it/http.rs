//! Service routes: what is passed on, repeated, refused and said.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use model::routes::InstanceRouteState::{Draining, Gone, NotReady, Ready};
use model::system::traffic::Traffic;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

use crate::agent::{Agent, LONG, Proxy, free_address, instance, service, service_with};
use crate::client::Wire;

struct Stage {
    instance: TcpListener,
    at: SocketAddr,
    listen: SocketAddr,
    agent: Agent,
    _proxy: Proxy,
}

/// A route with one instance, which the test plays itself.
async fn stage() -> Stage {
    let instance_listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = instance_listener.local_addr().unwrap();
    let (proxy, listen) = (Proxy::start(), free_address());
    let mut agent = proxy.agent().await;
    assert_eq!(agent.apply(1, service(listen, vec![instance("web-1@e1", at, Ready)])).await, [""; 0]);
    Stage { instance: instance_listener, at, listen, agent, _proxy: proxy }
}

#[tokio::test]
async fn requests_and_answers_are_passed_on_over_kept_connections() {
    let Stage { instance, listen, _proxy, .. } = stage().await;
    let mut client = Wire::connect(listen).await;
    client
        .send(
            "POST /a?b=c HTTP/1.1\r\nHost: shop\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello",
        )
        .await;
    let mut server = Wire::accept(&instance).await;
    let request = server.read().await.unwrap();
    assert_eq!(request.first, "POST /a?b=c HTTP/1.1");
    assert_eq!(request.body, "hello");
    assert_eq!(request.headers["x-forwarded-for"], "127.0.0.1");
    assert_eq!(request.headers["x-forwarded-host"], "shop");
    assert_eq!(request.headers["x-forwarded-proto"], "http");
    assert!(!request.headers.contains_key("connection"));
    server
        .send("HTTP/1.1 201 Created\r\nConnection: keep-alive\r\nX-A: b\r\nContent-Length: 2\r\n\r\nok")
        .await;
    let answer = client.read().await.unwrap();
    assert_eq!((answer.status(), answer.body.as_str(), answer.headers["x-a"].as_str()), (201, "ok", "b"));
    assert!(!answer.headers.contains_key("connection"));
    client.send("GET /second HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    assert_eq!(server.read().await.unwrap().first, "GET /second HTTP/1.1", "on the same connection");
    server.answer("2").await;
    assert_eq!(client.read().await.unwrap().body, "2");
}

#[tokio::test]
async fn bodies_stream_in_both_directions() {
    let Stage { instance, listen, _proxy, .. } = stage().await;
    let mut client = Wire::connect(listen).await;
    client.send("POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n").await;
    let mut server = Wire::accept(&instance).await;
    while !server.line().await.unwrap().is_empty() {}
    assert_eq!(server.line().await.unwrap(), "3");
    assert_eq!(server.exactly(5).await.unwrap(), "one\r\n", "before the client has sent the rest");
    server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").await;
    while !client.line().await.unwrap().is_empty() {}
    assert_eq!(client.line().await.unwrap(), "5");
    assert_eq!(client.exactly(7).await.unwrap(), "first\r\n", "before the instance has sent the rest");
    client.send("3\r\ntwo\r\n0\r\n\r\n").await;
    assert_eq!(server.line().await.unwrap(), "3");
    assert_eq!(server.exactly(5).await.unwrap(), "two\r\n");
    server.send("0\r\n\r\n").await;
    assert_eq!(client.line().await.unwrap(), "0");
}

#[tokio::test]
async fn a_websocket_is_tunnelled() {
    let Stage { instance, listen, mut agent, at, _proxy, .. } = stage().await;
    let mut client = Wire::connect(listen).await;
    client
        .send("GET /chat HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        .await;
    let mut server = Wire::accept(&instance).await;
    let request = server.read().await.unwrap();
    assert_eq!(
        (request.headers["connection"].as_str(), request.headers["upgrade"].as_str()),
        ("upgrade", "websocket")
    );
    server
        .send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhi")
        .await;
    let answer = client.read().await.unwrap();
    assert_eq!((answer.status(), answer.headers["upgrade"].as_str()), (101, "websocket"));
    assert_eq!(client.exactly(2).await.unwrap(), "hi");
    client.send("ping").await;
    assert_eq!(server.exactly(4).await.unwrap(), "ping");
    agent.apply(2, service(listen, vec![self::instance("web-1@e1", at, Draining)])).await;
    server.send("pong").await;
    assert_eq!(client.exactly(4).await.unwrap(), "pong", "a draining instance keeps its tunnels");
    agent.apply(3, service(listen, vec![self::instance("web-1@e1", at, Gone)])).await;
    assert_eq!(client.line().await, None, "one that is gone does not");
}

#[tokio::test]
async fn smuggled_requests_are_refused_and_the_connection_ends() {
    let Stage { instance, listen, _proxy, .. } = stage().await;
    for head in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        "Content-Length: 4\r\nContent-Length: 5\r\n",
        "Content-Length: 4\r\nContent-Length: 4\r\n",
        "Content-Length: +4\r\n",
        "Content-Length: 4, 4\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "X: a\r\n Transfer-Encoding: chunked\r\n",
        "Host: other\r\n",
    ] {
        let mut client = Wire::connect(listen).await;
        client.send(&format!("POST / HTTP/1.1\r\nHost: shop\r\n{head}\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: shop\r\n\r\n")).await;
        let answer = client.read().await.unwrap();
        assert_eq!(answer.status(), 400, "{head:?}: {answer:?}");
        assert!(client.read().await.is_none(), "{head:?}");
    }
    let reached = timeout(Duration::from_millis(100), instance.accept()).await;
    assert!(reached.is_err(), "nothing of it reached the instance");
}

#[tokio::test]
async fn oversized_heads_are_refused() {
    let Stage { listen, _proxy, .. } = stage().await;
    let long = "x".repeat(9000);
    let many = "A: b\r\n".repeat(200);
    let big = |bytes| format!("GET / HTTP/1.1\r\nHost: shop\r\nA: {}\r\n\r\n", "x".repeat(bytes));
    for (request, status) in [
        (format!("GET /{long} HTTP/1.1\r\nHost: shop\r\n\r\n"), &[414][..]),
        (format!("GET / HTTP/1.1\r\nHost: shop\r\n{many}\r\n"), &[431]),
        (big(40_000), &[431]),
        (big(400_000), &[400, 431]),
    ] {
        let mut client = Wire::connect(listen).await;
        drop(client.stream.get_mut().write_all(request.as_bytes()).await);
        // A client that is still sending may see the end of the connection before the answer.
        match client.read().await {
            Some(answer) => assert!(status.contains(&answer.status()), "{answer:?}"),
            None => assert!(request.len() > 100_000),
        }
    }
}

#[tokio::test]
async fn a_client_that_dribbles_its_head_is_cut_off() {
    let Stage { listen, _proxy, .. } = stage().await;
    let mut client = Wire::connect(listen).await;
    let begin = Instant::now();
    client.send("GET / HTTP/1.1\r\n").await;
    let end = async {
        while client.stream.get_mut().write_all(b"A: b\r\n").await.is_ok() {
            sleep(Duration::from_millis(300)).await;
        }
    };
    timeout(LONG, end).await.expect("cut off");
    println!("cut off after {:?}", begin.elapsed());
    assert!(begin.elapsed() > Duration::from_secs(8));
}

#[tokio::test]
async fn nobody_left_is_said_in_words() {
    let Stage { listen, mut agent, at, _proxy, .. } = stage().await;
    agent.apply(2, service(listen, vec![instance("web-1@e1", at, Gone)])).await;
    let answer = Wire::connect(listen).await.get("/").await;
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.headers["retry-after"], "1");
    assert_eq!(answer.body, "Service web cannot answer: web-1@e1 is gone.\n");
    let report = agent.report().await.routes.remove(0);
    assert_eq!((report.accepted, report.failed), (1, 1));
}

#[tokio::test]
async fn a_post_is_repeated_only_if_it_never_left() {
    let Stage { instance, listen, mut agent, at, _proxy, .. } = stage().await;
    let dead = free_address();
    let both = vec![self::instance("web-1@e1", at, Ready), self::instance("web-2@e2", dead, Ready)];
    agent.apply(2, service(listen, both)).await;
    // Whichever is asked first: the dead one takes no connection, so the request goes to the other.
    for _ in 0..4 {
        let mut client = Wire::connect(listen).await;
        client.send("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 2\r\n\r\nhi").await;
        let mut server = Wire::accept(&instance).await;
        assert_eq!(server.read().await.unwrap().body, "hi");
        server.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await;
        assert_eq!(client.read().await.unwrap().status(), 200);
    }
    let mut client = Wire::connect(listen).await;
    client.send("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 2\r\n\r\nhi").await;
    let mut server = Wire::accept(&instance).await;
    server.read().await.unwrap();
    drop(server);
    let answer = client.read().await.unwrap();
    assert_eq!(answer.status(), 502, "it may have had an effect");
    assert!(answer.body.contains("may have had an effect"), "{}", answer.body);
}

#[tokio::test]
async fn an_error_answer_is_kept_when_others_do_no_better() {
    let Stage { instance, listen, mut agent, at, _proxy, .. } = stage().await;
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let two = vec![
        self::instance("web-1@e1", at, Ready),
        self::instance("web-2@e2", other.local_addr().unwrap(), Ready),
    ];
    agent.apply(2, service(listen, two)).await;
    let mut client = Wire::connect(listen).await;
    client.send("GET /broken HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    for _ in 0..2 {
        let mut server = tokio::select! {
            server = Wire::accept(&instance) => server,
            server = Wire::accept(&other) => server,
        };
        server.read().await.unwrap();
        server
            .send("HTTP/1.1 500 Internal Server Error\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbug")
            .await;
    }
    let answer = client.read().await.unwrap();
    assert_eq!((answer.status(), answer.body.as_str()), (500, "bug"));
    let report = agent.report().await.routes.remove(0);
    assert_eq!((report.retried, report.failed, report.ejected.len()), (1, 0, 0));
}

#[tokio::test]
async fn a_change_of_the_table_breaks_no_healthy_connection() {
    let Stage { instance, listen, mut agent, at, _proxy, .. } = stage().await;
    let mut client = Wire::connect(listen).await;
    client.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    let mut server = Wire::accept(&instance).await;
    server.read().await.unwrap();
    for (generation, state) in (2..).zip([NotReady, Ready, Draining, Ready, Ready]) {
        agent.apply(generation, service(listen, vec![self::instance("web-1@e1", at, state)])).await;
    }
    server.answer("still").await;
    assert_eq!(client.read().await.unwrap().body, "still");
    client.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    server.read().await.expect("over the same connection");
    server.answer("same").await;
    assert_eq!(client.read().await.unwrap().body, "same");
    agent.apply(9, vec![]).await;
    assert!(client.read().await.is_none(), "the route is gone, and nothing was under way");
}

#[tokio::test]
async fn an_instance_that_is_gone_loses_its_requests_to_another() {
    let Stage { instance, listen, mut agent, at, _proxy, .. } = stage().await;
    let mut client = Wire::connect(listen).await;
    client.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    let mut hanging = Wire::accept(&instance).await;
    hanging.read().await.unwrap();
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let other_at = other.local_addr().unwrap();
    let two = vec![self::instance("web-1@e1", at, Gone), self::instance("web-2@e2", other_at, Ready)];
    agent.apply(2, service(listen, two)).await;
    assert!(hanging.read().await.is_none(), "closed before the table is acknowledged");
    let mut server = Wire::accept(&other).await;
    server.read().await.unwrap();
    server.answer("other").await;
    assert_eq!(client.read().await.unwrap().body, "other");
    let back = vec![self::instance("web-1@e1", at, Ready), self::instance("web-2@e2", other_at, Gone)];
    agent.apply(3, service(listen, back)).await;
    client.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    let mut server = Wire::accept(&instance).await;
    server.read().await.unwrap();
    server.answer("back").await;
    assert_eq!(client.read().await.unwrap().body, "back", "it may come back in the same place");
}

#[tokio::test]
async fn a_marked_post_is_repeated_when_its_instance_breaks_off() {
    let Stage { instance, listen, mut agent, at, _proxy, .. } = stage().await;
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let two = vec![
        self::instance("web-1@e1", at, Ready),
        self::instance("web-2@e2", other.local_addr().unwrap(), Ready),
    ];
    let keyed = Traffic { idempotency_keys: true, ..Traffic::default() };
    agent.apply(2, service_with(listen, two, keyed)).await;
    let mut client = Wire::connect(listen).await;
    client.send("POST / HTTP/1.1\r\nHost: shop\r\nIdempotency-Key: 1\r\nContent-Length: 2\r\n\r\nhi").await;
    for round in 0..2 {
        let mut server = tokio::select! {
            server = Wire::accept(&instance) => server,
            server = Wire::accept(&other) => server,
        };
        assert_eq!(server.read().await.unwrap().body, "hi");
        if round == 1 {
            server.answer("once").await;
            sleep(Duration::from_millis(50)).await;
        }
    }
    assert_eq!(timeout(LONG, client.read()).await.unwrap().unwrap().body, "once");
}
