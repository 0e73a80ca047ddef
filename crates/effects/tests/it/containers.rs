//! Instances that are containers of podman: an image made from a static binary, run, hurt, adopted and removed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use effects::process::{ProcessId, Registry, Signal, facts_of, find_program, signal_process};
use effects::service::container::{Container, Engine};
use effects::service::{InstanceSpec, InstanceState, InstanceStatus, Supervisor};
use model::system::Probe;

use crate::services::{Root, is_ready, is_running, until};

/// The image of all these tests.
const IMAGE: &str = "localhost/mainstay-guest:1";

/// A podman with an image store of its own, and the directory of an agent.
struct Host {
    root: Root,
    engine: Engine,
}

impl Host {
    fn new() -> Self {
        let root = Root::new();
        let program = find_program("podman").expect("podman is missing: `make setup` installs it");
        let engine = Engine { program, env: settings(&root) };
        let host = Self { root, engine };
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/containers/guest.c");
        let folder = host.root.path("image");
        fs::create_dir_all(&folder).unwrap();
        let guest = folder.join("guest");
        ran(Command::new("cc").args(["-static", "-O1", "-o"]).arg(&guest).arg(&source));
        ran(Command::new("tar")
            .arg("-C")
            .arg(&folder)
            .args(["-cf", "guest.tar", "guest"])
            .current_dir(&folder));
        let tar = folder.join("guest.tar").display().to_string();
        host.podman(&["import", "--quiet", "--change", "ENTRYPOINT [\"/guest\"]", &tar, IMAGE]);
        host
    }

    fn podman(&self, arguments: &[&str]) -> String {
        ran(Command::new(&self.engine.program).args(arguments).envs(&self.engine.env))
    }

    /// The web server of the image, on a port of its own.
    fn guest(&self, id: &str) -> InstanceSpec {
        let mut spec = self.root.web(id);
        spec.command = vec![];
        spec.container =
            Some(Container { image: IMAGE.to_owned(), engine: Some(self.engine.clone()), user: None });
        let port = spec.address.port().to_string();
        spec.env = [("PORT", port.as_str()), ("NAME", id)].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        spec
    }

    /// Every container, running or not: id and process.
    fn containers(&self) -> Vec<(String, i32)> {
        let told = self.podman(&["ps", "--all", "--no-trunc", "--format", "{{.ID}} {{.Pid}}"]);
        let line = |line: &str| {
            let (id, pid) = line.split_once(' ').unwrap();
            (id.to_owned(), pid.parse().unwrap())
        };
        told.lines().map(line).collect()
    }

    /// The only container.
    #[track_caller]
    fn container(&self) -> (String, ProcessId) {
        let all = self.containers();
        assert_eq!(all.len(), 1, "{all:?}");
        (all[0].0.clone(), facts_of(all[0].1).expect("it runs").id)
    }

