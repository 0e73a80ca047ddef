//! HTTP/2 on both sides: prior knowledge, streams in both directions, trailers, gRPC.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Either};
use hyper::Version;
use hyper::body::Frame;
use model::routes::InstanceRouteState::{Draining, Gone, Ready};
use model::system::{Carriage, Protocol};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::agent::{Agent, LONG, Proxy, free_address, instance, service_route};
use crate::client::Wire;
use crate::peer::{Client, Instance, Pieces, empty, trailers, whole};

struct Stage {
    listen: SocketAddr,
    instance: Instance,
    agent: Agent,
    _proxy: Proxy,
}

async fn stage(protocol: Protocol) -> Stage {
    let instance = match protocol {
        Protocol::H2 => Instance::http2().await,
        Protocol::Http | Protocol::Tcp => Instance::http1().await,
    };
    let (proxy, listen) = (Proxy::start(), free_address());
    let mut agent = proxy.agent().await;
    let instances = vec![self::instance("web-1", instance.address, Ready)];
    let route = service_route("public", listen, protocol, instances, Carriage::default());
    assert_eq!(agent.apply(1, vec![route]).await, [""; 0]);
    Stage { listen, instance, agent, _proxy: proxy }
}

#[tokio::test]
async fn a_client_that_begins_with_http2_is_served_by_instances_of_either_version() {
    for (protocol, version) in [(Protocol::Http, "HTTP/1.1"), (Protocol::H2, "HTTP/2.0")] {
        let Stage { listen, instance, _proxy, .. } = stage(protocol).await;
        for mut client in [Client::http2(listen).await, Client::http1(listen).await] {
            let answer = client.ask("GET", "/a?b", &[("cookie", "a=1"), ("x-a", "b")], empty()).await;
            assert_eq!(answer.status, 200);
            assert!(answer.body.starts_with("GET ") && answer.body.contains("/a?b"), "{}", answer.body);
            assert!(answer.body.lines().next().unwrap().ends_with(version), "{}", answer.body);
            let told = answer.told();
            assert_eq!((told["x-forwarded-host"], told["x-forwarded-proto"]), ("shop.example", "http"));
            assert_eq!((told["x-a"], told["cookie"]), ("b", "a=1"));
            assert_eq!(answer.headers["x-request-id"], told["x-request-id"]);
            assert_eq!(told["x-request-id"].len(), 32);
        }
        assert_eq!(instance.connections(), 1);
    }
}

#[tokio::test]
async fn many_requests_share_a_connection_on_both_sides() {
    let Stage { listen, instance, _proxy, .. } = stage(Protocol::H2).await;
    let mut first = Client::http2(listen).await;
    // Those that begin before there is any connection to the instance open one each.
    assert_eq!(first.ask("POST", "/echo", &[], whole("hello")).await.status, 200);
    let Client::Http2(sender) = first else { unreachable!() };
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let mut client = Client::Http2(sender.clone());
        tasks.spawn(async move { client.ask("POST", "/echo", &[], whole("hello")).await });
    }
    while let Some(answer) = tasks.join_next().await {
        let answer = answer.unwrap();
        assert_eq!((answer.status, answer.version, answer.body.as_str()), (200, Version::HTTP_2, "hello"));
    }
    assert_eq!(instance.connections(), 1);
}

#[tokio::test]
async fn a_grpc_call_streams_both_ways_and_keeps_its_trailers() {
    let Stage { listen, instance, _proxy, .. } = stage(Protocol::H2).await;
    let mut client = Client::http2(listen).await;
    let (pieces, body) = Pieces::new();
    let headers = [("content-type", "application/grpc"), ("te", "trailers")];
    let request = client.request("POST", "/echo", &headers, Either::Right(body));
    let response = timeout(LONG, client.send(request)).await.unwrap().unwrap();
    assert_eq!(response.headers()["content-type"], "application/grpc");
    let mut body = response.into_body();
    for message in ["one", "two", "three"] {
        pieces.send(Frame::data(Bytes::from(message))).await.unwrap();
        let frame =
            timeout(LONG, body.frame()).await.expect("before the client has sent the rest").unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), message);
    }
    pieces.send(trailers("grpc-status", "0")).await.unwrap();
    drop(pieces);
    let last = timeout(LONG, body.frame()).await.unwrap().unwrap().unwrap();
    assert_eq!(last.into_trailers().unwrap()["grpc-status"], "0", "there and back");
    assert!(body.frame().await.is_none());
    assert_eq!(instance.connections(), 1);
}

