//! A whole system in the lab: brought up from its file, hurt, measured, taken down without a trace.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Command, Output};

const NAME: &str = "e2e";

/// The shop with a name, addresses and ports of its own, so that it disturbs no other lab.
fn system_file(folder: &Path) -> std::path::PathBuf {
    let shop = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/shop/mainstay.toml");
    let text = std::fs::read_to_string(shop).unwrap();
    let text = text.replace("name = \"shop\"", &format!("name = \"{NAME}\"")).replace("10.77.", "10.79.");
    let [web, writes, reads] = free_ports().map(|port| format!(":{port}"));
    let text = text.replace(":8080", &web).replace(":5432", &writes).replace(":5433", &reads);
    let file = folder.join("mainstay.toml");
    std::fs::write(&file, text).unwrap();
    file
}

/// Three ports of 127.0.0.1 that nobody listens on, below those that the kernel gives to clients.
fn free_ports() -> [u16; 3] {
    let begin = 10_000 + u16::try_from(std::process::id() % 9000).unwrap();
    let mut free = (begin..20_000).filter(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok());
    std::array::from_fn(|_| free.next().expect("a free port"))
}

fn mainstay(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mainstay")).args(arguments).output().unwrap()
}

#[track_caller]
fn succeeds(arguments: &[&str]) -> String {
    let output = mainstay(arguments);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "mainstay {}: {}\n{out}\n{err}", arguments.join(" "), output.status);
    out.into_owned()
}

/// Takes the system down whatever happens.
struct Down;

impl Drop for Down {
    fn drop(&mut self) {
        let _ = mainstay(&["down", NAME]);
    }
}

/// Runs a drill and returns its only run. How long it took is measured by `make bench`, not judged here: a test machine
/// may be busy.
fn drill(name: &str) -> serde_json::Value {
    let output = mainstay(&["drill", "run", name, "--system", NAME, "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{name}: {error}: {}", String::from_utf8_lossy(&output.stderr)));
    let run = report["runs"][0].clone();
    println!(
        "{name}: outage {} ms, errors {}, redundant after {} ms",
        run["outage_ms"], run["errors"], run["redundancy_ms"]
    );
    run
}

#[track_caller]
fn lost_nothing(run: &serde_json::Value) {
    assert!(run["outage_ms"].is_number(), "writes never came back: {run:#}");
    assert!(run["acknowledged"].as_u64().unwrap() > 100, "there was hardly any load: {run:#}");
    for count in ["lost", "doubled", "two_primaries", "late_reads"] {
        assert_eq!(run[count], 0, "{count}: {run:#}");
    }
    assert!(run["redundancy_ms"].is_number(), "redundancy never came back: {run:#}");
}

#[test]
fn a_system_survives_the_death_of_its_primary_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let file = system_file(folder.path());
    let _down = Down;
    succeeds(&["up", file.to_str().unwrap()]);
    for name in ["postmaster-kill", "node-kill", "switchover"] {
        let run = drill(name);
        lost_nothing(&run);
        assert_ne!(run["primary_before"], run["primary_after"], "{name}: {run:#}");
    }
    let run = drill("agent-kill");
    lost_nothing(&run);
    assert_eq!(
        run["primary_before"], run["primary_after"],
        "a lone agent's restart changes no role: {run:#}"
    );
    succeeds(&["down", NAME]);
    assert!(!Path::new("/var/lib/mainstay/lab").join(NAME).exists());
    let namespaces = Command::new("ip").args(["netns", "list"]).output().unwrap();
    let namespaces = String::from_utf8_lossy(&namespaces.stdout).into_owned();
    assert!(!namespaces.contains(&format!("ms-{NAME}-")), "{namespaces}");
}
