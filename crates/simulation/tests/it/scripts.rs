//! Every script in `scripts/` does what it says; `RENEW_SCRIPTS=1 cargo test -p simulation` writes down what it does now.

use std::fs;
use std::path::{Path, PathBuf};

use model::script::{self, ScriptFile};
use simulation::World;

fn files() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let entries = fs::read_dir(directory).expect("crates/simulation/scripts");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a file's name").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "script"));
    files.sort();
    files
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[test]
fn every_script_does_what_it_says() {
    let renews = std::env::var_os("RENEW_SCRIPTS").is_some();
    let mut wrong = vec![];
    for path in files() {
        let text = fs::read_to_string(&path).unwrap();
        let file = script::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", name(&path)));
        let told = World::tell_all(&file.script);
        if let Err(violation) = &told.result {
            panic!("{}: {violation}", name(&path));
        }
        let now = ScriptFile { transcript: told.transcript, story: told.story, ..file.clone() }.to_string();
        if renews && now != text {
            fs::write(&path, &now).unwrap();
        } else if now != text {
            wrong.push(format!("{}:\n{}", name(&path), difference(&text, &now)));
        }
    }
    assert!(wrong.is_empty(), "{}\nRENEW_SCRIPTS=1 cargo test -p simulation renews them", wrong.join("\n"));
}

/// The lines that differ, with those around them: `-` stands in the file, `+` is what happens now.
fn difference(old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let alike = |a: &[&str], b: &[&str], from_end: bool| {
        let pairs = (0..a.len().min(b.len())).take_while(|at| match from_end {
            true => a[a.len() - 1 - at] == b[b.len() - 1 - at],
            false => a[*at] == b[*at],
        });
        pairs.count()
    };
    let before = alike(&old, &new, false);
    let behind = alike(&old[before..], &new[before..], true);
    let part = |lines: &[&str], mark: &str| -> String {
        lines.iter().map(|line| format!("{mark} {line}\n")).collect()
    };
    let (from, to) = (before.saturating_sub(3), (old.len() - behind + 3).min(old.len()));
    [
        format!("line {}\n", before + 1),
        part(&old[from..before], " "),
        part(&old[before..old.len() - behind], "-"),
        part(&new[before..new.len() - behind], "+"),
        part(&old[old.len() - behind..to], " "),
    ]
    .concat()
}

#[test]
fn there_are_scripts_for_the_simulator_and_for_the_lab() {
    let parsed: Vec<ScriptFile> =
        files().iter().map(|path| script::parse(&fs::read_to_string(path).unwrap()).unwrap()).collect();
    assert!(parsed.len() >= 20, "only {} scripts", parsed.len());
    assert!(parsed.iter().filter(|file| file.in_the_lab).count() >= 8);
    let unexplained: Vec<&str> =
        parsed.iter().filter(|file| file.about.len() < 3).map(|file| file.about[0].as_str()).collect();
    assert!(unexplained.is_empty(), "a title alone does not say why: {unexplained:?}");
}

#[test]
fn a_difference_shows_what_changed_and_what_stands_around_it() {
    assert_eq!(
        difference("a\nb\nc\nd\ne", "a\nb\nx\ny\nd\ne"),
        "line 3\n  a\n  b\n- c\n+ x\n+ y\n  d\n  e\n"
    );
    assert_eq!(difference("a", "a\nb"), "line 2\n  a\n+ b\n");
}
