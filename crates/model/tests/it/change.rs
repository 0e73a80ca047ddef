//! What `mainstay apply` says about a changed file.

use std::path::Path;

use model::system::{Change, Impact, System, difference, parse, parse_change};
use serde_json::Value;

use super::read_valid;

/// What follows from writing `new` where the valid file `name` says `old`.
fn changes(name: &str, replacements: &[(&str, &str)]) -> Vec<Change> {
    let text = read_valid(name);
    let before = parse("before", text.as_bytes()).unwrap().system;
    let changed = replacements.iter().fold(text, |text, (old, new)| {
        assert!(text.contains(old), "the file does not say {old:?}");
        text.replacen(old, new, 1)
    });
    let after = parse_change("after", changed.as_bytes(), &before)
        .unwrap_or_else(|invalid| panic!("{invalid}"))
        .system;
    difference(&before, &after)
}

fn told(changes: &[Change]) -> String {
    changes.iter().map(|change| format!("{:?}: {change}\n", change.impact)).collect()
}

#[test]
fn the_same_file_changes_nothing() {
    assert_eq!(changes("everything", &[]), []);
}

#[test]
fn a_database_changes() {
    let text = told(&changes(
        "everything",
        &[
            ("work_mem = \"64MB\"", "work_mem = \"32MB\", shared_buffers = \"1GB\""),
            ("max_connections = 300", "max_connections = 200"),
            ("\"pg_stat_statements.max\" = 1000, ", ""),
            (
                "[databases.carts]\n",
                "[databases.carts]\ndurability = \"async\"\nmax_loss = \"5s\"\nbin_dir = \"/opt/pg\"\n",
            ),
            ("port = 6000", "port = 6001"),
            ("members = [\"w1\", \"e1\"]", "members = [\"e1\", \"w1\"]"),
        ],
    ));
    insta::assert_snapshot!(text);
}

#[test]
fn members_come_and_go() {
    let text = told(&changes(
        "shop",
        &[
            ("[nodes.n1]", "[nodes.w2]\nsite = \"west\"\naddress = \"10.0.2.12\"\nvoter = false\n[nodes.n1]"),
            ("members = [\"e1\", \"e2\", \"w1\"]", "members = [\"e1\", \"w1\", \"w2\"]"),
        ],
    ));
    insta::assert_snapshot!(text);
    let text = told(&changes("shop", &[("[databases.orders]", "[databases.carts]\n[databases.orders]")]));
    insta::assert_snapshot!(text);
}

#[test]
fn a_service_changes() {
    let text = told(&changes(
        "everything",
        &[
            ("instances = 4", "instances = 6"),
            ("ports = \"21000-21009\"", "ports = \"22000-22009\""),
            ("interval = \"250ms\"", "interval = \"1s\""),
            ("nodes = [\"e1\", \"w1\"]\nports", "nodes = [\"e1\"]\nports"),
            ("_A1 = \"\"", "_A1 = \"x\""),
            ("[services.worker]\ncommand = [\"./worker\"]\n", ""),
            ("stop_grace = \"1m\"\n", ""),
            ("user = \"www-data\"", "[services.new]\ncommand = [\"./new\"]\ninstances = 2"),
        ],
    ));
    insta::assert_snapshot!(text);
}

#[test]
fn routes_nodes_and_the_rest_change() {
    let text = told(&changes(
        "everything",
        &[
            ("name = \"everything\"", "name = \"other\""),
            ("rto = \"2s\"", "rto = \"3s\""),
            ("listen = \"0.0.0.0:5432\"", "listen = \":5430\""),
            ("target = \"primary\"", "target = \"any\""),
            ("service = \"web\"", "service = \"queue\""),
            ("park_connections = 50", "park_connections = 60"),
            ("agent_port = 7000", "agent_port = 7001"),
            ("radio = \"10.9.2.11\"", "air = \"10.8.2.11\""),
            ("fibre = \"10.0.3.11\"", "fibre = \"10.0.3.12\""),
            ("notify = [\"https://hooks.example/ops\", ", "notify = ["),
            ("keep = \"1w\"", "keep = \"2w\""),
            ("[backups.logs]\nrepository = \"s3://bucket/logs\"\n", ""),
        ],
    ));
    insta::assert_snapshot!(text);
}

