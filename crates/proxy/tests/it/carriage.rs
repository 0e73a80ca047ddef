//! What a route says to clients and instances besides passing on: who asks, where it leads, what is left when nobody answers.

use std::time::{Duration, Instant};

use model::routes::InstanceRouteState::{Gone, Ready};
use model::system::{Carriage, PathPrefix, Protocol};
use tokio::io::AsyncWriteExt;
use tokio::time::sleep;

use crate::agent::{LONG, Proxy, free_address, instance, service_route};
use crate::client::Wire;
use crate::peer::{Client, Instance, empty};

#[tokio::test]
async fn what_a_stranger_says_of_himself_is_not_passed_on_and_a_trusted_proxys_word_is() {
    let (proxy, listen, instance) = (Proxy::start(), free_address(), Instance::http1().await);
    let mut agent = proxy.agent().await;
    let claims = [("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=192.0.2.1"), ("x-request-id", "a b")];
    let ranges = [(1, "10.0.0.0/8", "127.0.0.1"), (2, "127.0.0.0/8", "192.0.2.1, 127.0.0.1")];
    for (generation, range, chain) in ranges {
        let carriage = Carriage { trusted_proxies: vec![range.parse().unwrap()], ..Carriage::default() };
        let instances = vec![self::instance("web-1", instance.address, Ready)];
        agent
            .apply(generation, vec![service_route("public", listen, Protocol::Http, instances, carriage)])
            .await;
        let answer = Client::http1(listen).await.ask("GET", "/", &claims, empty()).await;
        let told = answer.told();
        assert_eq!(told["x-forwarded-for"], chain);
        assert_eq!(
            told["forwarded"].starts_with("for=192.0.2.1, "),
            generation == 2,
            "{}",
            told["forwarded"]
        );
        assert_eq!(
            (told["x-request-id"].len(), told["x-request-id"]),
            (32, answer.headers["x-request-id"].to_str().unwrap())
        );
    }
}

#[tokio::test]
async fn routes_share_an_address_and_the_longest_path_of_the_host_wins() {
    let (proxy, listen) = (Proxy::start(), free_address());
    let mut agent = proxy.agent().await;
    let entries = [("site", &[][..], "/"), ("api", &[], "/api"), ("admin", &["admin.example"], "/")];
    let mut instances = Vec::new();
    let mut routes = Vec::new();
    for (name, hosts, path) in entries {
        let instance = Instance::http1().await;
        let hosts = hosts.iter().map(|host: &&str| (*host).to_owned()).collect();
        let carriage = Carriage { hosts, path: PathPrefix::new(path), ..Carriage::default() };
        let endpoints = vec![self::instance(name, instance.address, Ready)];
        routes.push(service_route(name, listen, Protocol::Http, endpoints, carriage));
        instances.push(instance);
    }
    assert_eq!(agent.apply(1, routes.clone()).await, [""; 0]);
    let mut client = Client::http1(listen).await;
    for (host, path, number) in
        [("shop", "/", 0), ("shop", "/api/x?y", 1), ("shop", "/apix", 0), ("ADMIN.example:80", "/api", 2)]
    {
        let before: Vec<_> =
            agent.report().await.routes.iter().map(|r| (r.route.to_string(), r.accepted)).collect();
        let answer = client.ask("GET", path, &[("host", host)], empty()).await;
        assert_eq!(answer.status, 200);
        let after = agent.report().await;
        let counted = after.routes.iter().find(|r| r.route.as_str() == entries[number].0).unwrap();
        let earlier = before.iter().find(|(name, _)| name == entries[number].0).unwrap().1;
        assert_eq!(counted.accepted, earlier + 1, "{host} {path}");
    }
    assert_eq!(agent.apply(2, routes[1..].to_vec()).await, [""; 0]);
    assert_eq!(client.get("/").await.status, 404, "on the same connection");
    assert_eq!(client.get("/api").await.status, 200);
    agent.apply(3, vec![]).await;
    assert!(client.send(client.request("GET", "/api", &[], empty())).await.is_err(), "no route is left");
}

#[tokio::test]
async fn a_page_is_shown_when_nobody_is_left_and_read_again_when_it_changes() {
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join("page.html");
    std::fs::write(&page, "<p>back soon</p>").unwrap();
    let (proxy, listen) = (Proxy::start(), free_address());
    let mut agent = proxy.agent().await;
    let carriage = Carriage { maintenance: Some(page.clone()), ..Carriage::default() };
    let instances = vec![instance("web-1", free_address(), Gone)];
    agent.apply(1, vec![service_route("public", listen, Protocol::Http, instances, carriage)]).await;
    let mut client = Client::http1(listen).await;
    let answer = client.get("/").await;
    assert_eq!((answer.status, answer.body.as_str()), (503, "<p>back soon</p>"));
    assert_eq!(
        (&answer.headers["retry-after"], &answer.headers["content-type"]),
        (&"1".parse().unwrap(), &"text/html; charset=utf-8".parse().unwrap())
    );
    std::fs::write(&page, "<p>at noon</p>").unwrap();
    let begin = Instant::now();
    while client.get("/").await.body != "<p>at noon</p>" {
        assert!(begin.elapsed() < LONG);
        sleep(Duration::from_millis(20)).await;
    }
    std::fs::remove_file(&page).unwrap();
    while agent.report().await.routes.remove(0).troubles.is_empty() {
        assert!(begin.elapsed() < LONG);
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(client.get("/").await.body, "<p>at noon</p>", "what was read before stays");
}

#[tokio::test]
async fn limits_are_those_of_the_route() {
    let (proxy, listen, instance) = (Proxy::start(), free_address(), Instance::http1().await);
    let mut agent = proxy.agent().await;
    let mut carriage = Carriage::default();
    carriage.limits.headers = 8;
    carriage.limits.header_bytes = 8 << 10;
    carriage.limits.header_timeout = Duration::from_millis(300);
    carriage.limits.idle_timeout = Duration::from_millis(600);
    let instances = vec![self::instance("web-1", instance.address, Ready)];
    agent.apply(1, vec![service_route("public", listen, Protocol::Http, instances, carriage)]).await;
    let nine: Vec<(&str, &str)> =
        ["a", "b", "c", "d", "e", "f", "g", "h", "i"].map(|name| (name, "x")).to_vec();
    let long = "x".repeat(9000);
    for headers in [&nine[..], &[("a", long.as_str())]] {
        assert_eq!(Client::http1(listen).await.ask("GET", "/", headers, empty()).await.status, 431);
        let mut client = Client::http2(listen).await;
        let request = client.request("GET", "/", headers, empty());
        let refused = match client.send(request).await {
            Ok(response) => response.status() == 431,
            Err(_) => true,
        };
        assert!(refused, "{} headers", headers.len());
    }
    let begin = Instant::now();
    let mut slow = Wire::connect(listen).await;
    slow.send("GET / HTTP/1.1\r\nHo").await;
    while slow.stream.get_mut().write_all(b"x").await.is_ok() {
        sleep(Duration::from_millis(50)).await;
        assert!(begin.elapsed() < LONG);
    }
    println!("a slow head was cut off after {:?}", begin.elapsed());
    let begin = Instant::now();
    let (mut silent, mut unused) = (Wire::connect(listen).await, Wire::connect(listen).await);
    assert_eq!(unused.get("/").await.status(), 200);
    assert_eq!((silent.line().await, unused.line().await), (None, None));
    let mut frames = crate::frames::Frames::connect(listen).await;
    while frames.next().await.is_some() {}
    println!("unused ones after {:?}", begin.elapsed());
    assert!(begin.elapsed() < Duration::from_secs(10));
}
