//! Connections on which nothing is asked for a while: what is kept for them goes, and they go on when they are used again.

use std::net::SocketAddr;
use std::time::Duration;

use model::routes::InstanceRouteState::Ready;
use model::system::{Carriage, Limits, Protocol};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep, timeout};

use crate::agent::{LONG, Proxy, free_address, instance, service_route};
use crate::client::Wire;

/// More than twice the time after which a connection is at rest.
const PAUSE: Duration = Duration::from_millis(700);

struct Stage {
    listen: SocketAddr,
    instance: TcpListener,
    _proxy: Proxy,
}

async fn stage(limits: Limits) -> Stage {
    let (proxy, listen) = (Proxy::start(), free_address());
    let instance = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let instances = vec![self::instance("web-1", instance.local_addr().unwrap(), Ready)];
    let carriage = Carriage { limits, ..Carriage::default() };
    let route = service_route("public", listen, Protocol::Http, instances, carriage);
    assert_eq!(proxy.agent().await.apply(1, vec![route]).await, [""; 0]);
    Stage { listen, instance, _proxy: proxy }
}

/// Answers every request with its first line.
async fn tell(listener: TcpListener) {
    loop {
        let mut wire = Wire::accept_now(&listener).await;
        tokio::spawn(async move {
            while let Some(message) = wire.read_forever().await {
                wire.answer(&message.first).await;
            }
        });
    }
}

#[tokio::test]
async fn a_rested_connection_goes_on_as_often_as_it_is_used() {
    let Stage { listen, instance, _proxy } = stage(Limits::default()).await;
    tokio::spawn(tell(instance));
    let mut wire = Wire::connect(listen).await;
    for turn in ["/first", "/second", "/third"] {
        assert_eq!(wire.get(turn).await.body, format!("GET {turn} HTTP/1.1"));
        sleep(PAUSE).await;
    }
    // Two at once, the second one in two pieces with a rest between.
    wire.send("GET /a HTTP/1.1\r\nHost: shop\r\n\r\nGET /b HTTP/1.1\r\nHo").await;
    assert_eq!(wire.read().await.unwrap().body, "GET /a HTTP/1.1");
    sleep(PAUSE).await;
    wire.send("st: shop\r\n\r\n").await;
    assert_eq!(wire.read().await.unwrap().body, "GET /b HTTP/1.1");
}

#[tokio::test]
async fn an_answer_that_takes_long_is_not_cut_off() {
    let Stage { listen, instance, _proxy } = stage(Limits::default()).await;
    let mut wire = Wire::connect(listen).await;
    wire.send("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 2\r\n\r\n").await;
    sleep(PAUSE).await;
    wire.send("hi").await;
    let mut asked = Wire::accept(&instance).await;
    assert_eq!(asked.read().await.unwrap().body, "hi");
    sleep(PAUSE).await;
    asked.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc").await;
    sleep(PAUSE).await;
    asked.send("def").await;
    assert_eq!(wire.read().await.unwrap().body, "abcdef");
}

#[tokio::test]
async fn what_a_client_is_slow_to_take_reaches_it_whole() {
    const LENGTH: usize = 30 << 20;
    let Stage { listen, instance, _proxy } = stage(Limits::default()).await;
    tokio::spawn(async move {
        let mut wire = Wire::accept(&instance).await;
        wire.read().await.unwrap();
        wire.answer(&"x".repeat(LENGTH)).await;
        tell(instance).await;
    });
    let mut wire = Wire::connect(listen).await;
    wire.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    sleep(PAUSE).await;
    let mut taken = 0;
    let mut buffer = vec![0; 8 << 20];
    while taken < LENGTH - buffer.len() {
        taken += timeout(LONG, wire.stream.read(&mut buffer)).await.unwrap().unwrap();
    }
    sleep(PAUSE).await;
    // The head and what is left.
    while taken < LENGTH {
        let length = timeout(LONG, wire.stream.read(&mut buffer)).await.unwrap().unwrap();
        assert!(length > 0, "all of it comes");
        taken += length;
    }
}

#[tokio::test]
async fn a_rested_connection_ends_when_its_time_is_over_and_not_before() {
    let limits = Limits { idle_timeout: Duration::from_secs(2), ..Limits::default() };
    let Stage { listen, instance, _proxy } = stage(limits).await;
    tokio::spawn(tell(instance));
    let mut wire = Wire::connect(listen).await;
    wire.get("/").await;
    let begin = Instant::now();
    assert_eq!(timeout(LONG, wire.stream.read(&mut [0; 1])).await.unwrap().unwrap(), 0);
    let lasted = begin.elapsed();
    assert!((Duration::from_millis(1900)..Duration::from_secs(10)).contains(&lasted), "{lasted:?}");
}

#[tokio::test]
async fn a_head_that_begins_after_a_rest_has_its_time_and_its_checks() {
    let limits = Limits { header_timeout: Duration::from_secs(1), ..Limits::default() };
    let Stage { listen, instance, _proxy } = stage(limits).await;
    tokio::spawn(tell(instance));
    let mut slow = Wire::connect(listen).await;
    let mut ambiguous = Wire::connect(listen).await;
    let mut changing = Wire::connect(listen).await;
    slow.get("/").await;
    ambiguous.get("/").await;
    changing.get("/").await;
    sleep(PAUSE).await;
    slow.send("GET / HTTP/1.1\r\n").await;
    ambiguous
        .send(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
        )
        .await;
    changing.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert_eq!(ambiguous.read().await.unwrap().status(), 400);
    let mut said = String::new();
    drop(timeout(LONG, changing.stream.read_to_string(&mut said)).await.expect("it ends"));
    assert_eq!(said, "", "a connection does not change its protocol");
    drop(
        timeout(Duration::from_secs(10), slow.stream.read(&mut [0; 1])).await.expect("the slow one is ended"),
    );
}
