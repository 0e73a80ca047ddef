//! What the check of a file says about PostgreSQL settings agrees with PostgreSQL and with what writes its configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use effects::postgres::Settings;
use model::system::{needs_restart, parse};

/// What `postgres --describe-config` says of one setting.
struct Described {
    name: String,
    context: String,
    default: String,
}

/// Every installed `postgres`.
fn servers() -> Vec<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let servers: Vec<PathBuf> =
        versions.map(|v| v.unwrap().path().join("bin/postgres")).filter(|path| path.is_file()).collect();
    assert!(!servers.is_empty(), "no PostgreSQL below /usr/lib/postgresql: run `make setup`");
    servers
}

fn described(server: &PathBuf) -> Vec<Described> {
    let output = Command::new(server).arg("--describe-config").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let line = |line: &str| {
        let mut parts = line.split('\t');
        let name = parts.next().unwrap().to_owned();
        let context = parts.next().unwrap().to_owned();
        // Booleans are all described as FALSE, whatever their default.
        let default = match parts.nth(1).unwrap() {
            "BOOLEAN" => "on",
            "INTEGER" | "REAL" => "100",
            _ => parts.next().unwrap(),
        };
        Described { name, context, default: default.to_owned() }
    };
    text.lines().map(line).collect()
}

fn accepted(setting: &Described) -> bool {
    let (name, value) = (&setting.name, serde_json::to_string(&setting.default).unwrap());
    let file = format!(
        "[system]\nname = \"x\"\n[nodes.a]\naddress = \"10.0.0.1\"\n[nodes.b]\naddress = \"10.0.0.2\"\n\
         [nodes.c]\naddress = \"10.0.0.3\"\n[databases.d.parameters]\n{name} = {value}\n"
    );
    parse("x.toml", file.as_bytes()).is_ok()
}

#[test]
fn what_the_check_accepts_is_written_to_the_configuration() {
    // They may be said, because they are fixed to the same value anyway.
    const SAME: [&str; 2] = ["fsync", "full_page_writes"];
    for server in servers() {
        for setting in described(&server).iter().filter(|s| accepted(s) && !SAME.contains(&s.name.as_str())) {
            let parameters = BTreeMap::from([(setting.name.clone(), setting.default.clone())]);
            let settings = Settings { parameters, ..Settings::default() };
            assert_eq!(settings.refused(), [], "{} passes `mainstay check`", setting.name);
        }
    }
}

#[test]
fn what_needs_a_restart_is_known_before_it_is_changed() {
    for server in servers() {
        for setting in described(&server).iter().filter(|setting| accepted(setting)) {
            let restart = setting.context == "postmaster";
            assert_eq!(needs_restart(&setting.name), restart, "{} of {}", setting.name, server.display());
        }
    }
}
