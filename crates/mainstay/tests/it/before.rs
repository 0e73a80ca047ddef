//! The job before a release, on a real system with clients: once in the system, whatever happens to agents; a release whose job
//! does not succeed is not begun.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use super::lab::Lab;
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

/// A release whose migration writes a line into `lines` and then does what `then` says.
fn release(lab: &Lab, folder: &Path, name: &str, then: &str) -> (Option<i32>, String) {
    let directory = build(folder, name, "");
    let migrate = directory.join("migrate");
    let lines = folder.join("lines").display().to_string();
    let text = format!("#!/bin/sh\necho \"{name} $1\" >> {lines}\necho altering orders\n{then}\n");
    std::fs::write(&migrate, text).unwrap();
    std::fs::set_permissions(&migrate, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let (code, told) =
        lab.mainstay(&["release", "web", "--from", directory.to_str().unwrap(), "--bake", "500ms"]);
    println!("release {name}: {code:?}\n{told}");
    (code, told)
}

/// What migrations have written.
fn lines(folder: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join("lines")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn wait_for(lab: &Lab, what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "{what}\n{}", lab.mainstay(&["release", "status"]).1);
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The instances with their states, in the order of their names.
fn instances(lab: &Lab) -> Vec<String> {
    let all = lab.instances().into_iter();
    let mut all: Vec<String> = all.map(|i| format!("{} {} {}", i["id"], i["address"], i["state"])).collect();
    all.sort();
    all
}

/// Lets migrations run on a node whose agent does not lead; says on which.
fn beside_the_leader(lab: &Lab, path: &Path, port: u16) -> &'static str {
    loop {
        let leads = lab.leader();
        let other = ["e1", "e2", "e3"].into_iter().find(|node| *node != leads).unwrap();
        std::fs::write(path, file(port, other)).unwrap();
        lab.succeeds(&["apply", path.to_str().unwrap(), "--yes"]);
        if lab.leader() != other {
            return other;
        }
    }
}

/// Kills an agent while the migration of the release that is on its way runs.
fn kill_in_the_migration(lab: &Lab, folder: &Path, release: &str, node: &str) {
    let begun = format!("{release} ");
    wait_for(lab, "the migration begins", || lines(folder).iter().any(|line| line.starts_with(&begun)));
    let (_, status) = lab.mainstay(&["status"]);
    assert!(status.contains("before it begins: run"), "{status}");
    lab.kill_agent(node);
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
    let lab = &Lab::up(NAME, &path);

    // Its first release; there is nothing to run from before.
    let (code, told) = lab.mainstay(&["job", "run", "migrate"]);
    assert_eq!(code, Some(3), "{told}");
    assert!(told.contains("migrate runs from a release, and there is none yet"), "{told}");
    assert_eq!(release(lab, folder.path(), "one", "exit 0").0, Some(0));
    assert_eq!(lines(folder.path()), ["one migrate-1 on e1"]);
    let load = Load::begin((Ipv4Addr::LOCALHOST, port).into(), "/");

    // The leader's agent dies in the middle, on another node than the run.
    let other = beside_the_leader(lab, &path, port);
    let leads = lab.leader();
    let (code, told) = std::thread::scope(|scope| {
        scope.spawn(|| kill_in_the_migration(lab, folder.path(), "two", &leads));
        release(lab, folder.path(), "two", "sleep 5")
    });
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(lines(folder.path()).len(), 2, "{:?}", lines(folder.path()));

    // A migration that fails: in words, and nothing has moved.
    wait_for(lab, "two instances", || instances(lab).len() == 2);
    let before = instances(lab);
    let (code, told) = release(lab, folder.path(), "three", "echo no column total >&2; exit 3");
    assert_eq!(code, Some(1), "{told}");
    for words in [
        "release 3 of web was not begun: run 3 of migrate failed: it ended with exit code 3",
        "| altering orders",
        "| no column total",
        "mainstay job logs migrate 3",
    ] {
        assert!(told.contains(words), "{words} is not in {told}");
    }
    assert_eq!(instances(lab), before, "an instance has changed");
    assert!(lab.succeeds(&["release", "history", "web"]).contains("not begun: run 3 of migrate failed"));
    assert!(lab.succeeds(&["why", "web"]).contains("release 3 was not begun: run 3 of migrate failed"));

    // One that hangs, and one whose own node's agent dies: nobody knows how it ended, and nobody runs it again.
    let (code, told) = release(lab, folder.path(), "four", "sleep 1000");
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("did not end within 15s and was ended"), "{told}");
    let (code, told) = std::thread::scope(|scope| {
        scope.spawn(|| kill_in_the_migration(lab, folder.path(), "five", other));
        release(lab, folder.path(), "five", "sleep 5")
    });
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("run 5 of migrate has an unknown outcome"), "{told}");
    wait_for(lab, "two instances", || instances(lab) == before);

    // Going back needs no migration; an operator's own run is from the release that serves.
    lab.succeeds(&["release", "rollback", "web"]);
    lab.succeeds(&["job", "run", "migrate"]);
    let all = lines(folder.path());
    let names: Vec<&str> = all.iter().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(names, ["one", "two", "three", "four", "five", "one"]);
    let (ok, failed) = load.end();
    println!("{ok} requests answered, {} failed: {:?}", failed.len(), failed.first());
    assert!(ok > 1000 && failed.is_empty(), "{failed:?}");
}
