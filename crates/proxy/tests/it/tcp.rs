//! Routes to services that speak something else than HTTP, PROXY headers in both directions, and the access log.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use model::routes::InstanceRouteState::{Draining, Gone, Ready};
use model::routes::{InstanceEndpoint, Route, RouteTarget};
use model::system::{Carriage, Protocol};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use crate::agent::{Agent, LONG, Proxy, free_address, instance, service_route};
use crate::client::Wire;
use crate::peer::{Client, Instance, Pair, shake_hands};

fn route(listen: SocketAddr, instances: Vec<InstanceEndpoint>) -> Vec<Route> {
    vec![service_route("jobs", listen, Protocol::Tcp, instances, Carriage::default())]
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn accept(listener: &TcpListener) -> TcpStream {
    timeout(LONG, listener.accept()).await.expect("a connection comes").unwrap().0
}

async fn read(stream: &mut TcpStream, length: usize) -> String {
    let mut bytes = vec![0; length];
    timeout(LONG, stream.read_exact(&mut bytes)).await.expect("bytes come").unwrap();
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn bytes_pass_both_ways_and_each_side_may_end_first() {
    let (proxy, listen, (server, at)) = (Proxy::start(), free_address(), listener().await);
    let mut agent = proxy.agent().await;
    agent.apply(1, route(listen, vec![instance("jobs-1", at, Ready)])).await;
    let mut client = TcpStream::connect(listen).await.unwrap();
    client.write_all(b"hello").await.unwrap();
    let mut taken = accept(&server).await;
    assert_eq!(read(&mut taken, 5).await, "hello");
    let begin = Instant::now();
    for _ in 0..100 {
        taken.write_all(b"x").await.unwrap();
        assert_eq!(read(&mut client, 1).await, "x");
        client.write_all(b"y").await.unwrap();
        assert_eq!(read(&mut taken, 1).await, "y");
    }
    println!("100 small messages there and back in {:?}", begin.elapsed());
    assert!(begin.elapsed() < Duration::from_secs(5), "none is held back");
    client.shutdown().await.unwrap();
    assert_eq!(taken.read(&mut [0; 1]).await.unwrap(), 0);
    taken.write_all(b"bye").await.unwrap();
    assert_eq!(read(&mut client, 3).await, "bye", "the other half goes on");
    drop(taken);
    assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
    let report = agent.report().await.routes.remove(0);
    assert_eq!((report.accepted, report.failed), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_carried_whole_past_a_slow_reader() {
    const LENGTH: usize = 64 << 20;
    let (proxy, listen, (server, at)) = (Proxy::start(), free_address(), listener().await);
    let mut agent = proxy.agent().await;
    agent.apply(1, route(listen, vec![instance("jobs-1", at, Ready)])).await;
    let writing = tokio::spawn(async move {
        let mut client = TcpStream::connect(listen).await.unwrap();
        let block: Vec<u8> = (0..1 << 20).map(|place| u8::try_from(place * 7 % 251).unwrap()).collect();
        for _ in 0..LENGTH >> 20 {
            client.write_all(&block).await.unwrap();
        }
        client.shutdown().await.unwrap();
        client.read(&mut [0; 1]).await.unwrap()
    });
    let mut taken = accept(&server).await;
    sleep(Duration::from_millis(300)).await;
    let mut bytes = vec![0; 1 << 20];
    let mut sum = 0;
    while let length @ 1.. = timeout(LONG, taken.read(&mut bytes)).await.unwrap().unwrap() {
        let wrong =
            (0..length).find(|place| usize::from(bytes[*place]) != (sum + place) % (1 << 20) * 7 % 251);
        assert_eq!(wrong, None, "after {sum}");
        sum += length;
    }
    assert_eq!(sum, LENGTH);
    drop(taken);
    assert_eq!(writing.await.unwrap(), 0);
}

#[tokio::test]
async fn an_instance_that_takes_no_connection_costs_its_client_nothing() {
    let (proxy, listen, (server, at)) = (Proxy::start(), free_address(), listener().await);
    let mut agent = proxy.agent().await;
    let both = vec![instance("jobs-1", free_address(), Ready), instance("jobs-2", at, Ready)];
    agent.apply(1, route(listen, both)).await;
    for round in 0..6 {
        let mut client = TcpStream::connect(listen).await.unwrap();
        client.write_all(b"hi").await.unwrap();
        let mut taken = accept(&server).await;
        assert_eq!(read(&mut taken, 2).await, "hi", "{round}");
    }
    let report = agent.report().await.routes.remove(0);
    assert_eq!((report.accepted, report.failed), (6, 0));
    assert_eq!(report.ejected, ["jobs-1"]);
}

#[tokio::test]
async fn an_instance_that_breaks_off_before_the_first_byte_is_replaced() {
    let (proxy, listen) = (Proxy::start(), free_address());
    let ((breaking, first), (server, second)) = (listener().await, listener().await);
    let mut agent = proxy.agent().await;
    tokio::spawn(async move {
        loop {
            drop(breaking.accept().await);
        }
    });
    agent
        .apply(1, route(listen, vec![instance("jobs-1", first, Ready), instance("jobs-2", second, Ready)]))
        .await;
    for _ in 0..6 {
        let mut client = TcpStream::connect(listen).await.unwrap();
        let mut taken = accept(&server).await;
        taken.write_all(b"220 welcome").await.unwrap();
        assert_eq!(read(&mut client, 11).await, "220 welcome", "the server may speak first");
    }
    assert_eq!(agent.report().await.routes.remove(0).failed, 0);
}

async fn joined(agent: &mut Agent, listen: SocketAddr) -> (TcpStream, TcpStream, SocketAddr) {
    let (server, at) = listener().await;
    agent.apply(1, route(listen, vec![instance("jobs-1", at, Ready)])).await;
    let mut client = TcpStream::connect(listen).await.unwrap();
    client.write_all(b"a").await.unwrap();
    let mut taken = accept(&server).await;
    assert_eq!(read(&mut taken, 1).await, "a");
    (client, taken, at)
}

#[tokio::test]
async fn a_draining_instance_keeps_its_connections_and_one_that_is_gone_loses_them() {
    let (proxy, listen) = (Proxy::start(), free_address());
    let mut agent = proxy.agent().await;
    let (mut client, mut taken, at) = joined(&mut agent, listen).await;
    agent.apply(2, route(listen, vec![instance("jobs-1", at, Draining)])).await;
    taken.write_all(b"b").await.unwrap();
    assert_eq!(read(&mut client, 1).await, "b");
    // The reset may come before the client knows that it is connected.
    if let Ok(mut other) = TcpStream::connect(listen).await {
        let end = timeout(LONG, other.read(&mut [0; 1])).await.unwrap();
        assert!(!matches!(end, Ok(1..)), "it takes no new ones");
    }
    agent.apply(3, route(listen, vec![instance("jobs-1", at, Gone)])).await;
    assert!(client.read(&mut [0; 1]).await.is_err(), "reset before the table is acknowledged");
    let (mut client, _taken, _) = {
        let (server, at) = listener().await;
        agent.apply(4, route(listen, vec![instance("jobs-2", at, Ready)])).await;
        let mut client = TcpStream::connect(listen).await.unwrap();
        client.write_all(b"a").await.unwrap();
        (client, accept(&server).await, at)
    };
    agent.apply(5, vec![]).await;
    let end = timeout(LONG, client.read(&mut [0; 1])).await.unwrap();
    assert!(!matches!(end, Ok(1..)), "the route was removed");
}

#[tokio::test]
async fn a_balancers_word_on_the_client_is_believed_and_a_strangers_is_not() {
    let (proxy, listen, instance) = (Proxy::start(), free_address(), Instance::http1().await);
    let mut agent = proxy.agent().await;
    let table = |range: &str| {
        let carriage = Carriage { proxy_protocol: vec![range.parse().unwrap()], ..Carriage::default() };
        let instances = vec![self::instance("web-1", instance.address, Ready)];
        vec![service_route("public", listen, Protocol::Http, instances, carriage)]
    };
    agent.apply(1, table("127.0.0.1")).await;
    let binary = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x0a\0\0\x01\x10\0\x01\xbb";
    let headers = [
        (&b"PROXY TCP4 192.0.2.7 10.0.0.1 4096 443\r\n"[..], "192.0.2.7"),
        (binary, "192.0.2.7"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    ];
    for (header, client) in headers {
        for cut in [1, 16, header.len()] {
            let mut wire = Wire::connect(listen).await;
            let (one, rest) = header.split_at(cut.min(header.len()));
            wire.stream.get_mut().write_all(one).await.unwrap();
            sleep(Duration::from_millis(5)).await;
            wire.stream.get_mut().write_all(rest).await.unwrap();
            let answer = wire.get("/").await;
            assert!(answer.body.contains(&format!("x-forwarded-for: {client}\n")), "{}", answer.body);
        }
    }
    let mut wire = Wire::connect(listen).await;
    wire.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    assert!(wire.read().await.is_none(), "a balancer must say whom it speaks for");
    agent.apply(2, table("10.0.0.0/8")).await;
    let mut wire = Wire::connect(listen).await;
    wire.send("PROXY TCP4 192.0.2.7 10.0.0.1 4096 443\r\nGET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    assert_eq!(wire.read().await.unwrap().status(), 400, "from a stranger it is nonsense");
    assert_eq!(Wire::connect(listen).await.get("/").await.status(), 200);
}

#[tokio::test]
async fn an_instance_hears_of_its_client_by_a_proxy_header() {
    let (proxy, listen, (server, at)) = (Proxy::start(), free_address(), listener().await);
    let mut agent = proxy.agent().await;
    let carriage = Carriage { proxy_protocol: vec!["127.0.0.0/8".parse().unwrap()], ..Carriage::default() };
    let mut table =
        vec![service_route("jobs", listen, Protocol::Tcp, vec![instance("jobs-1", at, Ready)], carriage)];
    if let RouteTarget::Service(target) = &mut table[0].target {
        target.send_proxy_protocol = true;
    }
    agent.apply(1, table).await;
    let mut client = TcpStream::connect(listen).await.unwrap();
    client.write_all(b"PROXY TCP4 192.0.2.7 10.0.0.1 4096 443\r\nhello").await.unwrap();
    let mut taken = accept(&server).await;
    let mut bytes = vec![0; 33];
    timeout(LONG, taken.read_exact(&mut bytes)).await.unwrap().unwrap();
    let header = proxy::core::proxy_header::read(&bytes).unwrap().unwrap();
    assert_eq!(header.client.unwrap().to_string(), "192.0.2.7:4096");
    assert_eq!((&bytes[header.length..], header.length), (&b"hello"[..], 28));
}

#[tokio::test]
async fn a_tls_session_passes_through_untouched() {
    let (proxy, listen, pair) = (Proxy::start(), free_address(), Pair::new(&["shop.example"]));
    let (inner, inner_listen, instance) = (Proxy::start(), free_address(), Instance::http1().await);
    let tls = model::system::TlsFiles { certificate: pair.certificate(), key: pair.key() };
    let carriage = Carriage { tls: Some(tls), ..Carriage::default() };
    let instances = vec![self::instance("web-1", instance.address, Ready)];
    inner
        .agent()
        .await
        .apply(1, vec![service_route("public", inner_listen, Protocol::Http, instances, carriage)])
        .await;
    proxy.agent().await.apply(1, route(listen, vec![self::instance("jobs-1", inner_listen, Ready)])).await;
    shake_hands(listen, "shop.example", &pair, &["h2"]).await.unwrap();
    let mut client = Client::secure(listen, "shop.example", &pair, &["h2"]).await;
    assert_eq!(client.get("/").await.status, 200);
}

#[tokio::test]
async fn the_access_log_has_one_of_so_many_requests_and_every_failed_one() {
    let directory = tempfile::tempdir().unwrap();
    let (proxy, listen, instance) =
        (Proxy::start_in(directory.path()), free_address(), Instance::http1().await);
    let mut agent = proxy.agent().await;
    let table = |state| {
        let carriage = Carriage { access_log: Some(10), ..Carriage::default() };
        let instances = vec![self::instance("web-1", instance.address, state)];
        vec![service_route("public", listen, Protocol::Http, instances, carriage)]
    };
    agent.apply(1, table(Ready)).await;
    let mut client = Client::http2(listen).await;
    for _ in 0..20 {
        let answer =
            client.ask("GET", "/page?secret=1", &[("x-request-id", "seven")], crate::peer::empty()).await;
        assert_eq!(answer.headers["x-request-id"], "seven");
    }
    agent.apply(2, table(Gone)).await;
    assert_eq!(client.get("/gone").await.status, 503);
    let path = directory.path().join("access.jsonl");
    let begin = Instant::now();
    let lines: Vec<serde_json::Value> = loop {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        if text.lines().count() >= 3 {
            break text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        }
        assert!(begin.elapsed() < LONG, "{text}");
        sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(lines.len(), 3);
    for (key, value) in [
        ("route", "public"),
        ("client", "127.0.0.1"),
        ("method", "GET"),
        ("host", "shop.example"),
        ("path", "/page"),
        ("protocol", "HTTP/2"),
        ("instance", "web-1"),
        ("id", "seven"),
    ] {
        assert_eq!(lines[0][key], value, "{}", lines[0]);
    }
    assert_eq!((lines[0]["status"].as_u64(), lines[0]["complete"].as_bool()), (Some(200), Some(true)));
    assert!(lines[0]["bytes"].as_u64().unwrap() > 100 && lines[0]["ms"].as_f64().unwrap() > 0.0);
    assert_eq!((lines[2]["status"].as_u64(), lines[2]["path"].as_str()), (Some(503), Some("/gone")));
}
