//! Supervision of real instances: a small web server that is killed, misbehaves, is stopped, and outlives its supervisor.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use effects::process::{
    MARK, ProcessId, Registry, Signal, Spawn, facts_of, processes_of, session_of, signal_process,
    spawn_detached,
};
use effects::service::logs::{self, Follow, Limits};
use effects::service::{CRASH_LOOP, InstanceSpec, InstanceState, InstanceStatus, States, Supervisor};
use model::routes::InstanceRouteState;
use model::system::{Health, Probe};
use tokio::sync::watch;

use crate::roles;

/// A directory of one agent; ends whatever was started from it when dropped.
pub(crate) struct Root {
    directory: tempfile::TempDir,
}

impl Root {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What an agent does at its start.
    pub(crate) fn supervisor(&self) -> Supervisor {
        Supervisor::new(Registry::open(&self.path("processes")).unwrap(), Limits::default())
    }

    /// An instance of the web server on a port of its own.
    pub(crate) fn web(&self, id: &str) -> InstanceSpec {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let env = BTreeMap::from([
            roles::role_variable("serve"),
            ("PORT".to_owned(), address.port().to_string()),
            ("STATUS".to_owned(), self.path("status").display().to_string()),
        ]);
        InstanceSpec {
            id: id.to_owned(),
            service: "web".into(),
            command: [roles::program()].into_iter().chain(roles::self_arguments()).collect(),
            container: None,
            env,
            cwd: self.path("services/web").join(id),
            user: None,
            address,
            health: Health {
                probe: Probe::Http { path: "/healthz".into() },
                interval: Duration::from_millis(100),
                timeout: Duration::from_millis(500),
                healthy_after: 1,
                unhealthy_after: 2,
                restart_after: Duration::from_secs(10),
            },
            ready: None,
            memory: None,
            hold: None,
            stop_grace: Duration::from_secs(5),
            log: logs::path(&self.path("log"), &"web".into(), id),
            dispensable: vec![],
            replace: true,
        }
    }

    /// An instance that runs a shell script and is ready when it runs.
    pub(crate) fn script(&self, id: &str, script: &str) -> InstanceSpec {
        let mut spec = self.web(id);
        spec.command = ["/bin/sh", "-c", script].map(str::to_owned).into();
        spec.health.probe = Probe::Process;
        spec
    }

    fn log(&self, id: &str) -> String {
        fs::read_to_string(logs::path(&self.path("log"), &"web".into(), id)).unwrap_or_default()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let prefix = self.path("processes").display().to_string();
        let ours = |mark: std::ffi::OsString| mark.to_string_lossy().starts_with(&prefix);
        for facts in processes_of(|facts| facts.environment_variable(MARK).is_some_and(ours)) {
            signal_process(facts.id, Signal::KILL);
        }
    }
}

/// Waits until `id` fulfils `wanted`.
pub(crate) async fn until(
    states: &mut watch::Receiver<States>,
    id: &str,
    wanted: impl Fn(&InstanceStatus) -> bool,
) -> InstanceStatus {
    let seen = states.wait_for(|states| states.get(id).is_some_and(&wanted));
    let seen = tokio::time::timeout(Duration::from_secs(15), seen)
        .await
        .map(|states| states.unwrap().get(id).cloned());
    seen.unwrap_or_else(|_| panic!("{id} never came there")).unwrap()
}

pub(crate) fn is_ready(status: &InstanceStatus) -> bool {
    status.state == InstanceState::Ready
}

pub(crate) fn is_running(id: ProcessId) -> bool {
    facts_of(id.pid).is_some_and(|facts| facts.id == id && !facts.is_dead())
}

