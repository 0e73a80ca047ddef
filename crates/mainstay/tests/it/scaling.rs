//! Instances that follow the load of a real system, with clients that never send a request twice.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::releases::{Load, build, free_port};

const NAME: &str = "scaling-e2e";

/// How long anything may take. A machine under test may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

const COOL_DOWN: Duration = Duration::from_secs(8);

/// The 20 clients of a load for the slow page, which takes 300 ms, have nearly 20 requests under way: work for five.
fn file(port: u16) -> String {
    let cool_down = COOL_DOWN.as_secs();
    format!(
        "[system]\nname = \"{NAME}\"\n[nodes.e1]\naddress = \"10.94.1.11\"\n[nodes.e2]\naddress = \"10.94.1.12\"\n\
         [nodes.e3]\naddress = \"10.94.1.13\"\n\
         [services.web]\ncommand = [\"{{release}}/run\", \"{{address}}:{{port}}\"]\ninstances = 2\n\
         health.http = \"/healthz\"\nscale = {{ max = 6, requests = 4, cool_down = \"{cool_down}s\" }}\n\
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

struct Down;

impl Drop for Down {
    fn drop(&mut self) {
        let _ = mainstay(&["down", NAME]);
    }
}

fn status() -> Value {
    serde_json::from_str(&mainstay(&["status", "--json"]).1).unwrap_or(Value::Null)
}

/// How many instances run, and how many the leader wants.
fn counts() -> (usize, Option<u64>) {
    let status = status();
    let nodes = status["nodes"].as_object().into_iter().flat_map(|nodes| nodes.values());
    let all = nodes.flat_map(|node| node["instances"].as_array().cloned().unwrap_or_default());
    let ready = all.filter(|instance| instance["state"] == "ready").count();
    (ready, status["scaled"]["web"]["wanted"].as_u64())
}

/// Waits until the counts are as they should be; how long that took.
#[track_caller]
fn settles(what: &str, is_so: impl Fn((usize, Option<u64>)) -> bool) -> Duration {
    let begun = Instant::now();
    while !is_so(counts()) {
        let (_, told) = mainstay(&["status"]);
        assert!(begun.elapsed() < PATIENCE, "{what}: {:?}\n{told}", counts());
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("{what} after {:.1} s", begun.elapsed().as_secs_f32());
    begun.elapsed()
}

fn kill_the_leader() {
    let leader = status()["leader"].as_str().expect("there is a leader").to_owned();
    let root = format!("{NAME}/nodes/{leader}");
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    for pid in processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()) {
        let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&str> = command.split('\0').collect();
        if words.get(1) == Some(&"agent") && words.iter().any(|word| word.ends_with(&root)) {
            return kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        }
    }
    panic!("no agent of {leader} runs");
}

/// While the lead changes, no instance ends.
fn stays_while_the_leader_dies() {
    kill_the_leader();
    let begun = Instant::now();
    while begun.elapsed() < COOL_DOWN + Duration::from_secs(2) {
        // An agent that has just started knows of no instance yet; those of the others are not to become fewer.
        if let (_, Some(wanted)) = counts() {
            assert!(wanted >= 5, "a new leader wants {wanted}");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    settles("all are there under a new leader", |(ready, wanted)| ready >= 5 && wanted >= Some(5));
}

#[test]
fn instances_follow_the_load_up_and_down_and_no_request_fails() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mainstay.toml");
    let port = free_port();
    std::fs::write(&path, file(port)).unwrap();
    let _down = Down;
    succeeds(&["up", path.to_str().unwrap()]);
    let release = |name: &str| {
        let from = build(folder.path(), name, "");
        succeeds(&["release", "web", "--from", from.to_str().unwrap(), "--bake", "500ms"]);
    };
    release("one");

    let at = (Ipv4Addr::LOCALHOST, port).into();
    let light = Load::begin(at, "/");
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(counts(), (2, Some(2)), "{}", mainstay(&["status"]).1);
    let heavy = Load::begin(at, "/slow");
    let risen = settles("five are ready", |(ready, wanted)| ready >= 5 && wanted >= Some(5));
    let (_, told) = mainstay(&["status"]);
    println!("{told}");
    assert!(told.contains("requests are under way") && told.contains("2 to 6"), "{told}");
    stays_while_the_leader_dies();

    release("two");
    let (ready, wanted) = counts();
    assert!(ready >= 5, "a release has left {ready} instances, {wanted:?} wanted");

    println!("{}", succeeds(&["scale", "web", "3"]));
    let (_, told) = mainstay(&["status"]);
    assert!(told.contains("by an operator's word, until `mainstay scale web --undo`"), "{told}");
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(counts(), (3, None), "an operator's word holds against the load");
    println!("{}", succeeds(&["scale", "web", "--undo"]));
    settles("five are ready again", |(ready, wanted)| ready >= 5 && wanted >= Some(5));

    let (ok, failed) = heavy.end();
    println!("heavy load: {ok} requests answered, {} failed: {:?}", failed.len(), failed.first());
    assert!(ok > 500 && failed.is_empty(), "{failed:?}");
    let fallen = settles("two are left", |counts| counts == (2, Some(2)));
    assert!(fallen >= COOL_DOWN, "they ended after {fallen:?}");
    let (ok, failed) = light.end();
    println!("light load: {ok} requests answered, {} failed: {:?}", failed.len(), failed.first());
    assert!(ok > 2000 && failed.is_empty(), "{failed:?}");
    assert!(risen < Duration::from_secs(40), "they rose after {risen:?}");
    let (_, told) = mainstay(&["events"]);
    assert!(told.contains("instances run instead of"), "{told}");
}
