//! Service routes to addresses that nobody supervises: the proxy itself asks how they do.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use model::routes::{Answering, External, Route, RouteTarget};
use model::system::{ExternalAddress, Health, Probe};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use crate::agent::{Agent, LONG, Proxy, free_address, service};
use crate::client::Wire;

/// A program of somebody else's: it answers `/alive` as told, and everything else with its name.
struct Stranger {
    address: SocketAddr,
    works: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Stranger {
    async fn start(name: &'static str, works: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (works, asked) = (Arc::new(AtomicBool::new(works)), Arc::new(AtomicUsize::new(0)));
        let (told, count) = (works.clone(), asked.clone());
        let task = tokio::spawn(async move {
            // With the program its connections end.
            let mut visits = JoinSet::new();
            loop {
                let mut wire = Wire::accept_now(&listener).await;
                let (told, count) = (told.clone(), count.clone());
                visits.spawn(async move {
                    while let Some(request) = wire.read_forever().await {
                        let is_question = request.first.starts_with("GET /alive ");
                        count.fetch_add(usize::from(is_question), Ordering::SeqCst);
                        let status =
                            if is_question && !told.load(Ordering::SeqCst) { "503 No" } else { "200 OK" };
                        let length = name.len();
                        wire.send(&format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{name}"))
                            .await;
                    }
                });
            }
        });
        Self { address, works, asked, task }
    }

    fn works(&self, works: bool) {
        self.works.store(works, Ordering::SeqCst);
    }
}

fn external(listen: SocketAddr, addresses: &[SocketAddr], probe: Probe) -> Vec<Route> {
    let mut routes = service(listen, vec![]);
    let RouteTarget::Service(target) = &mut routes[0].target else { panic!("a route to a service") };
    target.traffic.slow_start = Duration::ZERO;
    let listed = |address: &SocketAddr| ExternalAddress { address: *address, site: None };
    let health = Health {
        probe,
        interval: Duration::from_millis(50),
        timeout: Duration::from_millis(500),
        healthy_after: 1,
        unhealthy_after: 2,
        restart_after: Duration::from_secs(10),
    };
    target.external = Some(External { addresses: addresses.iter().map(listed).collect(), health });
    routes
}

fn page() -> Probe {
    Probe::Http { path: "/alive".to_owned() }
}

/// What the proxy says of an address, once that is `expected`.
async fn said(agent: &mut Agent, address: SocketAddr, expected: fn(&Answering) -> bool) -> Answering {
    let end = Instant::now() + LONG;
    loop {
        let report = agent.report().await;
        let of = |instance: &&model::routes::InstanceReport| instance.id == address.to_string();
        let known = report.routes[0].instances.iter().find(of).and_then(|found| found.answering.clone());
        match known {
            Some(known) if expected(&known) => return known,
            other => assert!(Instant::now() < end, "{address}: {other:?}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

fn good(answering: &Answering) -> bool {
    *answering == Answering::Good
}

fn bad(answering: &Answering) -> bool {
    matches!(answering, Answering::Bad { .. })
}

/// Who answers twenty requests, none of which may fail.
async fn answering(listen: SocketAddr) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for _ in 0..20 {
        let mut wire = Wire::connect(listen).await;
        let answer = wire.get("/").await;
        assert_eq!(answer.status(), 200, "{}", answer.body);
        names.insert(answer.body);
    }
    names
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn an_address_that_nobody_supervises_takes_requests_only_while_its_page_is_good() {
    let (one, two) = (Stranger::start("one", true).await, Stranger::start("two", false).await);
    let (proxy, listen) = (Proxy::start(), free_address());
    let mut agent = proxy.agent().await;
    agent.apply(1, external(listen, &[one.address, two.address], page())).await;
    said(&mut agent, one.address, good).await;
    let told = said(&mut agent, two.address, bad).await;
    assert_eq!(told, Answering::Bad { because: "answers with status 503".to_owned() });
    assert_eq!(answering(listen).await, names(&["one"]));

    two.works(true);
    said(&mut agent, two.address, good).await;
    assert_eq!(answering(listen).await, names(&["one", "two"]));

    one.task.abort();
    let Answering::Bad { because } = said(&mut agent, one.address, bad).await else { unreachable!() };
    assert!(because.starts_with("takes no connection: ") || because.starts_with("breaks off: "), "{because}");
    assert_eq!(answering(listen).await, names(&["two"]));

    // When none is good, one that answers requests all the same is better than nobody.
    two.works(false);
    said(&mut agent, two.address, bad).await;
    assert_eq!(answering(listen).await, names(&["two"]));

    agent.apply(2, external(listen, &[one.address], page())).await;
    let asked = two.asked.load(Ordering::SeqCst);
    sleep(Duration::from_millis(400)).await;
    assert!(two.asked.load(Ordering::SeqCst) <= asked + 1, "nobody asks what is in no table");
}

#[tokio::test]
async fn without_a_page_a_connection_is_enough_and_nothing_need_be_asked() {
    let one = Stranger::start("one", false).await;
    let (proxy, listen, closed) = (Proxy::start(), free_address(), free_address());
    let mut agent = proxy.agent().await;
    agent.apply(1, external(listen, &[one.address, closed], Probe::Tcp)).await;
    said(&mut agent, one.address, good).await;
    said(&mut agent, closed, bad).await;
    assert_eq!(answering(listen).await, names(&["one"]));
    assert_eq!(one.asked.load(Ordering::SeqCst), 0);

    agent.apply(2, external(listen, &[one.address], Probe::Process)).await;
    let report = agent.report().await;
    assert_eq!(report.routes[0].instances[0].answering, None);
    assert_eq!(answering(listen).await, names(&["one"]));
    agent.apply(3, external(listen, &[one.address], page())).await;
    said(&mut agent, one.address, bad).await;
}

#[tokio::test]
async fn an_address_that_hangs_is_late_and_hurts_nobody_else() {
    let (one, silent) = (Stranger::start("one", true).await, TcpListener::bind("127.0.0.1:0").await.unwrap());
    let hangs = silent.local_addr().unwrap();
    let (proxy, listen) = (Proxy::start(), free_address());
    let mut agent = proxy.agent().await;
    agent.apply(1, external(listen, &[one.address, hangs], page())).await;
    said(&mut agent, one.address, good).await;
    let told = said(&mut agent, hangs, bad).await;
    assert_eq!(told, Answering::Bad { because: "gives no answer within 500ms".to_owned() });
    let all = timeout(LONG, answering(listen)).await.expect("nobody waits for it");
    assert_eq!(all, names(&["one"]));
}
