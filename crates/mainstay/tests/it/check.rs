//! `mainstay check` on good and bad files.

use std::path::Path;

use super::{command, examples, mainstay, mainstay_in};

/// The names of the `.toml` files of `folder`.
fn names(folder: &Path) -> Vec<String> {
    let entries =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.filter(|name| name.ends_with(".toml")).collect();
    names.sort();
    names
}

#[test]
fn every_malformed_file_is_shown_with_what_where_why_and_what_to_write() {
    let folder = examples("malformed");
    let names = names(&folder);
    assert!(names.len() >= 24, "only {} malformed files", names.len());
    for name in names {
        let told = mainstay_in(&folder, &["check", &name]);
        assert!(told.starts_with("exit code: 2\n--- stdout\n--- stderr\nError: "), "{name}: {told}");
        insta::assert_snapshot!(format!("malformed-{}", name.trim_end_matches(".toml")), told);
    }
}

#[test]
fn every_valid_file_is_shown_as_it_was_understood() {
    let folder = examples("valid");
    for name in names(&folder) {
        let told = mainstay_in(&folder, &["check", &name]);
        assert!(told.starts_with("exit code: 0\n"), "{name}: {told}");
        insta::assert_snapshot!(format!("valid-{}", name.trim_end_matches(".toml")), told);
    }
}

#[test]
fn the_sample_system_is_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/shop");
    let told = mainstay_in(&folder, &["check", "mainstay.toml"]);
    assert!(told.starts_with("exit code: 0\n"), "{told}");
}

#[test]
fn a_missing_file_is_an_error_of_the_command_line() {
    insta::assert_snapshot!(mainstay(&["check", "/nowhere/mainstay.toml"]));
}

#[test]
fn a_directory_is_no_system_file() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("mainstay.toml"), "").unwrap();
    insta::assert_snapshot!(mainstay_in(folder.path(), &["check", "."]));
}

#[test]
fn bytes_that_drive_a_terminal_are_not_passed_on() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[system]\nname = \"\u{1b}[31mred\u{9b}\"\n# \u{1b}]0;title\u{7}\n[nodes.\"\u{1b}[2J\"]\naddress = \"10.0.0.1\"\n";
    std::fs::write(folder.path().join("evil.toml"), text).unwrap();
    let told = mainstay_in(folder.path(), &["check", "evil.toml"]);
    assert!(told.chars().all(|c| !c.is_control() || c == '\n'), "{told:?}");
}

#[test]
fn a_file_of_one_long_line_does_not_fill_the_screen() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("long.toml"), format!("x = \"{}\"", "y".repeat(100_000))).unwrap();
    let told = mainstay_in(folder.path(), &["check", "long.toml"]);
    assert!(told.len() < 3_000, "{} bytes", told.len());
    assert!(told.contains("--> long.toml:1:1"), "{told}");
}

#[test]
fn json_says_the_same() {
    let valid =
        command(&["check", "--json", "two-sites.toml"]).current_dir(examples("valid")).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&valid.stdout).unwrap();
    assert_eq!(valid.status.code(), Some(0));
    assert_eq!(report["valid"], true);
    assert_eq!(report["system"]["name"], "two");
    assert_eq!(report["warnings"].as_array().unwrap().len(), 3);

    let invalid = command(&["check", "--json", "even-voters.toml"])
        .current_dir(examples("malformed"))
        .output()
        .unwrap();
    let report: serde_json::Value = serde_json::from_slice(&invalid.stdout).unwrap();
    assert_eq!(invalid.status.code(), Some(2));
    assert_eq!(report["system"], serde_json::Value::Null);
    insta::assert_snapshot!(serde_json::to_string_pretty(&report["errors"]).unwrap());
}

#[test]
fn colours_are_for_terminals_unless_asked_for() {
    let folder = examples("malformed");
    let plain = mainstay_in(&folder, &["check", "even-voters.toml"]);
    assert!(!plain.contains('\u{1b}'), "{plain}");
    let coloured = mainstay_in(&folder, &["--color", "always", "check", "even-voters.toml"]);
    assert!(coloured.contains('\u{1b}'), "{coloured}");
}
