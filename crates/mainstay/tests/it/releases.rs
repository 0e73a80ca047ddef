//! Drains, scaling and releases on a real system, with clients that keep their connections and never send a request twice.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const NAME: &str = "release-e2e";

/// Clients, and how often each of them asks at most: 1000 requests a second together.
const CLIENTS: usize = 20;
const ASK_EVERY: Duration = Duration::from_millis(20);

/// So many good releases follow one another; `RELEASES` in the environment says another number.
const RELEASES: usize = 5;

fn file(port: u16) -> String {
    format!(
        "[system]\nname = \"{NAME}\"\n[sites.east]\n[sites.west]\n[sites.north]\n\
         [nodes.e1]\nsite = \"east\"\naddress = \"10.87.1.11\"\n\
         [nodes.w1]\nsite = \"west\"\naddress = \"10.87.2.11\"\n\
         [nodes.n1]\nsite = \"north\"\naddress = \"10.87.3.11\"\n\
         [services.web]\ncommand = [\"{{release}}/run\", \"{{address}}:{{port}}\"]\ninstances = 3\n\
         health.http = \"/healthz\"\nenv.INSTANCE = \"{{instance}}\"\n\
         [routes.public]\nlisten = \":{port}\"\nservice = \"web\"\n"
    )
}

pub(super) fn free_port() -> u16 {
    let begin = 20_000 + u16::try_from(std::process::id() % 9000).unwrap();
    (begin..32_000).find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()).expect("a free port")
}

/// What a command said, and its exit code.
fn mainstay(arguments: &[&str]) -> (Option<i32>, String) {
    let mut all = arguments.to_vec();
    if arguments[0] != "up" && arguments[0] != "down" {
        all.extend(["--system", NAME]);
    }
    let output = Command::new(env!("CARGO_BIN_EXE_mainstay")).args(all).output().unwrap();
    let told =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.code(), told)
}

#[track_caller]
fn succeeds(arguments: &[&str]) -> String {
    let (code, told) = mainstay(arguments);
    assert_eq!(code, Some(0), "mainstay {}: {told}", arguments.join(" "));
    told
}

struct Down;

impl Drop for Down {
    fn drop(&mut self) {
        let _ = mainstay(&["down", NAME]);
    }
}

/// A release that runs the test's application with these flags.
pub(super) fn build(folder: &Path, name: &str, flags: &str) -> PathBuf {
    let directory = folder.join(name);
    std::fs::create_dir_all(&directory).unwrap();
    let app = Path::new(env!("CARGO_BIN_EXE_mainstay")).with_file_name("examples").join("app");
    std::fs::copy(&app, directory.join("app")).unwrap_or_else(|error| panic!("{}: {error}", app.display()));
    let run = directory.join("run");
    std::fs::write(
        &run,
        format!("#!/bin/sh\n# {name}\nexec \"$(dirname \"$0\")/app\" --listen \"$1\" {flags}\n"),
    )
    .unwrap();
    std::fs::set_permissions(&run, std::fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

/// Clients that ask all the time.
pub(super) struct Load {
    ends: Arc<AtomicBool>,
    ok: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    pub(super) fn begin(at: SocketAddr, page: &'static str) -> Self {
        Self::of(CLIENTS, at, page)
    }

    /// So many clients, and therefore at most as many requests under way.
    pub(super) fn of(clients: usize, at: SocketAddr, page: &'static str) -> Self {
        let (ends, ok) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let client = |number: usize| {
            let (ends, ok) = (Arc::clone(&ends), Arc::clone(&ok));
            std::thread::spawn(move || client(at, page, number, &ends, &ok))
        };
        let clients = (0..clients).map(client).collect();
        Self { ends, ok, clients }
    }

    /// How many were answered, and what happened to the others.
    pub(super) fn end(self) -> (u64, Vec<String>) {
        self.ends.store(true, Ordering::Relaxed);
        let failed = self.clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        (self.ok.load(Ordering::Relaxed), failed)
    }
}

/// Asks again and again over one connection. A request that gets no good answer has failed; nothing is sent again. A
/// connection that the other side announced to close is replaced.
fn client(at: SocketAddr, page: &str, number: usize, ends: &AtomicBool, ok: &AtomicU64) -> Vec<String> {
    let (begun, mut failed) = (Instant::now(), vec![]);
    let mut connection: Option<BufReader<TcpStream>> = None;
    let mut next =
        Instant::now() + ASK_EVERY * u32::try_from(number).unwrap() / u32::try_from(CLIENTS).unwrap();
    while !ends.load(Ordering::Relaxed) {
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        next += ASK_EVERY;
        match ask(&mut connection, at, page) {
            Ok(()) => drop(ok.fetch_add(1, Ordering::Relaxed)),
            Err(because) => {
                failed.push(format!("after {:.1} s: {because}", begun.elapsed().as_secs_f32()));
                connection = None;
            }
        }
    }
    failed
}

fn ask(connection: &mut Option<BufReader<TcpStream>>, at: SocketAddr, page: &str) -> Result<(), String> {
    if connection.is_none() {
        let stream = TcpStream::connect(at).map_err(|error| format!("connect: {error}"))?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.set_nodelay(true).unwrap();
        *connection = Some(BufReader::new(stream));
    }
    let reader = connection.as_mut().expect("it was made just now");
    // A method that no proxy may repeat once it was sent.
    let request = format!("POST {page} HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n");
    reader.get_mut().write_all(request.as_bytes()).map_err(|error| format!("write: {error}"))?;
    let (mut head, mut length, mut closes) = (vec![], 0, false);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).map_err(|error| format!("read: {error}"))? == 0 {
            return Err(format!("the connection ended behind {head:?}"));
        }
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().unwrap();
        }
        closes |= line == "connection: close";
        if line.is_empty() {
            break;
        }
        head.push(line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).map_err(|error| format!("body: {error}"))?;
    if closes {
        *connection = None;
    }
    let is_good = head.first().is_some_and(|line| line.contains(" 200 "));
    if is_good { Ok(()) } else { Err(format!("{:?}: {}", head.first(), String::from_utf8_lossy(&body))) }
}