#[tokio::test]
async fn trailers_pass_between_the_versions() {
    let Stage { listen, instance: _instance, _proxy, .. } = stage(Protocol::H2).await;
    let mut client = Client::http1(listen).await;
    let (pieces, body) = Pieces::new();
    let headers = [("te", "trailers"), ("trailer", "x-sum")];
    let request = client.request("POST", "/echo", &headers, Either::Right(body));
    pieces.send(Frame::data(Bytes::from("data"))).await.unwrap();
    pieces.send(trailers("x-sum", "4")).await.unwrap();
    drop(pieces);
    let answer = crate::peer::read(client.send(request).await.unwrap()).await;
    assert_eq!((answer.body.as_str(), answer.version), ("data", Version::HTTP_11));
    assert_eq!(answer.trailers.expect("trailers")["x-sum"], "4");
}

#[tokio::test]
async fn a_client_that_sends_nothing_more_is_told_so_and_the_instance_is_not_blamed() {
    let (proxy, listen, instance) = (Proxy::start(), free_address(), Instance::http1().await);
    let mut agent = proxy.agent().await;
    let mut carriage = Carriage::default();
    carriage.limits.body_timeout = Duration::from_millis(300);
    let instances = vec![self::instance("web-1", instance.address, Ready)];
    agent.apply(1, vec![service_route("public", listen, Protocol::Http, instances, carriage)]).await;
    for _ in 0..5 {
        let mut wire = Wire::connect(listen).await;
        wire.send("POST /late HTTP/1.1\r\nHost: shop\r\nContent-Length: 100000\r\n\r\nabc").await;
        // The instance of these tests answers without reading the body, so one that waits for it is played here.
        drop(wire);
    }
    let waiting = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let instances = vec![self::instance("web-2", waiting.local_addr().unwrap(), Ready)];
    let mut carriage = Carriage::default();
    carriage.limits.body_timeout = Duration::from_millis(300);
    agent.apply(2, vec![service_route("public", listen, Protocol::Http, instances, carriage)]).await;
    let mut wire = Wire::connect(listen).await;
    wire.send("POST /late HTTP/1.1\r\nHost: shop\r\nContent-Length: 100000\r\n\r\nabc").await;
    let answer = wire.read().await.unwrap();
    assert_eq!(
        (answer.status(), answer.body.as_str()),
        (408, "The body of the request did not come in time.\n")
    );
    let report = agent.report().await.routes.remove(0);
    assert!(report.ejected.is_empty() && !report.panic, "{report:?}");
}

#[tokio::test]
async fn an_instance_that_is_gone_loses_its_http2_connection_and_one_that_drains_finishes() {
    let Stage { listen, instance, mut agent, _proxy } = stage(Protocol::H2).await;
    let mut client = Client::http2(listen).await;
    let (pieces, body) = Pieces::new();
    let headers = [("content-type", "application/grpc")];
    let request = client.request("POST", "/echo", &headers, Either::Right(body));
    let mut body = client.send(request).await.unwrap().into_body();
    let route = |state| {
        let instances = vec![self::instance("web-1", instance.address, state)];
        vec![service_route("public", listen, Protocol::H2, instances, Carriage::default())]
    };
    agent.apply(2, route(Draining)).await;
    pieces.send(Frame::data(Bytes::from("still"))).await.unwrap();
    assert_eq!(timeout(LONG, body.frame()).await.unwrap().unwrap().unwrap().into_data().unwrap(), "still");
    assert_eq!(client.get("/").await.status, 503, "but it gets no new request");
    agent.apply(3, route(Gone)).await;
    assert!(timeout(LONG, body.frame()).await.unwrap().unwrap().is_err(), "broken off");
    let next = Instance::http2().await;
    let instances = vec![self::instance("web-2", next.address, Ready)];
    agent.apply(4, vec![service_route("public", listen, Protocol::H2, instances, Carriage::default())]).await;
    assert_eq!(client.get("/").await.status, 200, "the client's connection has outlived it");
}
