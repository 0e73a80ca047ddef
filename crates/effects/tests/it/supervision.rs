//! Real instances that freeze, fall silent, are not ready, need too much memory, or wait for others.

use std::fs;
use std::time::{Duration, Instant};

use effects::process::{MemoryGroup, Signal, signal_process};
use effects::service::{InstanceSpec, InstanceState, InstanceStatus};
use model::routes::InstanceRouteState;
use model::system::Probe;

use crate::services::{Root, is_ready, is_running, until};

fn is_unready(status: &InstanceStatus) -> bool {
    matches!(status.state, InstanceState::NotReady { .. })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_instance_is_killed_and_replaced_whatever_its_health_check_is() {
    for probe in [Probe::Process, Probe::Tcp] {
        let root = Root::new();
        let mut supervisor = root.supervisor();
        let mut states = supervisor.states();
        let mut spec = root.web("web-1");
        spec.health.probe = probe;
        supervisor.apply(vec![spec]);
        let first = until(&mut states, "web-1", is_ready).await.process.unwrap();
        let frozen = Instant::now();
        assert!(signal_process(first, Signal::STOP));
        let seen = until(&mut states, "web-1", is_unready).await;
        assert!(seen.state.to_string().contains("its process is stopped (SIGSTOP)"), "{}", seen.state);
        let replaced =
            until(&mut states, "web-1", |status| is_ready(status) && status.process != Some(first)).await;
        println!("frozen: replaced after {:?}", frozen.elapsed());
        assert!(!is_running(first));
        assert_eq!(replaced.starts, 2);
        supervisor.stop_all().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_gives_no_answer_is_replaced_and_one_that_answers_badly_is_not() {
    let root = Root::new();
    let mut supervisor = root.supervisor();
    let mut states = supervisor.states();
    let mut spec = root.script("web-1", "exec sleep 1000");
    spec.health.probe = Probe::Command {
        command: ["/bin/sh", "-c", "test ! -e \"$SILENT\" || sleep 1000; test ! -e \"$BAD\""]
            .map(str::to_owned)
            .into(),
    };
    spec.health.timeout = Duration::from_millis(200);
    spec.health.restart_after = Duration::from_secs(1);
    let (silent, bad) = (root.path("silent"), root.path("bad"));
    spec.env.insert("SILENT".into(), silent.display().to_string());
    spec.env.insert("BAD".into(), bad.display().to_string());
    supervisor.apply(vec![spec]);
    let first = until(&mut states, "web-1", is_ready).await.process;
    fs::write(&bad, "").unwrap();
    until(&mut states, "web-1", is_unready).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(states.borrow()["web-1"].process, first, "it answers, so it lives");
    fs::write(&silent, "").unwrap();
    let ended =
        until(&mut states, "web-1", |status| matches!(status.state, InstanceState::Backoff { .. })).await;
    let told = ended.state.to_string();
    assert!(
        told.starts_with("was ended because it did not live: /bin/sh did not end within 200ms"),
        "{told}"
    );
    fs::remove_file(&silent).unwrap();
    fs::remove_file(&bad).unwrap();
    until(&mut states, "web-1", |status| is_ready(status) && status.process != first).await;
    supervisor.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_is_not_ready_gets_no_requests_and_is_not_restarted() {
    let root = Root::new();
    let mut supervisor = root.supervisor();
    let mut states = supervisor.states();
    let mut spec = root.web("web-1");
    let mut ready = spec.health.clone();
    ready.probe = Probe::Http { path: "/ready".into() };
    spec.ready = Some(ready);
    spec.health.probe = Probe::Tcp;
    spec.health.restart_after = Duration::from_secs(1);
    fs::write(root.path("status"), "503 Service Unavailable").unwrap();
    supervisor.apply(vec![spec]);
    // Before it listens nobody answers.
    let answers = |status: &InstanceStatus| matches!(&status.state, InstanceState::Starting { because: Some(because), .. } if because.contains("/ready"));
    let starting = until(&mut states, "web-1", answers).await;
    assert_eq!(starting.state.to_string(), "starting: GET /ready answered 503 Service Unavailable");
    assert_eq!(starting.state.route_state(), InstanceRouteState::NotReady);
    fs::remove_file(root.path("status")).unwrap();
    until(&mut states, "web-1", is_ready).await;
    fs::write(root.path("status.new"), "503 Service Unavailable").unwrap();
    fs::rename(root.path("status.new"), root.path("status")).unwrap();
    until(&mut states, "web-1", is_unready).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let after = states.borrow()["web-1"].clone();
    assert_eq!((after.process, after.starts), (starting.process, 1), "not ready is no reason to restart");
    supervisor.stop_all().await;
}

/// A program that takes ever more memory.
const GREEDY: &str = "exec dd if=/dev/zero of=/dev/null bs=256M count=1";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_needs_more_than_its_memory_is_told_by_that() {
    let root = Root::new();
    let mut supervisor = root.supervisor();
    let mut states = supervisor.states();
    let limit = 64 << 20;
    let greedy = InstanceSpec { memory: Some(limit), ..root.script("web-1", GREEDY) };
    let modest = InstanceSpec { memory: Some(limit), ..root.web("web-2") };
    supervisor.apply(vec![greedy, modest]);
    let modest = until(&mut states, "web-2", is_ready).await;
    match MemoryGroup::create("effects-test", limit) {
        Ok(group) => {
            group.remove();
            let ended =
                until(&mut states, "web-1", |status| matches!(status.state, InstanceState::Backoff { .. }))
                    .await;
            let told = "ended with an out-of-memory kill: it needs more than its limit of 64MiB, waits for";
            assert!(ended.state.to_string().starts_with(told), "{}", ended.state);
            assert_eq!(modest.unlimited, None);
        }
        // Whoever may not limit memory says so.
        Err(because) => assert_eq!(modest.unlimited, Some(because)),
    }
    supervisor.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_start_waits_for_others_and_what_runs_already_is_adopted() {
    let root = Root::new();
    let mut supervisor = root.supervisor();
    let mut states = supervisor.states();
    let free = root.web("web-1");
    let held = InstanceSpec { hold: Some("database:orders".to_owned()), ..free.clone() };
    supervisor.apply(vec![held.clone()]);
    let waiting = until(&mut states, "web-1", |_| true).await;
    assert_eq!(waiting.state.to_string(), "waits for database:orders");
    assert_eq!((waiting.process, waiting.starts), (None, 0));
    supervisor.apply(vec![free]);
    let first = until(&mut states, "web-1", is_ready).await;
    // The database is gone again: what runs is not touched, and starts again by itself.
    supervisor.apply(vec![held.clone()]);
    supervisor.considered().await;
    assert_eq!(states.borrow()["web-1"].process, first.process);
    signal_process(first.process.unwrap(), Signal::KILL);
    let second =
        until(&mut states, "web-1", |status| is_ready(status) && status.process != first.process).await;
    // An agent that comes back adopts it.
    drop(supervisor);
    let mut next = root.supervisor();
    let mut states = next.states();
    next.apply(vec![held]);
    assert_eq!(until(&mut states, "web-1", is_ready).await.process, second.process);
    next.stop_all().await;
}