    async fn left_with_none(&self) {
        for _ in 0..100 {
            if self.containers().is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{:?} are left", self.containers());
    }

    fn log(&self, id: &str) -> String {
        fs::read_to_string(self.guest(id).log).unwrap_or_default()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let remove = ["rm", "--all", "--force", "--time", "0"];
        // What the test was about may be broken.
        let _ = Command::new(&self.engine.program).args(remove).envs(&self.engine.env).output();
    }
}

/// What keeps the podman of a test apart from that of the machine.
fn settings(root: &Root) -> std::collections::BTreeMap<String, String> {
    let place = |name: &str| root.path("podman").join(name).display().to_string();
    fs::create_dir_all(root.path("podman")).unwrap();
    let storage = format!(
        "[storage]\ndriver = \"vfs\"\ngraphroot = \"{}\"\nrunroot = \"{}\"\n",
        place("storage"),
        place("run")
    );
    // crun refuses machines that have both versions of control groups, runc does not.
    let is_hybrid = Path::new("/sys/fs/cgroup/unified").exists();
    let runtime = if is_hybrid { "runtime = \"runc\"\n" } else { "" };
    let engine = format!(
        "[engine]\n{runtime}static_dir = \"{}\"\ntmp_dir = \"{}\"\nvolume_path = \"{}\"\nlock_type = \"file\"\n",
        place("storage/libpod"),
        place("tmp"),
        place("volumes")
    );
    let file = |name: &str, text: String| -> String {
        let path: PathBuf = root.path("podman").join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    [
        ("CONTAINERS_STORAGE_CONF", file("storage.conf", storage)),
        ("CONTAINERS_CONF", file("containers.conf", engine)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

#[track_caller]
fn ran(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let [out, err] =
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert!(output.status.success(), "{command:?}: {}\n{out}{err}", output.status);
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_serves_on_its_port_writes_its_log_and_ends_gracefully_without_a_trace() {
    let host = Host::new();
    let mut supervisor = host.root.supervisor();
    let mut states = supervisor.states();
    supervisor.apply(vec![host.guest("web-1")]);
    let ready = until(&mut states, "web-1", is_ready).await;
    assert_eq!(ready.starts, 1);
    let (_, guest) = host.container();
    let log = host.log("web-1");
    assert!(log.contains("listening as web-1\n") && log.contains("GET /healthz HTTP/1.1\n"), "{log}");
    let words = fs::read_to_string(format!("/proc/{}/cmdline", ready.process.unwrap().pid)).unwrap();
    assert!(words.contains("PORT") && !words.contains(&ready.address.port().to_string()), "{words:?}");

    let begin = std::time::Instant::now();
    supervisor.stop_all().await;
    assert!(
        begin.elapsed() < Duration::from_secs(4),
        "it ended by itself, its grace was 5 s: {:?}",
        begin.elapsed()
    );
    assert!(!is_running(guest));
    assert_eq!(host.containers(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_crashes_or_loses_its_client_starts_again_and_is_never_there_twice() {
    let host = Host::new();
    let mut supervisor = host.root.supervisor();
    let mut states = supervisor.states();
    supervisor.apply(vec![host.guest("web-1")]);
    until(&mut states, "web-1", is_ready).await;
    let (first, guest) = host.container();

    assert!(signal_process(guest, Signal::KILL));
    let ended = |status: &InstanceStatus| matches!(status.state, InstanceState::Backoff { .. });
    let gone = until(&mut states, "web-1", ended).await;
    assert!(gone.state.to_string().starts_with("ended with exit code 137"), "{}", gone.state);
    let again = until(&mut states, "web-1", |status| is_ready(status) && status.starts == 2).await;
    let (second, guest) = host.container();
    assert_ne!(first, second);

    // Whoever kills the client leaves the container behind, which holds the port.
    assert!(signal_process(again.process.unwrap(), Signal::KILL));
    until(&mut states, "web-1", |status| is_ready(status) && status.starts == 3).await;
    assert!(!is_running(guest));
    assert_ne!(host.container().0, second);
    supervisor.stop_all().await;
    assert_eq!(host.containers(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_agent_finds_its_container_and_stops_it_when_it_is_wanted_no_more() {
    let host = Host::new();
    let mut supervisor = host.root.supervisor();
    let mut states = supervisor.states();
    let spec = host.guest("web-1");
    supervisor.apply(vec![spec.clone()]);
    let before = until(&mut states, "web-1", is_ready).await;
    let (container, guest) = host.container();
    drop(supervisor);

    let mut second = host.root.supervisor();
    let mut states = second.states();
    second.apply(vec![spec.clone()]);
    let after = until(&mut states, "web-1", is_ready).await;
    assert_eq!((after.process, after.starts), (before.process, 0));
    assert_eq!(host.container(), (container.clone(), guest));

    // Another image or environment is another container, one after the other.
    let mut changed = spec.clone();
    changed.env.insert("COLOUR".to_owned(), "blue".to_owned());
    second.apply(vec![changed]);
    until(&mut states, "web-1", |status| is_ready(status) && status.starts == 1).await;
    let (other, guest) = host.container();
    assert_ne!(other, container);
    drop(second);

    let third = host.root.supervisor();
    third.stop_leftovers(&[], &Default::default()).await.unwrap();
    host.left_with_none().await;
    assert!(!is_running(guest));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stubborn_container_is_killed_after_its_grace() {
    let host = Host::new();
    let mut supervisor = host.root.supervisor();
    let mut states = supervisor.states();
    let mut spec = host.guest("web-1");
    spec.env.insert("STUBBORN".to_owned(), "yes".to_owned());
    spec.stop_grace = Duration::from_millis(700);
    supervisor.apply(vec![spec]);
    until(&mut states, "web-1", is_ready).await;
    let (_, guest) = host.container();
    let begin = std::time::Instant::now();
    supervisor.stop_all().await;
    assert!(begin.elapsed() >= Duration::from_millis(700), "{:?}", begin.elapsed());
    assert!(!is_running(guest));
    assert_eq!(host.containers(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_needs_too_much_memory_is_ended_and_says_so() {
    let host = Host::new();
    let mut supervisor = host.root.supervisor();
    let mut states = supervisor.states();
    let mut spec = host.guest("web-1");
    spec.memory = Some(32 << 20);
    spec.env.insert("GREEDY".to_owned(), "200".to_owned());
    let address = spec.address;
    supervisor.apply(vec![spec]);
    until(&mut states, "web-1", is_ready).await;
    tokio::task::spawn_blocking(move || {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /eat HTTP/1.1\r\n\r\n").unwrap();
        let _ = stream.read(&mut [0; 64]);
    })
    .await
    .unwrap();
    let told = until(&mut states, "web-1", |status| {
        status.last_lines.last().is_some_and(|line| line.contains("for want of memory"))
    })
    .await;
    let last = told.last_lines.last().unwrap();
    println!("{last}");
    // The engine may not have heard of the reason; then it is said to be one of two.
    assert!(last.starts_with("(killed ") && last.ends_with("its limit of 32MiB)"), "{last}");
    until(&mut states, "web-1", |status| is_ready(status) && status.starts == 2).await;
    supervisor.stop_all().await;
    assert_eq!(host.containers(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_loss_of_power_leaves_is_removed_and_nothing_runs_twice() {
    let host = Host::new();
    let mut supervisor = host.root.supervisor();
    let mut states = supervisor.states();
    let (kept, unwanted) = (host.guest("web-1"), host.guest("web-2"));
    supervisor.apply(vec![kept.clone(), unwanted]);
    let one = until(&mut states, "web-1", is_ready).await;
    let two = until(&mut states, "web-2", is_ready).await;
    drop(supervisor);
    // Everything dies at once; what is on disk stays: our records, and the engine's of its containers.
    let guests: Vec<ProcessId> =
        host.containers().iter().map(|(_, pid)| facts_of(*pid).unwrap().id).collect();
    for process in guests.into_iter().chain([one.process.unwrap(), two.process.unwrap()]) {
        signal_process(process, Signal::KILL);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(host.containers().len(), 2, "the engine still knows of them");

    let registry = Registry::open(&host.root.path("processes")).unwrap();
    let mut next = Supervisor::new(registry, Default::default());
    let mut states = next.states();
    next.stop_leftovers(std::slice::from_ref(&kept), &Default::default()).await.unwrap();
    next.apply(vec![kept]);
    until(&mut states, "web-1", |status| is_ready(status) && status.starts == 1).await;
    for _ in 0..50 {
        if host.containers().len() == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(host.container().1.pid, host.containers()[0].1);
    next.stop_all().await;
    assert_eq!(host.containers(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_is_not_there_or_no_engine_is_told_in_words() {
    let host = Host::new();
    let mut supervisor = host.root.supervisor();
    let mut states = supervisor.states();
    let mut unknown = host.guest("web-1");
    unknown.health.probe = Probe::Process;
    unknown.container.as_mut().unwrap().image = "localhost/nobody-made-this:9".to_owned();
    let mut without = host.guest("web-2");
    without.container.as_mut().unwrap().engine = None;
    supervisor.apply(vec![unknown, without]);
    let told = until(&mut states, "web-1", |status| !status.last_lines.is_empty()).await;
    let lines = told.last_lines.join("\n");
    assert!(lines.contains("localhost/nobody-made-this:9"), "{lines}");
    let told =
        until(&mut states, "web-2", |status| matches!(status.state, InstanceState::Backoff { .. })).await;
    let state = told.state.to_string();
    assert!(state.contains("this node has none of podman, docker"), "{state}");
    supervisor.stop_all().await;
}
