//! A whole system in the lab: brought up from its file, hurt, measured, taken down without a trace.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Command, Output};

const NAME: &str = "e2e";

/// The shop with a name, addresses and ports of its own, so that it disturbs no other lab.
fn shop(name: &str, network: &str, ports: [u16; 3]) -> String {
    let shop = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/shop/mainstay.toml");
    let text = std::fs::read_to_string(shop).unwrap();
    let text = text.replace("name = \"shop\"", &format!("name = \"{name}\"")).replace("10.77.", network);
    let [web, writes, reads] = ports.map(|port| format!(":{port}"));
    text.replace(":8080", &web).replace(":5432", &writes).replace(":5433", &reads)
}

fn system_file(folder: &Path) -> std::path::PathBuf {
    let file = folder.join("mainstay.toml");
    std::fs::write(&file, shop(NAME, "10.79.", free_ports())).unwrap();
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
struct Down(&'static str);

impl Drop for Down {
    fn drop(&mut self) {
        let _ = mainstay(&["down", self.0]);
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
    let _down = Down(NAME);
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

/// What was applied, and how the shop's customers fared meanwhile.
struct Changed {
    failed: u64,
    report: serde_json::Value,
}

/// Applies `text` while orders are placed; every order must be booked exactly once. How long the longest gap was is
/// printed and not judged: a test machine may be busy.
fn apply_under_load(file: &Path, text: &str, system: &str, url: &str) -> Changed {
    std::fs::write(file, text).unwrap();
    let shop = Path::new(env!("CARGO_BIN_EXE_mainstay")).with_file_name("shop");
    let load = Command::new(shop)
        .args(["load", "--url", url, "--rate", "30", "--for", "25", "--patience", "60", "--json"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let told = succeeds(&["apply", file.to_str().unwrap(), "--yes", "--system", system]);
    let output = load.wait_with_output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    println!("{}: gap {} ms, {} failed", told.trim(), report["longest_gap_ms"], report["errors"]);
    assert!(output.status.success(), "{report:#}");
    assert!(report["ok"].as_u64().unwrap() > 300, "there was hardly any load: {report:#}");
    assert_eq!(report["failed"], 0, "{report:#}");
    for count in ["lost", "doubled"] {
        assert_eq!(report["verified"][count], serde_json::json!([]), "{report:#}");
    }
    Changed { failed: report["errors"].as_u64().unwrap(), report }
}

/// What every member says of a setting.
fn settings(system: &str) -> Vec<(String, u64)> {
    let status: serde_json::Value =
        serde_json::from_str(&succeeds(&["status", "--json", "--system", system])).unwrap();
    let text = status.to_string();
    assert!(!text.contains("max_connections"), "somebody waits for a restart: {text}");
    let shown = |route: &str| {
        let psql = ["psql", "orders", "--route", route, "--system", system];
        let show = ["--", "-Atc", "SHOW max_connections"];
        (route.to_owned(), succeeds(&[&psql[..], &show[..]].concat()).trim().parse().unwrap())
    };
    ["orders-rw", "orders-ro"].map(shown).into()
}

#[test]
fn what_needs_restarts_and_a_new_node_lose_no_order() {
    const ROLLS: &str = "rolls-e2e";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mainstay.toml");
    let ports = free_ports();
    let plain = shop(ROLLS, "10.85.", ports);
    std::fs::write(&file, &plain).unwrap();
    let _down = Down(ROLLS);
    succeeds(&["up", file.to_str().unwrap()]);
    let with = |parameters: &str| format!("{plain}\n[databases.orders.parameters]\n{parameters}\n");
    let url = &format!("http://127.0.0.1:{}", ports[0]);
    let both = |value: u64| ["orders-rw", "orders-ro"].map(|route| (route.to_owned(), value)).to_vec();

    apply_under_load(&file, &with("max_connections = 150"), ROLLS, url);
    assert_eq!(settings(ROLLS), both(150));
    apply_under_load(&file, &with("max_connections = 60"), ROLLS, url);
    assert_eq!(settings(ROLLS), both(60));
    let last = with("max_connections = 60\nshared_buffers = \"64MB\"");
    apply_under_load(&file, &last, ROLLS, url);

    let node = "[nodes.w2]\nsite = \"west\"\naddress = \"10.85.2.12\"\nvoter = false\n";
    let added = apply_under_load(&file, &format!("{last}\n{node}"), ROLLS, url);
    assert_eq!(added.failed, 0, "{:#}", added.report);
    let env = format!("{last}\n{node}").replace("MAINSTAY_NODE =", "COLOUR = \"blue\"\nMAINSTAY_NODE =");
    let replaced = apply_under_load(&file, &env, ROLLS, url);
    assert_eq!(replaced.failed, 0, "{:#}", replaced.report);
    let restarted = succeeds(&["restart", "orders", "--system", ROLLS]);
    assert!(restarted.starts_with("database/orders has restarted"), "{restarted}");
}

/// Three scripts of the simulator on a real system: what comes of them must be what the scripts say, line by line.
#[test]
fn a_real_system_does_what_the_simulator_says() {
    const REPLAYS: &str = "replays-e2e";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mainstay.toml");
    std::fs::write(&file, shop(REPLAYS, "10.86.", free_ports())).unwrap();
    let _down = Down(REPLAYS);
    succeeds(&["up", file.to_str().unwrap()]);
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../simulation/scripts");
    for name in ["postmaster-killed", "primary-cut-off", "all-nodes-lose-power"] {
        let script = scripts.join(name).with_extension("script");
        let told = succeeds(&["drill", "replay", script.to_str().unwrap(), "--system", REPLAYS]);
        assert!(
            told.ends_with("  => B leads; follows: A, C; confirmed by A or C; writes are acknowledged\n"),
            "{told}"
        );
    }
    // What is not the same must not pass: a story that another fault tells.
    let script = std::fs::read_to_string(scripts.join("postmaster-killed.script")).unwrap();
    let other = folder.path().join("other.script");
    std::fs::write(&other, script.replace(": kill the postmaster of the primary", ": switch over")).unwrap();
    let output = mainstay(&["drill", "replay", other.to_str().unwrap(), "--system", REPLAYS]);
    let told = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("|   term 1: A hands over to B"), "{told}");
}
