//! A service that others run, on a real system: its addresses are routed to and asked, and nothing else.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const NAME: &str = "external-e2e";

/// Where the programs of others listen, on nodes of ours because the lab has no other machines.
const EAST: &str = "10.93.1.11:9000";
const WEST: &str = "10.93.2.11:9000";

fn file(port: u16, addresses: &str) -> String {
    format!(
        "[system]\nname = \"{NAME}\"\n[sites.east]\n[sites.west]\n[sites.north]\n\
         [nodes.e1]\nsite = \"east\"\naddress = \"10.93.1.11\"\n\
         [nodes.w1]\nsite = \"west\"\naddress = \"10.93.2.11\"\n\
         [nodes.n1]\nsite = \"north\"\naddress = \"10.93.3.11\"\n\
         [services.legacy]\naddresses = {addresses}\nhealth = {{ http = \"/healthz\", interval = \"200ms\" }}\n\
         [routes.public]\nlisten = \":{port}\"\nservice = \"legacy\"\n"
    )
}

fn free_port() -> u16 {
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

/// A program that no agent knows of.
struct Stranger(Child);

impl Stranger {
    fn start(node: &str, listen: &str) -> Self {
        let app = Path::new(env!("CARGO_BIN_EXE_mainstay")).with_file_name("examples").join("app");
        let namespace = format!("ms-{NAME}.{node}");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &namespace, app.to_str().unwrap(), "--listen", listen]);
        Self(command.spawn().unwrap())
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        // It may have been killed before.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until the status says all of `words`, and says how long that took.
#[track_caller]
fn status_says(words: &[&str]) -> Duration {
    let begin = Instant::now();
    loop {
        let (_, told) = mainstay(&["status"]);
        if words.iter().all(|word| told.contains(word)) {
            return begin.elapsed();
        }
        assert!(begin.elapsed() < Duration::from_secs(30), "not {words:?} in:\n{told}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn ask(at: SocketAddr) -> Result<(), String> {
    let in_words = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(at).map_err(in_words)?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").map_err(in_words)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(in_words)?;
    let is_good = answer.starts_with("HTTP/1.1 200 ");
    if is_good { Ok(()) } else { Err(answer) }
}

/// Asks all the time while `act` does something; how many were answered, and what happened to the others.
fn under_load(at: SocketAddr, act: impl FnOnce()) -> (u64, Vec<String>) {
    let ends = Arc::new(AtomicBool::new(false));
    let client = |_| {
        let ends = Arc::clone(&ends);
        std::thread::spawn(move || {
            let (mut ok, mut failed) = (0, vec![]);
            while !ends.load(Ordering::Relaxed) {
                match ask(at) {
                    Ok(()) => ok += 1,
                    Err(because) => failed.push(because),
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            (ok, failed)
        })
    };
    let clients: Vec<_> = (0..8).map(client).collect();
    act();
    ends.store(true, Ordering::Relaxed);
    clients.into_iter().fold((0, vec![]), |(ok, mut failed), client| {
        let (more, others) = client.join().unwrap();
        failed.extend(others);
        (ok + more, failed)
    })
}

#[test]
fn addresses_of_others_are_routed_to_and_asked_and_nobody_is_said_to_supervise_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mainstay.toml");
    let port = free_port();
    std::fs::write(&path, file(port, &format!("{{ east = [\"{EAST}\"], west = [\"{WEST}\"] }}"))).unwrap();
    let _down = Down;
    succeeds(&["up", path.to_str().unwrap()]);
    status_says(&["is down: no address of legacy answers as it should", "nobody supervises it"]);

    let mut east = Stranger::start("e1", EAST);
    let _west = Stranger::start("w1", WEST);
    let seen = status_says(&["is healthy", "legacy", "of others", EAST, "answers; nobody supervises it"]);
    println!("both answer {} ms after their start", seen.as_millis());

    let at = (Ipv4Addr::LOCALHOST, port).into();
    let (ok, failed) = under_load(at, || {
        std::thread::sleep(Duration::from_secs(1));
        east.0.kill().unwrap();
        let told = status_says(&["is degraded: 1 of 2 addresses of legacy", "takes no connection"]);
        println!("told {} ms after the death of one", told.as_millis());
        std::thread::sleep(Duration::from_secs(2));
    });
    println!("{ok} requests answered, {} failed: {:?}", failed.len(), failed.first());
    assert!(ok > 300 && failed.is_empty(), "{failed:?}");
    let why = succeeds(&["why", "legacy"]);
    assert!(
        why.contains(&format!("{EAST} takes no connection")) && why.contains("nobody here supervises"),
        "{why}"
    );
    for refused in [&["restart", "legacy"][..], &["scale", "legacy", "3"], &["logs", "legacy"]] {
        let (code, told) = mainstay(refused);
        assert!(code != Some(0) && told.contains("others run"), "{refused:?}: {told}");
    }

    std::fs::write(&path, file(port, &format!("[\"{WEST}\"]"))).unwrap();
    let (ok, failed) = under_load(at, || {
        let told = succeeds(&["apply", path.to_str().unwrap(), "--yes"]);
        println!("{told}");
        status_says(&["is healthy"]);
    });
    println!("{ok} requests answered, {} failed: {:?}", failed.len(), failed.first());
    assert!(ok > 0 && failed.is_empty(), "{failed:?}");
}