#[test]
fn what_was_chosen_stays_when_others_come() {
    // Sorted by name, the new ones would have taken the first port and the first block.
    let changes = changes(
        "shop",
        &[
            ("[databases.orders]", "[databases.accounts]\n[databases.orders]"),
            ("[services.web]", "[services.aaa]\ncommand = [\"./a\"]\n[services.web]"),
        ],
    );
    let touched: Vec<&str> = changes.iter().map(|change| change.path.as_str()).collect();
    assert_eq!(touched, ["databases.accounts", "services.aaa"]);
}

/// Every place where the two values differ when `value` is changed there.
fn places(path: &str, value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(key, value)| places(&format!("{path}/{key}"), value, found));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            found.push(path.to_owned())
        }
    }
}

#[test]
fn something_is_known_about_every_change() {
    let system = parse("everything", read_valid("everything").as_bytes()).unwrap().system;
    let json = serde_json::to_value(&system).unwrap();
    let mut found = vec![];
    places("", &json, &mut found);
    for place in found {
        let mut changed = json.clone();
        let value = changed.pointer_mut(&place).unwrap();
        *value = match &*value {
            Value::Number(number) => Value::from(number.as_u64().unwrap() + 1),
            Value::Bool(boolean) => Value::from(!boolean),
            Value::Array(_) => Value::from(vec!["e9"]),
            Value::Null | Value::String(_) | Value::Object(_) => Value::from("1d"),
        };
        // Texts with a form of their own (addresses, kinds) are changed by the other tests.
        let Ok(changed) = serde_json::from_value::<System>(changed) else {
            continue;
        };
        let changes = difference(&system, &changed);
        assert!(!changes.is_empty(), "{place}: no change was seen");
        for change in changes {
            assert!(!change.consequence.contains("nothing is known"), "{change}");
            assert_eq!(
                change.impact == Impact::Refused,
                change.consequence.starts_with("refused: "),
                "{change}"
            );
        }
    }
}

#[test]
fn relative_paths_are_taken_from_the_folder_of_the_file() {
    let mut system = parse("everything", read_valid("everything").as_bytes()).unwrap().system;
    system.resolve_paths(Path::new("/srv/shop"));
    let program = |name: &str| system.services[name].command[0].clone();
    assert_eq!(program("worker"), "/srv/shop/./worker");
    assert_eq!(program("web"), "/usr/bin/shop");
    assert_eq!(system.databases["orders"].bin_dir.as_deref(), Some(Path::new("/usr/lib/postgresql/15/bin")));
}

#[test]
fn addresses_of_others_change_and_never_become_what_runs_here() {
    let text = told(&changes(
        "everything",
        &[
            ("west = [\"10.0.6.1:8080\"]", "west = [\"10.0.6.1:8080\", \"10.0.6.2:8080\"]"),
            ("http = \"/alive\"", "http = \"/ready\""),
            ("addresses = [\"10.0.5.9:25\"]\n", "command = [\"./mail\", \"{port}\"]\n"),
            ("command = [\"./worker\"]\n", "addresses = [\"10.0.5.3:80\"]\n"),
        ],
    ));
    insta::assert_snapshot!(text);
    let text = told(&changes(
        "everything",
        &[
            ("[services.mail]\naddresses = [\"10.0.5.9:25\"]\nprotocol = \"tcp\"\n", ""),
            ("[services.worker]", "[services.new]\naddresses = [\"10.0.5.3:80\"]\n[services.worker]"),
        ],
    ));
    insta::assert_snapshot!(text);
}
