//! Instances that follow the load of a real system, with clients that never send a request twice.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::lab::Lab;
use super::releases::{Load, build, free_port};

const NAME: &str = "scaling-e2e";

/// How long anything may take. A machine under test may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

const COOL_DOWN: Duration = Duration::from_secs(8);

/// So many clients never have more under way than one instance is for.
const LIGHT: usize = 4;

/// The 20 clients of a load for the slow page, which takes 300 ms, have nearly 20 requests under way: work for five. Four are asked for, because a busy machine
/// lets clients pause.
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

/// How many instances run, and how many the leader wants.
fn counts(lab: &Lab) -> (usize, Option<u64>) {
    let ready = lab.instances().iter().filter(|instance| instance["state"] == "ready").count();
    (ready, lab.status()["scaled"]["web"]["wanted"].as_u64())
}

/// Waits until the counts are as they should be; how long that took.
#[track_caller]
fn settles(lab: &Lab, what: &str, is_so: impl Fn((usize, Option<u64>)) -> bool) -> Duration {
    let begun = Instant::now();
    while !is_so(counts(lab)) {
        let (_, told) = lab.mainstay(&["status"]);
        assert!(begun.elapsed() < PATIENCE, "{what}: {:?}\n{told}", counts(lab));
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("{what} after {:.1} s", begun.elapsed().as_secs_f32());
    begun.elapsed()
}

/// While the lead changes, no instance ends.
fn stays_while_the_leader_dies(lab: &Lab) {
    lab.kill_agent(&lab.leader());
    let begun = Instant::now();
    while begun.elapsed() < COOL_DOWN + Duration::from_secs(2) {
        // An agent that has just started knows of no instance yet; those of the others are not to become fewer.
        if let (_, Some(wanted)) = counts(lab) {
            assert!(wanted >= 4, "a new leader wants {wanted}");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    settles(lab, "all are there under a new leader", |(ready, wanted)| ready >= 4 && wanted >= Some(4));
}

#[test]
fn instances_follow_the_load_up_and_down_and_no_request_fails() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mainstay.toml");
    let port = free_port();
    std::fs::write(&path, file(port)).unwrap();
    let lab = &Lab::up(NAME, &path);
    let release = |name: &str| {
        let from = build(folder.path(), name, "");
        lab.succeeds(&["release", "web", "--from", from.to_str().unwrap(), "--bake", "500ms"]);
    };
    release("one");

    let at = (Ipv4Addr::LOCALHOST, port).into();
    let light = Load::of(LIGHT, at, "/");
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(counts(lab), (2, Some(2)), "{}", lab.mainstay(&["status"]).1);
    let heavy = Load::begin(at, "/slow");
    let risen = settles(lab, "four are ready", |(ready, wanted)| ready >= 4 && wanted >= Some(4));
    let (_, told) = lab.mainstay(&["status"]);
    println!("{told}");
    assert!(told.contains("requests are under way") && told.contains("2 to 6"), "{told}");
    stays_while_the_leader_dies(lab);

    release("two");
    let (ready, wanted) = counts(lab);
    assert!(ready >= 4, "a release has left {ready} instances, {wanted:?} wanted");

    println!("{}", lab.succeeds(&["scale", "web", "3"]));
    let (_, told) = lab.mainstay(&["status"]);
    assert!(told.contains("by an operator's word, until `mainstay scale web --undo`"), "{told}");
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(counts(lab), (3, None), "an operator's word holds against the load");
    println!("{}", lab.succeeds(&["scale", "web", "--undo"]));
    settles(lab, "four are ready again", |(ready, wanted)| ready >= 4 && wanted >= Some(4));

    let (ok, failed) = heavy.end();
    println!("heavy load: {ok} requests answered, {} failed: {:?}", failed.len(), failed.first());
    assert!(ok > 500 && failed.is_empty(), "{failed:?}");
    let fallen = settles(lab, "two are left", |counts| counts == (2, Some(2)));
    assert!(fallen >= COOL_DOWN, "they ended after {fallen:?}");
    let (ok, failed) = light.end();
    println!("light load: {ok} requests answered, {} failed: {:?}", failed.len(), failed.first());
    assert!(ok > 1000 && failed.is_empty(), "{failed:?}");
    assert!(risen < Duration::from_secs(40), "they rose after {risen:?}");
    let (_, told) = lab.mainstay(&["events"]);
    assert!(told.contains("instances run instead of"), "{told}");
}
