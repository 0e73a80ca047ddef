//! HTTPS towards clients: versions, certificates that change, and handshakes that never end.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hyper::Version;
use model::routes::InstanceRouteState::Ready;
use model::routes::{Route, RouteTarget, ToProxy};
use model::system::{Carriage, Protocol, TlsFiles};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use crate::agent::{Agent, LONG, Proxy, free_address, instance, service_route};
use crate::client::Wire;
use crate::peer::{Client, Instance, Pair, empty, shake_hands};

const BOTH: [&str; 2] = ["h2", "http/1.1"];

struct Stage {
    listen: SocketAddr,
    pair: Pair,
    instance: Instance,
    agent: Agent,
    _proxy: Proxy,
}

fn secure(name: &str, listen: SocketAddr, instance: &Instance, pair: &Pair, hosts: &[&str]) -> Route {
    let tls = TlsFiles { certificate: pair.certificate(), key: pair.key() };
    let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
    let carriage = Carriage { tls: Some(tls), hosts, ..Carriage::default() };
    service_route(
        name,
        listen,
        Protocol::Http,
        vec![self::instance("web-1", instance.address, Ready)],
        carriage,
    )
}

async fn stage() -> Stage {
    let (proxy, listen, pair) = (Proxy::start(), free_address(), Pair::new(&["shop.example"]));
    let (instance, mut agent) = (Instance::http1().await, proxy.agent().await);
    assert_eq!(agent.apply(1, vec![secure("public", listen, &instance, &pair, &[])]).await, [""; 0]);
    Stage { listen, pair, instance, agent, _proxy: proxy }
}

#[tokio::test]
async fn a_route_speaks_https_in_both_versions() {
    let Stage { listen, pair, instance, _proxy, .. } = stage().await;
    for (offered, version) in
        [(&BOTH[..], Version::HTTP_2), (&["http/1.1"], Version::HTTP_11), (&[], Version::HTTP_11)]
    {
        let mut client = Client::secure(listen, "shop.example", &pair, offered).await;
        let answer = client.get("/a?b").await;
        assert_eq!((answer.status, answer.version), (200, version), "{answer:?}");
        assert!(answer.body.starts_with("GET /a?b HTTP/1.1\n"), "{}", answer.body);
        let told = answer.told();
        assert_eq!((told["x-forwarded-proto"], told["host"]), ("https", "shop.example"));
        assert_eq!(told["forwarded"], "for=127.0.0.1;host=\"shop.example\";proto=https");
    }
    assert_eq!(instance.connections(), 1, "clients of any kind share the connections to the instance");
}

#[tokio::test]
async fn a_cookie_set_by_https_is_for_https_only() {
    let Stage { listen, pair, instance, mut agent, _proxy } = stage().await;
    agent.say(&ToProxy::Cookies { key: "5".repeat(64) }).await;
    let mut route = secure("public", listen, &instance, &pair, &[]);
    let RouteTarget::Service(target) = &mut route.target else { unreachable!() };
    target.traffic.sticky = Some("seat".into());
    agent.apply(2, vec![route]).await;
    let answer = Client::secure(listen, "shop.example", &pair, &BOTH).await.get("/").await;
    let cookie = answer.headers["set-cookie"].to_str().unwrap();
    assert!(cookie.starts_with("seat=") && cookie.ends_with("; SameSite=Lax; Secure"), "{cookie}");
}

