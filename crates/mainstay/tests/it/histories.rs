//! `mainstay drill check` on saved histories.

use super::mainstay_in;

const VALID: &str = r#"{"register":{}}
{"client":1,"from":1000,"is":"ok","until":2000,"do":{"key":"r1","what":{"write":1}}}
{"client":2,"from":2500,"is":"unknown","do":{"key":"r1","what":{"write":2}}}
{"client":1,"from":3000,"is":"ok","until":4000,"do":{"key":"r1","what":{"read":{"value":1}}}}
"#;

/// Money that nobody moved.
const VIOLATED: &str = r#"{"bank":{"accounts":{"1":100,"2":100}}}
{"client":2,"from":1000,"is":"failed","do":{"transfer":{"from":1,"to":2,"amount":7}}}
{"client":1,"from":2000,"is":"ok","until":2400,"do":{"read":{"1":93,"2":107}}}
"#;

const UNDECIDED: &str = r#"{"set":{}}
{"client":1,"from":1000,"is":"ok","until":2000,"do":{"add":1}}
"#;

fn check(files: &[(&str, &str)], more: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let names: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
    mainstay_in(folder.path(), &[&["drill", "check"], names.as_slice(), more].concat())
}

#[test]
fn a_valid_history_ends_with_0() {
    let told = check(&[("r.jsonl", VALID)], &[]);
    let expected =
        "exit code: 0\n--- stdout\nr.jsonl: register, 2 operations ok, 0 failed, 1 unknown: valid\n";
    assert!(told.starts_with(expected), "{told}");
}

#[test]
fn a_violated_or_undecided_one_among_valid_ones_ends_with_4_and_says_why() {
    let told = check(&[("r.jsonl", VALID), ("b.jsonl", VIOLATED)], &[]);
    assert!(told.starts_with("exit code: 4\n"), "{told}");
    assert!(
        told.contains(
            "b.jsonl: bank, 1 operations ok, 1 failed, 0 unknown: VIOLATED\n  unexplained balances: "
        ),
        "{told}"
    );
    let told = check(&[("s.jsonl", UNDECIDED)], &[]);
    assert!(told.starts_with("exit code: 4\n"), "{told}");
    assert!(told.contains("undecided\n  nobody looked after 1 acknowledged values were added: 1"), "{told}");
}

#[test]
fn what_is_no_history_ends_with_2_and_names_the_line() {
    let told = check(&[("r.jsonl", &VALID.replace("unknown", "perhaps"))], &[]);
    assert!(
        told.starts_with("exit code: 2\n--- stdout\n--- stderr\nError: r.jsonl cannot be judged"),
        "{told}"
    );
    assert!(told.contains("line 3: unknown variant `perhaps`"), "{told}");
    let told = mainstay_in(std::path::Path::new("/"), &["drill", "check", "/nowhere.jsonl"]);
    assert!(told.starts_with("exit code: 2\n"), "{told}");
}

#[test]
fn programs_get_the_same_as_json() {
    let told = check(&[("b.jsonl", VIOLATED)], &["--json"]);
    let json = told.split("--- stdout\n").nth(1).unwrap().split("--- stderr").next().unwrap();
    let rows: serde_json::Value = serde_json::from_str(json).unwrap();
    let row = &rows[0];
    assert_eq!((&row["file"], &row["workload"]), (&"b.jsonl".into(), &"bank".into()), "{told}");
    assert_eq!((&row["ok"], &row["failed"], &row["unknown"]), (&1.into(), &1.into(), &0.into()), "{told}");
    assert_eq!(row["verdict"], "violated", "{told}");
    assert!(row["because"][0].as_str().unwrap().starts_with("unexplained balances"), "{told}");
}
