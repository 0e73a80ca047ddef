//! The job before a release, on a real system with clients: once in the system, whatever happens to agents; a release whose job
//! does not succeed is not begun.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::releases::{Load, build, free_port};

const NAME: &str = "before-e2e";

/// How long anything may take. A machine under test may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// A job that every release brings along; `ON` is the node it may run on.
fn file(port: u16, job_on: &str) -> String {
    format!(
        "[system]\nname = \"{NAME}\"\n[nodes.e1]\naddress = \"10.88.1.11\"\n[nodes.e2]\naddress = \"10.88.1.12\"\n\
         [nodes.e3]\naddress = \"10.88.1.13\"\n\
         [services.web]\ncommand = [\"{{release}}/run\", \"{{address}}:{{port}}\"]\ninstances = 2\n\
         health.http = \"/healthz\"\nrelease.before = \"migrate\"\n\
         [jobs.migrate]\ncommand = [\"{{release}}/migrate\", \"{{instance}} on {{node}}\"]\nnodes = [\"{job_on}\"]\n\
         timeout = \"15s\"\n\
         [routes.public]\nlisten = \":{port}\"\nservice = \"web\"\n"
    )
}

/// What a command said, and its exit code.
fn mainstay(arguments: &[&str]) -> (Option<i32>, String) {
    let mut all = arguments.to_vec();
    if !["up", "down"].contains(&arguments[0]) {
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

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&mainstay(arguments).1).unwrap_or(Value::Null)
}

struct Down;

impl Drop for Down {
    fn drop(&mut self) {
        let _ = mainstay(&["down", NAME]);
    }
}

/// A release whose migration writes a line into `lines` and then does what `then` says.
fn release(folder: &Path, name: &str, then: &str) -> (Option<i32>, String) {
    let directory = build(folder, name, "");
    let migrate = directory.join("migrate");
    let lines = folder.join("lines").display().to_string();
    let text = format!("#!/bin/sh\necho \"{name} $1\" >> {lines}\necho altering orders\n{then}\n");
    std::fs::write(&migrate, text).unwrap();
    std::fs::set_permissions(&migrate, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let (code, told) =
        mainstay(&["release", "web", "--from", directory.to_str().unwrap(), "--bake", "500ms"]);
    println!("release {name}: {code:?}\n{told}");
    (code, told)
}

/// What migrations have written.
fn lines(folder: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join("lines")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "{what}\n{}", mainstay(&["release", "status"]).1);
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The instances with their states, in the order of their names.
fn instances() -> Vec<String> {
    let status = json(&["status", "--json"]);
    let nodes = status["nodes"].as_object().into_iter().flat_map(|nodes| nodes.values());
    let all = nodes.flat_map(|node| node["instances"].as_array().cloned().unwrap_or_default());
    let mut all: Vec<String> = all.map(|i| format!("{} {} {}", i["id"], i["address"], i["state"])).collect();
    all.sort();
    all
}

fn leader() -> String {
    json(&["status", "--json"])["leader"].as_str().unwrap_or_default().to_owned()
}

/// Lets migrations run on a node whose agent does not lead; says on which.
fn beside_the_leader(path: &Path, port: u16) -> &'static str {
    loop {
        let leads = leader();
        let other = ["e1", "e2", "e3"].into_iter().find(|node| *node != leads).unwrap();
        std::fs::write(path, file(port, other)).unwrap();
        succeeds(&["apply", path.to_str().unwrap(), "--yes"]);
        if leader() != other {
            return other;
        }
    }
}

/// Kills the agent of a node; the lab starts another one.
fn kill_agent(node: &str) {
    let root = format!("{NAME}/nodes/{node}");
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    for pid in processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()) {
        let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&str> = command.split('\0').collect();
        if words.get(1) == Some(&"agent") && words.iter().any(|word| word.ends_with(&root)) {
            return kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        }
    }
    panic!("no agent of {node} runs");
}

/// Kills an agent while the migration of the release that is on its way runs.
fn kill_in_the_migration(folder: &Path, release: &str, node: &str) {
    let begun = format!("{release} ");
    wait_for("the migration begins", || lines(folder).iter().any(|line| line.starts_with(&begun)));
    let (_, status) = mainstay(&["status"]);
    assert!(status.contains("before it begins: run"), "{status}");
    kill_agent(node);
    println!("the agent of {node} was killed while the migration ran");
}

#[test]
fn a_migration_runs_once_before_a_release_and_nothing_is_begun_when_it_fails() {
    let folder = tempfile::tempdir().unwrap();
    let open = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(folder.path(), open(0o777)).unwrap();
    let path = folder.path().join("mainstay.toml");
    let port = free_port();
    std::fs::write(&path, file(port, "e1")).unwrap();
    let _down = Down;
    succeeds(&["up", path.to_str().unwrap()]);

    // Its first release; there is nothing to run from before.
    let (code, told) = mainstay(&["job", "run", "migrate"]);
    assert_eq!(code, Some(3), "{told}");
    assert!(told.contains("migrate runs from a release, and there is none yet"), "{told}");
    assert_eq!(release(folder.path(), "one", "exit 0").0, Some(0));
    assert_eq!(lines(folder.path()), ["one migrate-1 on e1"]);
    let load = Load::begin((Ipv4Addr::LOCALHOST, port).into(), "/");

    // The leader's agent dies in the middle, on another node than the run.
    let other = beside_the_leader(&path, port);
    let (of, leads) = (folder.path().to_owned(), leader());
    let killer = std::thread::spawn(move || kill_in_the_migration(&of, "two", &leads));
    let (code, told) = release(folder.path(), "two", "sleep 5");
    killer.join().unwrap();
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(lines(folder.path()).len(), 2, "{:?}", lines(folder.path()));

    // A migration that fails: in words, and nothing has moved.
    wait_for("two instances", || instances().len() == 2);
    let before = instances();
    let (code, told) = release(folder.path(), "three", "echo no column total >&2; exit 3");
    assert_eq!(code, Some(1), "{told}");
    for words in [
        "release 3 of web was not begun: run 3 of migrate failed: it ended with exit code 3",
        "| altering orders",
        "| no column total",
        "mainstay job logs migrate 3",
    ] {
        assert!(told.contains(words), "{words} is not in {told}");
    }
    assert_eq!(instances(), before, "an instance has changed");
    assert!(succeeds(&["release", "history", "web"]).contains("not begun: run 3 of migrate failed"));
    assert!(succeeds(&["why", "web"]).contains("release 3 was not begun: run 3 of migrate failed"));

    // One that hangs, and one whose own node's agent dies: nobody knows how it ended, and nobody runs it again.
    let (code, told) = release(folder.path(), "four", "sleep 1000");
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("did not end within 15s and was ended"), "{told}");
    let of = folder.path().to_owned();
    let killer = std::thread::spawn(move || kill_in_the_migration(&of, "five", other));
    let (code, told) = release(folder.path(), "five", "sleep 5");
    killer.join().unwrap();
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("run 5 of migrate has an unknown outcome"), "{told}");
    wait_for("two instances", || instances() == before);

    // Going back needs no migration; an operator's own run is from the release that serves.
    succeeds(&["release", "rollback", "web"]);
    succeeds(&["job", "run", "migrate"]);
    let all = lines(folder.path());
    let names: Vec<&str> = all.iter().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(names, ["one", "two", "three", "four", "five", "one"]);
    let (ok, failed) = load.end();
    println!("{ok} requests answered, {} failed: {:?}", failed.len(), failed.first());
    assert!(ok > 1000 && failed.is_empty(), "{failed:?}");
}
