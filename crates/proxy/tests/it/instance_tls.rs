//! TLS towards instances: with either version of HTTP, and only with those that prove that they are such.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use model::routes::InstanceRouteState::Ready;
use model::routes::{Route, RouteTarget};
use model::system::{Carriage, InstanceTls, Protocol};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::sleep;

use crate::agent::{Agent, LONG, Proxy, free_address, instance, service_route};
use crate::client::Wire;
use crate::peer::{Client, Instance, Pair, acceptor, whole};

/// A route to instances that show a certificate for `name`, signed by who signed the pair's.
fn route(
    listen: SocketAddr,
    protocol: Protocol,
    instances: &[(&str, &Instance)],
    ca: &Pair,
    name: Option<&str>,
) -> Route {
    let instances = instances.iter().map(|(id, at)| instance(id, at.address, Ready)).collect();
    let mut route = service_route("public", listen, protocol, instances, Carriage::default());
    if let RouteTarget::Service(target) = &mut route.target {
        target.tls = Some(InstanceTls { ca: ca.certificate(), name: name.map(str::to_owned) });
    }
    route
}

async fn troubles(agent: &mut Agent, is_so: impl Fn(&[String]) -> bool) -> Vec<String> {
    let begin = Instant::now();
    loop {
        let troubles = agent.report().await.routes.remove(0).troubles;
        if is_so(&troubles) {
            return troubles;
        }
        assert!(begin.elapsed() < LONG, "{troubles:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn instances_are_spoken_to_by_tls_with_either_version() {
    for (protocol, is_http2) in [(Protocol::Http, false), (Protocol::H2, true)] {
        let (proxy, listen, pair) = (Proxy::start(), free_address(), Pair::new(&["web.internal"]));
        let (instance, mut agent) = (Instance::secure(&pair, is_http2).await, proxy.agent().await);
        let route = route(listen, protocol, &[("web-1", &instance)], &pair, Some("web.internal"));
        assert_eq!(agent.apply(1, vec![route]).await, [""; 0]);
        let mut client = Client::http1(listen).await;
        for _ in 0..5 {
            let answer = client.ask("POST", "/echo", &[], whole("hello")).await;
            assert_eq!((answer.status, answer.body.as_str()), (200, "hello"));
        }
        let told = client.get("/x").await;
        let target = if is_http2 { "GET https://shop.example/x HTTP/2.0" } else { "GET /x HTTP/1.1" };
        assert_eq!(told.body.lines().next(), Some(target));
        assert_eq!(instance.connections(), 1, "the connection is kept");
        assert_eq!(agent.report().await.routes.remove(0).troubles, [""; 0]);
    }
}

#[tokio::test]
async fn a_websocket_is_tunnelled_over_tls() {
    let (proxy, listen, pair) = (Proxy::start(), free_address(), Pair::new(&["web.internal"]));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut agent = proxy.agent().await;
    let at = vec![instance("web-1", listener.local_addr().unwrap(), Ready)];
    let mut route = service_route("public", listen, Protocol::Http, at, Carriage::default());
    if let RouteTarget::Service(target) = &mut route.target {
        target.tls = Some(InstanceTls { ca: pair.certificate(), name: Some("web.internal".to_owned()) });
    }
    agent.apply(1, vec![route]).await;
    let mut client = Wire::connect(listen).await;
    client
        .send("GET /chat HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        .await;
    let (stream, _) = listener.accept().await.unwrap();
    let mut server = acceptor(&pair, false).accept(stream).await.unwrap();
    let mut head = vec![];
    while !head.ends_with(b"\r\n\r\n") {
        head.push(server.read_u8().await.unwrap());
    }
    let switched = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhi";
    server.write_all(switched.as_bytes()).await.unwrap();
    server.flush().await.unwrap();
    assert_eq!(client.read().await.unwrap().status(), 101);
    assert_eq!(client.exactly(2).await.unwrap(), "hi");
    client.send("ping").await;
    let mut heard = [0; 4];
    server.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"ping");
    server.write_all(b"pong").await.unwrap();
    server.flush().await.unwrap();
    assert_eq!(client.exactly(4).await.unwrap(), "pong");
}

#[tokio::test]
async fn an_instance_without_a_name_is_recognised_by_its_address() {
    let (proxy, listen, pair) = (Proxy::start(), free_address(), Pair::new(&["127.0.0.1"]));
    let (instance, mut agent) = (Instance::secure(&pair, false).await, proxy.agent().await);
    agent.apply(1, vec![route(listen, Protocol::Http, &[("web-1", &instance)], &pair, None)]).await;
    assert_eq!(Client::http1(listen).await.get("/").await.status, 200);
}

#[tokio::test]
async fn who_cannot_prove_to_be_an_instance_gets_no_request_and_is_told() {
    let (proxy, listen, pair) = (Proxy::start(), free_address(), Pair::new(&["web.internal"]));
    let (stranger, other) = (Pair::new(&["web.internal"]), Pair::new(&["other.internal"]));
    let good = Instance::secure(&pair, false).await;
    let bad = Instance::secure(&stranger, false).await;
    let plain = Instance::http1().await;
    let mut agent = proxy.agent().await;
    let all = [("web-1", &good), ("web-2", &bad), ("web-3", &plain)];
    agent.apply(1, vec![route(listen, Protocol::Http, &all, &pair, Some("web.internal"))]).await;
    for _ in 0..30 {
        // A method that may not be repeated once it was sent: nothing is sent before an instance has proved itself.
        let answer = Client::http1(listen).await.ask("POST", "/", &[], whole("secret")).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    let told = troubles(&mut agent, |all| all.len() == 2).await;
    assert!(told[0].starts_with("TLS to web-2: invalid peer certificate"), "{told:?}");
    assert!(told[1].starts_with("TLS to web-3: "), "{told:?}");

    // The right authority, and another name.
    let misnamed = Instance::secure(&other, false).await;
    let only = [("web-4", &misnamed)];
    agent.apply(2, vec![route(listen, Protocol::Http, &only, &other, Some("web.internal"))]).await;
    let answer = Client::http1(listen).await.get("/").await;
    assert!(answer.status >= 500, "{}", answer.status);
    let told = troubles(&mut agent, |all| !all.is_empty()).await;
    assert!(told[0].contains("web-4") && told[0].contains("not valid for name"), "{told:?}");
}

#[tokio::test]
async fn authorities_are_read_again_and_bad_ones_leave_the_former_in_use() {
    let (proxy, listen, pair) = (Proxy::start(), free_address(), Pair::new(&["web.internal"]));
    let trusted = Pair::new(&["nobody.internal"]);
    let (instance, mut agent) = (Instance::secure(&pair, false).await, proxy.agent().await);
    let route = route(listen, Protocol::Http, &[("web-1", &instance)], &trusted, Some("web.internal"));
    agent.apply(1, vec![route]).await;
    assert!(Client::http1(listen).await.get("/").await.status >= 500);
    std::fs::copy(pair.certificate(), trusted.certificate()).unwrap();
    let begin = Instant::now();
    while Client::http1(listen).await.get("/").await.status != 200 {
        assert!(begin.elapsed() < LONG, "the new authority is not believed");
        sleep(Duration::from_millis(50)).await;
    }
    std::fs::write(trusted.certificate(), "rubbish").unwrap();
    let told = troubles(&mut agent, |all| !all.is_empty()).await;
    assert!(told[0].starts_with("TLS to instances: ") && told[0].contains("stays in use"), "{told:?}");
    assert_eq!(Client::http1(listen).await.get("/").await.status, 200);
}
