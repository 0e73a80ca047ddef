//! Runs the simulator against every seeded bug: `cargo run --release -p simulation --example mutants -- [NAME ...]`.
//! First seeds, then the scripts: what they say is not compared, only invariants count.
//!
//! The bugs are built into a copy of the decisions, below `target/mutants`, all at once, each behind a question that the
//! environment answers: what is shipped has no trace of them. Exit code 1 when one survives.

mod catalogue;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{fs, io};

use catalogue::{MUTANTS, Mutant};

/// A bug that lives through so many seeds survives.
const SEEDS: u32 = 2000;

/// Names the bug that a run has.
const SWITCH: &str = "SIMULATION_MUTANT";

/// What the copy has and the original has not.
const MODULE: &str = r#"//! Which seeded bug this run has.
/// Whether it is `name`.
pub fn is_on(name: &str) -> bool {
    static ON: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    ON.get_or_init(|| std::env::var("SIMULATION_MUTANT").ok()).as_deref() == Some(name)
}
"#;

fn main() -> ExitCode {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let chosen = MUTANTS.iter().filter(|m| names.is_empty() || names.iter().any(|name| name == m.name));
    match run(&chosen.collect::<Vec<_>>()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("mutants: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(chosen: &[&Mutant]) -> Result<bool, Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let copy = root.join("target/mutants");
    copy_tree(&root, &copy)?;
    let sweep = build(&copy)?;
    if let Some(found) = killed(&sweep, "", &["0", "50", "--brief"])? {
        return Err(format!("without any bug the simulator reports one: {found}").into());
    }
    println!("{:<50} {:>5}  killed by", "bug", "seed");
    let scripts = scripts(&root)?;
    let scripts: Vec<&str> = scripts.iter().map(String::as_str).collect();
    let mut survivors = 0;
    for mutant in chosen {
        let by_seed = killed(&sweep, mutant.name, &["0", &SEEDS.to_string(), "--brief"])?;
        match by_seed.map_or_else(|| killed(&sweep, mutant.name, &scripts), |death| Ok(Some(death)))? {
            Some(Death { place, by }) => println!("{:<50} {place:>5}  {by}", mutant.name),
            None => {
                survivors += 1;
                println!("{:<50} {SEEDS:>5}  SURVIVED", mutant.name);
            }
        }
    }
    println!("{} bugs, {survivors} survived", chosen.len());
    Ok(survivors == 0)
}

/// How a bug was found.
struct Death {
    /// The seed, or the script.
    place: String,
    by: String,
}

impl std::fmt::Display for Death {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {}", self.by, self.place)
    }
}

/// All scripts.
fn scripts(root: &Path) -> io::Result<Vec<String>> {
    let mut scripts = vec![];
    for entry in fs::read_dir(root.join("crates/simulation/scripts"))? {
        scripts.push(entry?.path().to_string_lossy().into_owned());
    }
    scripts.retain(|path| path.ends_with(".script"));
    scripts.sort();
    Ok(scripts)
}

fn killed(sweep: &Path, name: &str, words: &[&str]) -> io::Result<Option<Death>> {
    let output = Command::new(sweep).args(words).env(SWITCH, name).output()?;
    if output.status.success() {
        return Ok(None);
    }
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = told.lines().find(|line| line.starts_with("seed ")).unwrap_or_default();
    // "seed 7 after 12 ms: invariant: what was found"
    let seed = line.strip_prefix("seed ").and_then(|rest| rest.split(' ').next()).unwrap_or("?");
    let by = line.split(": ").nth(1).unwrap_or("a panic");
    let script = told.lines().find_map(|line| line.strip_suffix(".script")?.rsplit('/').next());
    Ok(Some(Death { place: script.unwrap_or(seed).to_owned(), by: by.to_owned() }))
}

fn build(copy: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .current_dir(copy)
        .args(["build", "--quiet", "--release", "--offline", "-p", "simulation", "--example", "sweep"])
        .env("CARGO_TARGET_DIR", copy.join("target"))
        .env("RUSTFLAGS", "--cap-lints=allow")
        .status()?;
    if !status.success() {
        return Err("the copy with the bugs does not compile: an expression in the catalogue is wrong".into());
    }
    Ok(copy.join("target/release/examples/sweep"))
}

fn copy_tree(root: &Path, copy: &Path) -> Result<(), Box<dyn Error>> {
    let mut files = BTreeMap::new();
    for part in ["model", "decide", "simulation"] {
        read(root, &root.join("crates").join(part), &mut files)?;
    }
    let manifest = fs::read_to_string(root.join("Cargo.toml"))?;
    let needed = |line: &&str| !line.starts_with("[patch") && !line.starts_with("base2histogram");
    let members = |line: &str| {
        if line.starts_with("members") { "members = [\"crates/*\"]".to_owned() } else { line.to_owned() }
    };
    let manifest: Vec<String> = manifest.lines().filter(needed).map(members).collect();
    files.insert("Cargo.toml".into(), manifest.join("\n"));
    files.insert("Cargo.lock".into(), fs::read_to_string(root.join("Cargo.lock"))?);
    files.insert("crates/model/src/mutants.rs".into(), MODULE.to_owned());
    let library = files.get_mut(Path::new("crates/model/src/lib.rs")).ok_or("crate `model` has no lib.rs")?;
    library.push_str("\npub mod mutants;\n");
    sow(&mut files)?;
    for (file, text) in files {
        write(&copy.join(file), &text)?;
    }
    Ok(())
}

/// Puts every bug beside the expression that it spoils.
fn sow(files: &mut BTreeMap<PathBuf, String>) -> Result<(), String> {
    for mutant in MUTANTS {
        let file = Path::new("crates").join(mutant.file);
        let text = files.get_mut(&file).ok_or_else(|| format!("{} is no file", mutant.file))?;
        let (place, expression) = mutant.place();
        let found: Vec<usize> = text.match_indices(&place).map(|(at, _)| at).collect();
        let [at] = found.as_slice() else {
            return Err(format!(
                "`{}`: its original stands {} times in {}, and must stand there once: {place}",
                mutant.name,
                found.len(),
                mutant.file
            ));
        };
        let range = at + expression.start..at + expression.end;
        let home = if mutant.file.starts_with("model/") { "crate" } else { "model" };
        let (name, wrong, right) = (mutant.name, mutant.mutated, &place[expression]);
        let both = format!("(if {home}::mutants::is_on({name:?}) {{ {wrong} }} else {{ {right} }})");
        text.replace_range(range, &both);
    }
    Ok(())
}

fn read(root: &Path, folder: &Path, files: &mut BTreeMap<PathBuf, String>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_source = path.extension().is_some_and(|extension| extension == "rs" || extension == "toml");
        if path.is_dir() {
            read(root, &path, files)?;
        } else if is_source {
            files.insert(path.strip_prefix(root)?.to_owned(), fs::read_to_string(&path)?);
        }
    }
    Ok(())
}

/// What has not changed is not touched, so that it is not compiled again.
fn write(path: &Path, text: &str) -> io::Result<()> {
    if fs::read_to_string(path).is_ok_and(|known| known == text) {
        return Ok(());
    }
    fs::create_dir_all(path.parent().unwrap_or(path))?;
    fs::write(path, text)
}