async fn vanished(id: ProcessId) {
    let begin = Instant::now();
    while is_running(id) {
        assert!(begin.elapsed() < Duration::from_secs(10), "{id} still runs");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_instance_is_missed_within_milliseconds_and_starts_again() {
    let root = Root::new();
    let mut supervisor = root.supervisor();
    let mut states = supervisor.states();
    supervisor.apply(vec![root.web("web-1")]);
    let first = until(&mut states, "web-1", is_ready).await;
    assert_eq!(first.starts, 1);
    let killed = Instant::now();
    assert!(signal_process(first.process.unwrap(), Signal::KILL));
    let gone = until(&mut states, "web-1", |status| status.state != InstanceState::Ready).await;
    let seen = killed.elapsed();
    assert_eq!(gone.state.route_state(), InstanceRouteState::Gone);
    assert_eq!(gone.state.to_string(), "ended with signal 9 (SIGKILL), waits for its next start (1 crash)");
    let again = until(&mut states, "web-1", is_ready).await;
    println!("kill seen after {seen:?}, ready again after {:?}", killed.elapsed());
    assert!(seen < Duration::from_millis(50), "{seen:?}");
    assert_eq!(again.starts, 2);
    assert_ne!(again.process, first.process);
    supervisor.stop_all().await;
    assert!(!is_running(again.process.unwrap()));
    assert!(states.borrow().is_empty());
    assert_eq!(fs::read_dir(root.path("processes")).unwrap().count(), 0, "nothing is recorded any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_agent_adopts_what_runs_and_takes_no_traffic_from_it() {
    let root = Root::new();
    let spec = root.web("web-1");
    let mut first = root.supervisor();
    let mut states = first.states();
    first.apply(vec![spec.clone()]);
    let before = until(&mut states, "web-1", is_ready).await;
    drop(first);

    let mut second = root.supervisor();
    let mut states = second.states();
    second.apply(vec![spec.clone()]);
    second.settled().await;
    let adopted = states.borrow_and_update()["web-1"].clone();
    assert_eq!(adopted.state, InstanceState::Ready, "its first state already");
    assert_eq!((adopted.process, adopted.starts), (before.process, 0));
    // It is watched and checked like one of our own.
    // In one step: half a status is no HTTP.
    fs::write(root.path("status.new"), "503 Service Unavailable").unwrap();
    fs::rename(root.path("status.new"), root.path("status")).unwrap();
    let sick = until(&mut states, "web-1", |status| status.state != InstanceState::Ready).await;
    assert_eq!(sick.state.to_string(), "not ready: GET /healthz answered 503 Service Unavailable");
    fs::remove_file(root.path("status")).unwrap();
    until(&mut states, "web-1", is_ready).await;
    let killed = Instant::now();
    signal_process(before.process.unwrap(), Signal::KILL);
    until(&mut states, "web-1", |status| status.state != InstanceState::Ready).await;
    assert!(killed.elapsed() < Duration::from_millis(50), "{:?}", killed.elapsed());
    let own = until(&mut states, "web-1", is_ready).await;

    // An agent that comes back with another command for it replaces it; other checks alone do not.
    drop(second);
    let mut third = root.supervisor();
    let mut states = third.states();
    let mut gentler = spec.clone();
    gentler.health.interval = Duration::from_millis(50);
    third.apply(vec![gentler]);
    assert_eq!(until(&mut states, "web-1", is_ready).await.process, own.process);
    let mut changed = spec.clone();
    changed.env.insert("COLOUR".into(), "blue".into());
    // It serves on until it is its turn.
    third.apply(vec![InstanceSpec { replace: false, ..changed.clone() }]);
    assert_eq!(until(&mut states, "web-1", |status| status.outdated).await.process, own.process);
    // What is dispensable makes no difference.
    let nothing_new = InstanceSpec { dispensable: vec!["blue".into()], ..changed.clone() };
    let mut before = spec.clone();
    before.env.insert("COLOUR".into(), String::new());
    assert_eq!(nothing_new.launch_digest(), before.launch_digest());
    third.apply(vec![changed]);
    let replaced =
        until(&mut states, "web-1", |status| is_ready(status) && status.process != own.process).await;
    assert!(!is_running(own.process.unwrap()));
    assert_eq!(replaced.starts, 1);
    third.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_earlier_agent_left_running_and_nobody_wants_is_stopped() {
    let root = Root::new();
    let mut first = root.supervisor();
    let mut states = first.states();
    first.apply(vec![root.web("web-1"), root.web("web-2")]);
    let one = until(&mut states, "web-1", is_ready).await.process.unwrap();
    let two = until(&mut states, "web-2", is_ready).await.process.unwrap();
    drop(first);
    let second = root.supervisor();
    let wanted = [root.web("web-2")];
    second.stop_leftovers(&wanted, &Default::default()).await.unwrap();
    vanished(one).await;
    assert!(is_running(two));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_loop_backs_off_and_is_visible() {
    let root = Root::new();
    let mut supervisor = root.supervisor();
    let mut states = supervisor.states();
    let begin = Instant::now();
    supervisor.apply(vec![root.script("web-1", "echo about to fail; exit 3")]);
    let looping = until(&mut states, "web-1", |status| status.state.is_crash_loop()).await;
    println!("crash loop after {:?}: {}", begin.elapsed(), looping.state);
    assert!(
        looping.state.to_string().starts_with("ended with exit code 3, waits for its next start (5 crashes")
    );
    assert_eq!(looping.starts, CRASH_LOOP);
    let told = until(&mut states, "web-1", |status| !status.last_lines.is_empty()).await;
    assert_eq!(told.last_lines.last().map(String::as_str), Some("about to fail"));
    // 100 + 200 + 400 + 800 ms of waiting.
    assert!((1500..4000).contains(&begin.elapsed().as_millis()), "{:?}", begin.elapsed());
    assert_eq!(root.log("web-1"), "about to fail\n".repeat(5));
    supervisor.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_does_not_exist_is_said_in_words() {
    let root = Root::new();
    let mut supervisor = root.supervisor();
    let mut states = supervisor.states();
    let mut spec = root.web("web-1");
    spec.command = vec!["/no/such/shop".into()];
    supervisor.apply(vec![spec]);
    let failed =
        until(&mut states, "web-1", |status| matches!(status.state, InstanceState::Backoff { .. })).await;
    assert!(
        failed.state.to_string().contains("cannot start /no/such/shop: No such file or directory"),
        "{}",
        failed.state
    );
    supervisor.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_ignores_the_request_to_end_is_killed_after_its_grace() {
    let root = Root::new();
    let mut supervisor = root.supervisor();
    let mut states = supervisor.states();
    let mut spec = root.web("web-1");
    spec.env.insert("STUBBORN".into(), "yes".into());
    spec.stop_grace = Duration::from_millis(400);
    supervisor.apply(vec![spec]);
    let process = until(&mut states, "web-1", is_ready).await.process.unwrap();
    let begin = Instant::now();
    supervisor.apply(Vec::new());
    let stopping = until(&mut states, "web-1", |status| status.state == InstanceState::Stopping).await;
    assert_eq!(stopping.state.route_state(), InstanceRouteState::Draining);
    vanished(process).await;
    let took = begin.elapsed();
    assert!((400..1500).contains(&took.as_millis()), "{took:?}");
    supervisor.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_instance_left_running_is_ended_before_the_next_start() {
    let root = Root::new();
    let mut supervisor = root.supervisor();
    let mut states = supervisor.states();
    supervisor.apply(vec![root.script("web-1", "sleep 1000 & exec sleep 1000")]);
    let first = until(&mut states, "web-1", is_ready).await.process.unwrap();
    let begin = Instant::now();
    while session_of(first).is_empty() {
        assert!(begin.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let left = session_of(first);
    signal_process(first, Signal::KILL);
    until(&mut states, "web-1", |status| is_ready(status) && status.process != Some(first)).await;
    vanished(left[0]).await;
    supervisor.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_is_asked_by_connection_and_by_command_too() {
    let root = Root::new();
    let mut supervisor = root.supervisor();
    let mut states = supervisor.states();
    let flag = root.path("flag");
    let mut by_command = root.script("web-1", "exec sleep 1000");
    let command = ["/bin/sh", "-c", "test -e \"$FLAG\" || { echo no flag; exit 1; }"].map(str::to_owned);
    by_command.health.probe = Probe::Command { command: command.into() };
    by_command.env.insert("FLAG".into(), flag.display().to_string());
    let mut by_connection = root.script("web-2", "exec sleep 1000");
    by_connection.health.probe = Probe::Tcp;
    let address = by_connection.address;
    supervisor.apply(vec![by_command, by_connection]);
    let because =
        |status: &InstanceStatus| matches!(status.state, InstanceState::Starting { because: Some(_), .. });
    let no_flag = until(&mut states, "web-1", because).await;
    assert_eq!(no_flag.state.to_string(), "starting: /bin/sh ended with exit code 1: no flag");
    let refused = until(&mut states, "web-2", because).await;
    assert_eq!(
        refused.state.to_string(),
        format!("starting: {address} refused the connection (nobody listens)")
    );
    fs::write(&flag, "").unwrap();
    let _listener = TcpListener::bind(address).unwrap();
    until(&mut states, "web-1", is_ready).await;
    until(&mut states, "web-2", is_ready).await;
    supervisor.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_unwanted_and_wanted_again_at_once_runs() {
    let root = Root::new();
    let mut supervisor = root.supervisor();
    let mut states = supervisor.states();
    let spec = root.web("web-1");
    for _ in 0..20 {
        supervisor.apply(vec![spec.clone()]);
        supervisor.apply(Vec::new());
    }
    supervisor.apply(vec![spec.clone()]);
    until(&mut states, "web-1", is_ready).await;
    supervisor.apply(Vec::new());
    states.wait_for(States::is_empty).await.unwrap();
    supervisor.apply(vec![spec]);
    let running = until(&mut states, "web-1", is_ready).await.process.unwrap();
    supervisor.stop_all().await;
    assert!(!is_running(running));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_is_restarted_gracefully_on_request() {
    let root = Root::new();
    let mut supervisor = root.supervisor();
    let mut states = supervisor.states();
    supervisor.apply(vec![root.web("web-1")]);
    let first = until(&mut states, "web-1", is_ready).await;
    assert!(supervisor.restart("web-1"));
    assert!(!supervisor.restart("web-9"));
    let second =
        until(&mut states, "web-1", |status| is_ready(status) && status.process != first.process).await;
    assert_eq!(second.starts, 2);
    supervisor.stop_all().await;
}

/// All numbers in a log and its older parts, oldest first.
fn numbers(log: &Path, files: u32) -> Vec<u64> {
    let older = (1..files).rev().map(|number| PathBuf::from(format!("{}.{number}", log.display())));
    let parts = older.chain([log.to_owned()]).map(|path| fs::read_to_string(path).unwrap_or_default());
    parts
        .collect::<String>()
        .lines()
        .map(|line| line.parse().unwrap_or_else(|_| panic!("{line:?}")))
        .collect()
}

#[tokio::test]
async fn rotation_loses_nothing_while_the_process_writes() {
    const SCRIPT: &str = "i=1; while [ $i -le 299001 ]; do seq $i $((i + 999)); i=$((i + 1000)); done";
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("web.web-1.log");
    let count = 300_000;
    let spec = Spawn { log: Some(log.clone()), ..Spawn::new("sh", ["-c", SCRIPT]) };
    let limits = Limits { bytes: 100_000, files: 100 };
    let mut follow = Follow::from_end(&log).unwrap();
    let (mut followed, mut rotations) = (Vec::new(), 0);
    let writer = spawn_detached(&spec).unwrap();
    while writer.exit().is_none() {
        tokio::time::sleep(Duration::from_millis(2)).await;
        rotations += u32::from(logs::rotate(&log, limits).unwrap());
        followed.extend(follow.read().unwrap());
    }
    followed.extend(follow.read().unwrap());
    println!("{rotations} rotations");
    assert!(rotations > 1, "the test needs rotations while it writes");
    let expected: Vec<u64> = (1..=count).collect();
    assert!(numbers(&log, limits.files) == expected, "lines were lost or doubled");
    let followed: Vec<u64> = followed.iter().map(|line| line.parse().unwrap()).collect();
    assert!(followed == expected, "the follower missed lines or saw some twice");
    let last: Vec<String> = (count - 49_999..=count).map(|number| number.to_string()).collect();
    assert!(logs::tail(&log, 50_000).unwrap() == last, "the tail reaches into older parts");
    assert_eq!(logs::tail(&log, 0).unwrap(), [] as [&str; 0]);
    assert_eq!(logs::tail(&directory.path().join("none"), 5).unwrap(), [] as [&str; 0]);
}

#[tokio::test]
async fn only_so_many_log_files_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("web.web-1.log");
    for round in 0..6 {
        fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&log)
            .and_then(|mut file| {
                std::io::Write::write_all(&mut file, format!("{round}\n").repeat(10_000).as_bytes())
            })
            .unwrap();
        assert!(logs::rotate(&log, Limits { bytes: 10_000, files: 3 }).unwrap());
        assert!(!logs::rotate(&log, Limits { bytes: 10_000, files: 3 }).unwrap());
    }
    let mut names: Vec<_> =
        fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["web.web-1.log", "web.web-1.log.1", "web.web-1.log.2"]);
}
