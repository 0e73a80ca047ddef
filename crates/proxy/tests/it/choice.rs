//! Service routes: who is chosen, who waits, who is refused, and how much is repeated.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use model::routes::InstanceRouteState::{Draining, Gone, Ready};
use model::routes::{RouteTable, ToProxy};
use model::system::traffic::Traffic;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::agent::{Agent, LONG, Proxy, free_address, instance, service_with};
use crate::client::Wire;

/// An instance that answers every request with its name after `pause`, whoever asks.
async fn answering(name: &'static str, pause: Duration) -> SocketAddr {
    serving(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len()), pause).await
}

async fn serving(answer: String, pause: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let mut wire = Wire::accept_now(&listener).await;
            let answer = answer.clone();
            tokio::spawn(async move {
                while wire.read_forever().await.is_some() {
                    sleep(pause).await;
                    wire.send(&answer).await;
                }
            });
        }
    });
    address
}

fn traffic(change: impl FnOnce(&mut Traffic)) -> Traffic {
    let mut traffic = Traffic::default();
    change(&mut traffic);
    traffic
}

/// A request with a cookie; the answer's body and the cookie that the client has then.
async fn visit(listen: SocketAddr, cookie: Option<&str>) -> (String, Option<String>) {
    let mut wire = Wire::connect(listen).await;
    let line = cookie.map_or(String::new(), |cookie| format!("Cookie: other=1; {cookie}\r\n"));
    wire.send(&format!("GET / HTTP/1.1\r\nHost: shop\r\n{line}\r\n")).await;
    let answer = wire.read().await.unwrap();
    assert_eq!(answer.status(), 200);
    let set = answer.headers.get("set-cookie").map(|set| {
        assert!(set.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{set}");
        set.split(';').next().unwrap().to_owned()
    });
    (answer.body, set.or(cookie.map(str::to_owned)))
}

#[tokio::test]
async fn a_client_with_a_cookie_stays_at_its_instance_whichever_node_it_asks() {
    let addresses = [answering("one", Duration::ZERO).await, answering("two", Duration::ZERO).await];
    let sticky = traffic(|traffic| traffic.sticky = Some("seat".into()));
    let endpoints =
        |first, second| vec![instance("web-1", addresses[0], first), instance("web-2", addresses[1], second)];
    let (proxies, listens) = ([Proxy::start(), Proxy::start()], [free_address(), free_address()]);
    let mut agents = vec![];
    for (proxy, listen) in proxies.iter().zip(listens) {
        let mut agent = proxy.agent().await;
        agent.say(&ToProxy::Cookies { key: "5".repeat(64) }).await;
        agent.apply(1, service_with(listen, endpoints(Ready, Ready), sticky.clone())).await;
        agents.push(agent);
    }
    let mut bodies = BTreeSet::new();
    for _ in 0..12 {
        let (body, cookie) = visit(listens[0], None).await;
        let cookie = cookie.expect("a client without a cookie gets one");
        assert!(cookie.starts_with("seat=") && !cookie.contains("web"), "{cookie}");
        for turn in 0..6 {
            let (again, same) = visit(listens[turn % 2], Some(&cookie)).await;
            assert_eq!((again, same), (body.clone(), Some(cookie.clone())), "on either node");
        }
        bodies.insert(body);
    }
    assert_eq!(bodies.len(), 2, "clients are spread");

    // Its instance stops: another one answers, without an error, and the client stays there from now on.
    let (body, cookie) = visit(listens[0], None).await;
    let (first, second) = if body == "one" { (Draining, Ready) } else { (Ready, Gone) };
    agents[1].apply(2, service_with(listens[1], endpoints(first, second), sticky.clone())).await;
    let (other, renewed) = visit(listens[1], cookie.as_deref()).await;
    assert_ne!(other, body);
    assert_ne!(renewed, cookie);
    assert_eq!(visit(listens[0], renewed.as_deref()).await, (other, renewed), "also where all are there");
    // What no proxy has made is no cookie.
    let (_, cookie) = visit(listens[0], Some("seat=web-1")).await;
    assert_ne!(cookie.as_deref(), Some("seat=web-1"));
}

#[tokio::test]
async fn beyond_the_limit_requests_wait_and_beyond_the_queue_they_are_refused_at_once() {
    let slow = answering("late", Duration::from_millis(400)).await;
    let (proxy, listen) = (Proxy::start(), free_address());
    let mut agent = proxy.agent().await;
    let limits = traffic(|traffic| {
        (traffic.limit, traffic.queue, traffic.queue_wait) = (Some(2), 3, Duration::from_secs(5));
    });
    agent.apply(1, service_with(listen, vec![instance("web-1", slow, Ready)], limits)).await;
    let mut clients = JoinSet::new();
    for number in 0..8_u32 {
        clients.spawn(async move {
            sleep(Duration::from_millis(20) * number).await;
            let mut wire = Wire::connect(listen).await;
            let begin = Instant::now();
            let answer = wire.get("/").await;
            (number, answer, begin.elapsed())
        });
    }
    sleep(Duration::from_millis(250)).await;
    assert_eq!(agent.report().await.routes[0].parked, 3, "it is told who waits");
    let mut seen = clients.join_all().await;
    seen.sort_by_key(|(number, _, _)| *number);
    for (number, answer, took) in seen {
        println!("{number}: {} after {took:?}", answer.status());
        match number {
            0..=4 => assert_eq!(answer.status(), 200, "two are served, three wait"),
            _ => {
                assert_eq!((answer.status(), answer.headers["retry-after"].as_str()), (503, "1"));
                let text =
                    "Service web is busy: every instance has the 2 requests under way that it may have.\n";
                assert_eq!(answer.body, text);
                assert!(took < Duration::from_millis(300), "refused at once, not after {took:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_request_does_not_wait_for_longer_than_it_may() {
    let hanging = answering("never", Duration::from_secs(3600)).await;
    let (proxy, listen) = (Proxy::start(), free_address());
    let mut agent = proxy.agent().await;
    let limits = traffic(|traffic| {
        (traffic.limit, traffic.queue_wait) = (Some(1), Duration::from_millis(300));
    });
    agent.apply(1, service_with(listen, vec![instance("web-1", hanging, Ready)], limits)).await;
    let mut first = Wire::connect(listen).await;
    first.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    sleep(Duration::from_millis(100)).await;
    let begin = Instant::now();
    let answer = Wire::connect(listen).await.get("/").await;
    assert_eq!(answer.status(), 503);
    assert!((290..3000).contains(&begin.elapsed().as_millis()), "{:?}", begin.elapsed());
    // The first client gives up: its place is free for who waits.
    let waiting = tokio::spawn(async move { Wire::connect(listen).await.get("/").await.status() });
    sleep(Duration::from_millis(50)).await;
    drop(first);
    sleep(Duration::from_millis(100)).await;
    let other = answering("here", Duration::ZERO).await;
    let limits = traffic(|traffic| traffic.limit = Some(1));
    let both = vec![instance("web-1", hanging, Gone), instance("web-2", other, Ready)];
    agent.apply(2, service_with(listen, both, limits)).await;
    assert_eq!(timeout(LONG, waiting).await.unwrap().unwrap(), 200);
}

/// All instances fail: what is repeated is at most a fifth of what clients sent.
#[tokio::test(flavor = "multi_thread")]
async fn when_all_fail_repeats_add_a_fifth_at_most() {
    let counted = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let (proxy, listen) = (Proxy::start(), free_address());
    let mut agent = proxy.agent().await;
    let mut instances = vec![];
    for number in 1..=3 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        instances.push(instance(&format!("web-{number}"), listener.local_addr().unwrap(), Ready));
        let counted = counted.clone();
        tokio::spawn(async move {
            loop {
                let (mut wire, counted) = (Wire::accept_now(&listener).await, counted.clone());
                tokio::spawn(async move {
                    while let Some(request) = wire.read_forever().await {
                        let is_probe = request.first.starts_with("OPTIONS");
                        counted.fetch_add(u64::from(!is_probe), std::sync::atomic::Ordering::Relaxed);
                        wire.send("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n").await;
                    }
                });
            }
        });
    }
    agent.apply(1, service_with(listen, instances, Traffic::default())).await;
    let mut clients = JoinSet::new();
    for _ in 0..8 {
        clients.spawn(async move {
            let mut wire = Wire::connect(listen).await;
            for _ in 0..250 {
                assert_eq!(wire.get("/").await.status(), 503);
            }
        });
    }
    clients.join_all().await;
    let (sent, served) = (2000, counted.load(std::sync::atomic::Ordering::Relaxed));
    println!("{served} requests reached instances for {sent} of clients");
    assert!(served <= sent + sent / 5, "{served} for {sent}");
    let report = agent.report().await.routes.remove(0);
    assert!(report.panic && report.ejected.len() == 3, "and it is said: {report:?}");
}

/// The proxy's own site answers; the other one only when there is nobody left.
#[tokio::test]
async fn the_own_site_is_preferred_and_the_other_one_takes_over() {
    let (near, far) = (answering("near", Duration::ZERO).await, answering("far", Duration::ZERO).await);
    let (proxy, listen) = (Proxy::start(), free_address());
    let mut agent = proxy.agent().await;
    let table = |generation, state| {
        let mut away = instance("web-2", far, Ready);
        away.site = "west".into();
        let both = vec![instance("web-1", near, state), away];
        let routes = service_with(listen, both, Traffic::default());
        ToProxy::Table(RouteTable { generation, site: Some("east".into()), routes })
    };
    agent.say(&table(1, Ready)).await;
    agent.applied(1).await;
    let mut wire = Wire::connect(listen).await;
    for _ in 0..20 {
        assert_eq!(wire.get("/").await.body, "near");
    }
    agent.say(&table(2, Draining)).await;
    agent.applied(2).await;
    assert_eq!(wire.get("/").await.body, "far");
}

/// Clients that are many and one instance that is slow: who is sent to the others does not notice.
#[tokio::test(flavor = "multi_thread")]
async fn one_slow_instance_leaves_a_crowd_unaffected() {
    let slow = answering("slow", Duration::from_secs(2)).await;
    let (one, two) = (answering("fast", Duration::ZERO).await, answering("fast", Duration::ZERO).await);
    let (proxy, listen) = (Proxy::start(), free_address());
    let mut agent: Agent = proxy.agent().await;
    let all =
        vec![instance("web-1", one, Ready), instance("web-2", two, Ready), instance("web-3", slow, Ready)];
    agent.apply(1, service_with(listen, all, Traffic::default())).await;
    let mut clients = JoinSet::new();
    for number in 0..1000_u32 {
        clients.spawn(async move {
            let mut wire = Wire::connect(listen).await;
            let mut slow = 0;
            sleep(Duration::from_millis(2) * (number % 500)).await;
            for _ in 0..4 {
                // A POST is never sent twice: it shows where its client was sent.
                wire.send("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 0\r\n\r\n").await;
                let answer = wire.read().await.unwrap();
                assert_eq!(answer.status(), 200);
                slow += u32::from(answer.body == "slow");
                sleep(Duration::from_secs(1)).await;
            }
            slow
        });
    }
    let slow: u32 = clients.join_all().await.into_iter().sum();
    println!("{slow} of 4000 requests were sent to the slow instance");
    assert!(slow < 400, "{slow} of 4000: a tenth would still be too many");
}

/// Packets to one of two instances go nowhere: what was not sent goes to the other one, whatever it is.
#[tokio::test]
async fn a_black_hole_holds_up_no_request_and_not_even_a_post() {
    // Nobody accepts here and there is room for one in the queue: the kernel drops who comes next.
    let hole = TcpSocket::new_v4().unwrap();
    hole.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let hole = hole.listen(0).unwrap();
    let address = hole.local_addr().unwrap();
    let connect = || timeout(Duration::from_millis(100), TcpStream::connect(address));
    let mut fill = vec![];
    while let Ok(Ok(stream)) = connect().await {
        fill.push(stream);
        assert!(fill.len() < 10, "the queue is never full");
    }
    let (proxy, listen) = (Proxy::start(), free_address());
    let mut agent = proxy.agent().await;
    let fine = instance("web-1", answering("fine", Duration::ZERO).await, Ready);
    agent.apply(1, service_with(listen, vec![fine.clone()], Traffic::default())).await;
    let mut wire = Wire::connect(listen).await;
    for _ in 0..20 {
        assert_eq!(wire.get("/").await.body, "fine");
    }
    let both = vec![fine, instance("web-2", address, Ready)];
    let at_once = traffic(|traffic| traffic.slow_start = Duration::ZERO);
    agent.apply(2, service_with(listen, both, at_once)).await;
    let mut slowest = Duration::ZERO;
    for _ in 0..60 {
        let begin = Instant::now();
        wire.send("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 2\r\n\r\nhi").await;
        assert_eq!(wire.read().await.unwrap().body, "fine");
        slowest = slowest.max(begin.elapsed());
    }
    println!("the slowest POST took {slowest:?}");
    assert!(slowest < Duration::from_millis(900), "{slowest:?}: the kernel tries again after a second only");
    assert_eq!(agent.report().await.routes[0].ejected, ["web-2"], "it is found out without a GET");
}
