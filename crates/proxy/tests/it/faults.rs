//! One of three instances fails under load: no request may fail.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use model::routes::InstanceRouteState::Ready;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};

use crate::agent::{Agent, LONG, Proxy, free_address, instance, service};
use crate::client::Wire;

/// A process of the example service; ends when dropped.
struct Instance {
    process: Child,
    address: SocketAddr,
    /// While this file exists, the instance answers 500.
    broken: PathBuf,
    _directory: TempDir,
}

impl Instance {
    async fn start(address: SocketAddr) -> Self {
        let program = example("instance");
        let directory = tempfile::tempdir().unwrap();
        let broken = directory.path().join("broken");
        let process = Command::new(&program).arg(address.to_string()).arg(&broken).spawn();
        let process = process.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let instance = Self { process, address, broken, _directory: directory };
        let begin = Instant::now();
        while tokio::net::TcpStream::connect(address).await.is_err() {
            assert!(begin.elapsed() < LONG, "the instance does not start");
            sleep(Duration::from_millis(5)).await;
        }
        instance
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.process.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// An example program of this crate, which is built together with its tests.
fn example(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.parent().and_then(|deps| deps.parent()).unwrap().join("examples").join(name)
}

/// What 16 clients with kept connections saw, who send 1000 requests a second together.
#[derive(Debug, Default)]
struct Seen {
    answered: usize,
    failed: usize,
    slowest: Duration,
}

async fn load(listen: SocketAddr, lasting: Duration) -> Seen {
    let mut clients = JoinSet::new();
    let end = Instant::now() + lasting;
    for _ in 0..16 {
        clients.spawn(async move {
            let mut seen = Seen::default();
            let mut wire = Wire::connect(listen).await;
            let mut pace = interval(Duration::from_millis(16));
            while Instant::now() < end {
                pace.tick().await;
                let begin = Instant::now();
                let answer = wire.get("/").await;
                seen.slowest = seen.slowest.max(begin.elapsed());
                seen.answered += usize::from(answer.status() == 200);
                seen.failed += usize::from(answer.status() != 200);
            }
            seen
        });
    }
    let mut sum = Seen::default();
    while let Some(seen) = clients.join_next().await {
        let seen = seen.expect("no client's connection breaks");
        sum.answered += seen.answered;
        sum.failed += seen.failed;
        sum.slowest = sum.slowest.max(seen.slowest);
    }
    sum
}

async fn three(listen: SocketAddr, agent: &mut Agent) -> Vec<Instance> {
    let mut instances = Vec::new();
    for _ in 0..3 {
        instances.push(Instance::start(free_address()).await);
    }
    let named = (1..).zip(&instances);
    let endpoints = named.map(|(number, process)| instance(&format!("web-{number}"), process.address, Ready));
    agent.apply(1, service(listen, endpoints.collect())).await;
    instances
}

async fn fault(hurt: impl FnOnce(&Instance), heal: impl AsyncFnOnce(&mut Instance)) -> Seen {
    let (proxy, listen) = (Proxy::start(), free_address());
    let mut agent = proxy.agent().await;
    let mut instances = three(listen, &mut agent).await;
    let loading = tokio::spawn(load(listen, Duration::from_secs(4)));
    sleep(Duration::from_secs(1)).await;
    hurt(&instances[0]);
    sleep(Duration::from_millis(1200)).await;
    let report = agent.report().await.routes.remove(0);
    assert_eq!(report.ejected, ["web-1"], "live traffic has found it out");
    heal(&mut instances[0]).await;
    let seen = loading.await.unwrap();
    let report = agent.report().await.routes.remove(0);
    println!("{seen:?}, {} repeated", report.retried);
    assert_eq!(seen.failed, 0);
    assert_eq!(report.failed, 0);
    assert!(report.ejected.is_empty(), "it takes part again by itself: {report:?}");
    assert!(!report.panic);
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_instance_fails_no_request() {
    let seen = fault(
        |instance| instance.signal(Signal::KILL),
        async |instance| {
            drop(instance.process.wait());
            *instance = Instance::start(instance.address).await;
        },
    );
    assert!(seen.await.answered > 2000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_instance_fails_no_request() {
    let seen =
        fault(|instance| instance.signal(Signal::STOP), async |instance| instance.signal(Signal::CONT));
    assert!(seen.await.answered > 2000);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_answers_500_fails_no_request() {
    let seen = fault(
        |instance| std::fs::write(&instance.broken, "").unwrap(),
        async |instance| std::fs::remove_file(&instance.broken).unwrap(),
    );
    assert!(seen.await.answered > 2000);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_all_refuse_it_is_said_and_repeats_stay_bounded() {
    let (proxy, listen) = (Proxy::start(), free_address());
    let mut agent = proxy.agent().await;
    let instances = (1..=3).map(|number| instance(&format!("web-{number}"), free_address(), Ready)).collect();
    agent.apply(1, service(listen, instances)).await;
    let mut wire = Wire::connect(listen).await;
    for _ in 0..10 {
        let answer = wire.get("/").await;
        assert_eq!(answer.status(), 503);
        let text = "Service web cannot answer: web-1 does not answer, web-2 does not answer, web-3 does not answer.\n";
        assert_eq!(answer.body, text);
    }
    let report = agent.report().await.routes.remove(0);
    assert!(report.panic, "unfit instances were used, and it is said");
    assert_eq!((report.accepted, report.failed, report.ejected.len()), (10, 10, 3));
}
