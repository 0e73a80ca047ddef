//! Help texts, completions, the schema, and what happens to a wrong command line.

use super::{command, mainstay};

const COMMANDS: [&str; 27] = [
    "check",
    "up",
    "down",
    "status",
    "switchover",
    "failover",
    "restart",
    "pause",
    "resume",
    "apply",
    "release",
    "scale",
    "drain",
    "undrain",
    "events",
    "why",
    "logs",
    "job",
    "psql",
    "drill",
    "lab",
    "schema",
    "completions",
    "init",
    "token",
    "join",
    "authority",
];

#[test]
fn the_help_names_every_command() {
    let help = mainstay(&["--help"]);
    for name in COMMANDS {
        assert!(help.contains(&format!("\n  {name} ")), "{name}: {help}");
    }
    for hidden in ["agent", "proxy", "lab-node"] {
        assert!(!help.contains(&format!("\n  {hidden} ")), "{hidden}: {help}");
    }
    insta::assert_snapshot!(help);
}

#[test]
fn every_command_explains_itself_with_examples() {
    for name in COMMANDS {
        let help = mainstay(&[name, "--help"]);
        assert!(
            help.contains(&format!("Examples:\n  mainstay {name}")) || help.contains("  sudo mainstay"),
            "{help}"
        );
        insta::assert_snapshot!(format!("help-{name}"), help);
    }
    insta::assert_snapshot!("help-drill-run", mainstay(&["drill", "run", "--help"]));
    insta::assert_snapshot!("help-drill-check", mainstay(&["drill", "check", "--help"]));
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    for arguments in [
        &["chek"][..],
        &["check"],
        &["status", "--json", "--watch"],
        &["failover", "orders", "--to", "w1"],
        &["drill", "run", "node-kill", "--runs", "0"],
        &["completions", "tcsh"],
        &["--color", "sometimes", "schema"],
    ] {
        let output = command(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
    insta::assert_snapshot!(mainstay(&["chek"]));
}

#[test]
fn the_schema_is_printed_as_json() {
    let output = command(&["schema"]).output().unwrap();
    let printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed, model::system::schema());
}

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let script = mainstay(&["completions", shell]);
        assert!(script.starts_with("exit code: 0\n"), "{script}");
        for name in COMMANDS {
            assert!(script.contains(name), "{shell}: {name}");
        }
    }
}

#[test]
fn a_bash_script_of_completions_is_sound() {
    let script = command(&["completions", "bash"]).output().unwrap().stdout;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mainstay.bash");
    std::fs::write(&file, script).unwrap();
    let checked = std::process::Command::new("bash").arg("-n").arg(&file).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let binary = env!("CARGO_BIN_EXE_mainstay");
    let piped = format!("'{binary}' schema | head -n 1; echo \"${{PIPESTATUS[0]}}\"");
    let output = std::process::Command::new("bash").args(["-c", &piped]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "{\n0\n");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}