async fn curl(listen: SocketAddr, pair: &Pair, arguments: &[&str]) -> String {
    let resolve = format!("shop.example:{}:127.0.0.1", listen.port());
    let url = format!("https://shop.example:{}/from-curl", listen.port());
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--max-time", "20", "--cacert"]).arg(pair.certificate()).args(["--resolve", &resolve]);
    let output = curl.args(arguments).args(["-w", "%{http_version}", &url]).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn curl_is_served_with_either_version() {
    let Stage { listen, pair, instance: _instance, _proxy, .. } = stage().await;
    for (argument, version) in [("--http2", "2"), ("--http1.1", "1.1"), ("--tlsv1.3", "2")] {
        let said = curl(listen, &pair, &[argument]).await;
        assert!(
            said.starts_with("GET /from-curl HTTP/1.1\n") && said.ends_with(version),
            "{argument}: {said}"
        );
    }
    let said = curl(listen, &pair, &["--http2", "--tls-max", "1.2", "--data", "x=1"]).await;
    assert!(said.starts_with("POST /from-curl"), "{said}");
}

async fn trouble(agent: &mut Agent, wanted: bool) -> Vec<String> {
    let begin = Instant::now();
    loop {
        let troubles = agent.report().await.routes.remove(0).troubles;
        if troubles.is_empty() != wanted {
            return troubles;
        }
        assert!(begin.elapsed() < LONG, "{troubles:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_new_pair_is_used_and_a_bad_one_is_told_and_not_used() {
    let Stage { listen, pair, mut agent, instance: _instance, _proxy } = stage().await;
    let mut kept = Client::secure(listen, "shop.example", &pair, &BOTH).await;
    let old_key = std::fs::read(pair.key()).unwrap();
    let old = std::fs::read(pair.certificate()).unwrap();
    pair.renew(&["shop.example"]);
    let begin = Instant::now();
    while shake_hands(listen, "shop.example", &pair, &BOTH).await.is_err() {
        assert!(begin.elapsed() < LONG, "the new certificate is not shown");
        sleep(Duration::from_millis(20)).await;
    }
    println!("the new certificate was shown after {:?}", begin.elapsed());
    assert_eq!(kept.get("/").await.status, 200, "connections that exist stay");
    let new_key = std::fs::read(pair.key()).unwrap();
    std::fs::write(pair.key(), &old_key).unwrap();
    let troubles = trouble(&mut agent, true).await;
    assert!(troubles[0].contains("cannot be used together"), "{troubles:?}");
    assert!(troubles[0].contains("what was read before stays in use"), "{troubles:?}");
    shake_hands(listen, "shop.example", &pair, &BOTH).await.expect("the former pair is still shown");
    std::fs::write(pair.key(), new_key).unwrap();
    trouble(&mut agent, false).await;
    for rubbish in
        [&b""[..], b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &old[..old.len() / 2]]
    {
        std::fs::write(pair.certificate(), rubbish).unwrap();
        trouble(&mut agent, true).await;
        std::fs::write(pair.certificate(), &old).unwrap();
        std::fs::write(pair.key(), &old_key).unwrap();
        trouble(&mut agent, false).await;
    }
    shake_hands(listen, "shop.example", &pair, &BOTH).await.expect("the pair of the files is shown");
}

#[tokio::test]
async fn a_certificate_is_reported_with_its_names_and_its_end() {
    let Stage { mut agent, pair, instance: _instance, _proxy, .. } = stage().await;
    let told = agent.report().await.routes.remove(0).certificate.expect("there is one");
    assert_eq!(told.names, ["shop.example"]);
    assert!(told.begins < told.ends, "{told:?}");
    pair.renew(&["Other.example", "*.shop.example", "10.0.0.1", "fd00::1"]);
    let begin = Instant::now();
    loop {
        let told = agent.report().await.routes.remove(0).certificate;
        let told = told.expect("the former one counts until there is another");
        if told.names == ["other.example", "*.shop.example", "10.0.0.1", "fd00::1"] {
            break;
        }
        assert!(begin.elapsed() < LONG, "{told:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_missing_file_is_told_and_used_when_it_comes() {
    let (proxy, listen, pair) = (Proxy::start(), free_address(), Pair::new(&["shop.example"]));
    let (instance, mut agent) = (Instance::http1().await, proxy.agent().await);
    std::fs::rename(pair.key(), pair.key().with_extension("away")).unwrap();
    agent.apply(1, vec![secure("public", listen, &instance, &pair, &[])]).await;
    let troubles = trouble(&mut agent, true).await;
    assert_eq!(troubles, [format!("TLS: {}: No such file or directory (os error 2)", pair.key().display())]);
    shake_hands(listen, "shop.example", &pair, &BOTH).await.unwrap_err();
    std::fs::rename(pair.key().with_extension("away"), pair.key()).unwrap();
    trouble(&mut agent, false).await;
    let mut client = Client::secure(listen, "shop.example", &pair, &BOTH).await;
    assert_eq!(client.get("/").await.status, 200);
}

#[tokio::test]
async fn the_name_chooses_the_certificate_and_the_route() {
    let (proxy, listen) = (Proxy::start(), free_address());
    let (shop, bank) = (Pair::new(&["shop.example", "www.shop.example"]), Pair::new(&["bank.example"]));
    let (for_shop, for_bank) = (Instance::http1().await, Instance::http1().await);
    let mut agent = proxy.agent().await;
    let routes = vec![
        secure("shop", listen, &for_shop, &shop, &["shop.example", "*.shop.example"]),
        secure("bank", listen, &for_bank, &bank, &["bank.example"]),
    ];
    assert_eq!(agent.apply(1, routes).await, [""; 0]);
    for (name, pair) in [("shop.example", &shop), ("www.shop.example", &shop), ("bank.example", &bank)] {
        let mut client = Client::secure(listen, name, pair, &["http/1.1"]).await;
        let answer = client.ask("GET", "/", &[("host", name)], empty()).await;
        assert_eq!((answer.status, answer.told()["host"]), (200, name));
    }
    assert_eq!((for_shop.connections(), for_bank.connections()), (1, 1));
    let mut client = Client::secure(listen, "shop.example", &shop, &BOTH).await;
    assert_eq!(client.ask("GET", "https://other.example/", &[], empty()).await.status, 404);
}

#[tokio::test]
async fn handshakes_that_never_end_are_ended_and_hinder_nobody() {
    let Stage { listen, pair, instance: _instance, _proxy, .. } = stage().await;
    let begin = Instant::now();
    let mut silent = Vec::new();
    for round in 0..1200 {
        let mut stream = TcpStream::connect(listen).await.unwrap();
        if round % 2 == 0 {
            // The beginning of a record that never ends.
            stream.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
        }
        silent.push(stream);
    }
    let mut client = Client::secure(listen, "shop.example", &pair, &BOTH).await;
    assert_eq!(client.get("/").await.status, 200, "among {} silent ones", silent.len());
    let ended = async {
        for stream in &mut silent {
            // A reset or an end.
            drop(stream.read(&mut [0; 8]).await);
        }
    };
    timeout(LONG, ended).await.expect("all are ended");
    println!("all ended after {:?}", begin.elapsed());
    assert_eq!(client.get("/").await.status, 200);
}

#[tokio::test]
async fn a_client_that_speaks_no_tls_is_not_served() {
    let Stage { listen, instance, _proxy, .. } = stage().await;
    let mut client = Wire::connect(listen).await;
    client.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    let answer = timeout(LONG, client.line()).await.unwrap();
    assert!(answer.is_none_or(|line| !line.contains("200")));
    assert_eq!(instance.connections(), 0);
}

#[tokio::test]
async fn a_plain_route_sends_its_clients_to_https() {
    let (proxy, listen) = (Proxy::start(), free_address());
    let (instance, mut agent) = (Instance::http1().await, proxy.agent().await);
    let instances = vec![self::instance("web-1", instance.address, Ready)];
    for (generation, port, location) in
        [(1, 443, "https://shop.example/a?b=c"), (2, 8443, "https://shop.example:8443/a?b=c")]
    {
        let carriage = Carriage { redirect_https: Some(port), ..Carriage::default() };
        agent
            .apply(
                generation,
                vec![service_route("plain", listen, Protocol::Http, instances.clone(), carriage)],
            )
            .await;
        for host in ["shop.example", "shop.example:8080"] {
            let answer = Client::http1(listen).await.ask("POST", "/a?b=c", &[("host", host)], empty()).await;
            assert_eq!((answer.status, answer.headers["location"].to_str().unwrap()), (308, location));
        }
    }
    assert_eq!(instance.connections(), 0);
}