fn release(from: &Path, more: &[&str]) -> (Option<i32>, String) {
    let mut arguments = vec!["release", "web", "--from", from.to_str().unwrap()];
    arguments.extend(more);
    let (code, told) = mainstay(&arguments);
    println!("mainstay {}: {code:?}\n{told}", arguments.join(" "));
    (code, told)
}

/// The ids of the instances that are ready.
fn ready() -> Vec<String> {
    let (_, told) = mainstay(&["status", "--json"]);
    let status: serde_json::Value =
        serde_json::from_str(&told).unwrap_or_else(|error| panic!("{error}: {told}"));
    let nodes = status["nodes"].as_object().unwrap().values();
    let instances = nodes.flat_map(|node| node["instances"].as_array().unwrap().clone());
    let mut ready: Vec<String> = instances
        .filter(|instance| instance["state"] == "ready")
        .map(|instance| instance["id"].as_str().unwrap().to_owned())
        .collect();
    ready.sort();
    ready
}

/// Waits until so many instances are ready: those of a release that is over end when their last request has.
#[track_caller]
fn settles_at(wanted: usize) {
    let end = Instant::now() + Duration::from_secs(15);
    while ready().len() != wanted {
        assert!(Instant::now() < end, "{:?} are ready, not {wanted}", ready());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Kills the leader's agent as soon as a release has changed something; says whose it was.
fn kill_leader_in_a_step() -> String {
    let end = Instant::now() + Duration::from_secs(60);
    while !mainstay(&["release", "status", "--json"]).1.contains("\"step\"") {
        assert!(Instant::now() < end, "no release comes to a step");
        std::thread::sleep(Duration::from_millis(20));
    }
    let status: serde_json::Value = serde_json::from_str(&mainstay(&["status", "--json"]).1).unwrap();
    let leader = status["leader"].as_str().expect("there is a leader").to_owned();
    signal_agent(&leader, Signal::KILL);
    leader
}

/// Sends a signal to a node's agent.
fn signal_agent(node: &str, signal: Signal) {
    let root = format!("{NAME}/nodes/{node}");
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    for pid in processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()) {
        let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&str> = command.split('\0').collect();
        if words.get(1) == Some(&"agent") && words.iter().any(|word| word.ends_with(&root)) {
            return kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
        }
    }
    panic!("no agent of {node} runs");
}

/// Each agent in turn gets no processor: longer than it takes to be missed, shorter than it takes to be lost.
fn let_agents_stand_still() {
    for node in ["e1", "w1", "n1"] {
        signal_agent(node, Signal::STOP);
        std::thread::sleep(Duration::from_secs(2));
        signal_agent(node, Signal::CONT);
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Releases that are bad in each of the ways that are looked for: each is taken back by itself, and says why.
fn try_bad_releases(folder: &Path, at: SocketAddr) {
    for (flags, because) in [
        ("--never-ready", "were ready after"),
        ("--crash-after 5", "ended by itself"),
        ("--errors 5", "failed on the new release"),
        ("--slow 60", "the middle request takes"),
    ] {
        let load = Load::begin(at, "/");
        let from = build(folder, &format!("bad{}", flags.replace(' ', "-")), flags);
        let (code, told) = release(&from, &["--canary", "20%", "--bake", "8s", "--ready-within", "5s"]);
        let (ok, failed) = load.end();
        println!("{flags}: {ok} requests answered, {} failed: {:?}", failed.len(), failed.first());
        assert_eq!(code, Some(1), "{flags}: {told}");
        assert!(told.contains(because), "{flags}: {told}");
        let most = match flags {
            "--errors 5" => (ok / 50).max(20),
            // What was under way at the instance when it crashed.
            "--crash-after 5" => CLIENTS as u64,
            _ => 0,
        };
        assert!(failed.len() as u64 <= most, "{flags}: {} of {ok} failed: {failed:?}", failed.len());
        settles_at(3);
    }
}

#[test]
fn drains_scaling_and_releases_fail_no_request_and_bad_releases_are_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mainstay.toml");
    let port = free_port();
    std::fs::write(&path, file(port)).unwrap();
    let _down = Down;
    succeeds(&["up", path.to_str().unwrap()]);
    let (code, told) = release(&build(folder.path(), "one", ""), &["--bake", "1s"]);
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(ready().len(), 3);

    let at = (Ipv4Addr::LOCALHOST, port).into();
    let begun = Instant::now();
    let (load, slow) = (Load::begin(at, "/"), Load::begin(at, "/slow"));
    println!("{}", succeeds(&["drain", "w1", "--reason", "new disk"]));
    assert!(ready().iter().all(|id| !id.ends_with("@w1")), "{:?}", ready());
    assert!(succeeds(&["status"]).contains("drained: new disk"));
    println!("{}", succeeds(&["scale", "web", "5"]));
    assert_eq!(ready().len(), 5);
    succeeds(&["undrain", "w1"]);
    println!("{}", succeeds(&["scale", "web", "--undo"]));
    assert_eq!(ready().len(), 3);

    let releases = std::env::var("RELEASES").ok();
    for number in 0..releases.map_or(RELEASES, |number| number.parse().unwrap()) {
        let from = build(folder.path(), &format!("good-{number}"), "");
        let more: &[&str] = match number % 5 {
            1 => &["--bake", "2s", "--canary", "20%,50%"],
            2 => &["--bake", "1s", "--blue-green"],
            _ => &["--bake", "1s"],
        };
        let killer = (number % 5 == 3).then(|| std::thread::spawn(kill_leader_in_a_step));
        let (code, told) = release(&from, more);
        if let Some(killer) = killer {
            println!("the agent of {} was killed in the middle", killer.join().unwrap());
        }
        if code != Some(0) {
            panic!("{:?}\n{told}", load.end());
        }
    }
    println!("{}", succeeds(&["release", "rollback", "web"]));
    settles_at(3);
    let (ok, failed) = load.end();
    let seconds = begun.elapsed().as_secs();
    println!("{ok} requests answered, {} failed in {seconds} s: {:?}", failed.len(), failed.first());
    assert!(ok > 2000 && failed.is_empty(), "{failed:?}");

    let_agents_stand_still();
    let (ok, failed) = slow.end();
    println!("slow ones: {ok} requests answered, {} failed: {:?}", failed.len(), failed.first());
    assert!(ok > 100 && failed.is_empty(), "{failed:?}");
    settles_at(3);

    try_bad_releases(folder.path(), at);
    let history = succeeds(&["release", "history", "web"]);
    assert_eq!(history.matches("taken back").count(), 4, "{history}");
}
