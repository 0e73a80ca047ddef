//! The house rules as a program (`cargo run -p tidy`) and as a test.
//!
//! Every rule reads the work tree as text and reports `file:line: what`, why the rule exists and how to obey it.
//! Old sinners stand in `tidy/ratchet.toml` with their present size, which may only go down.

mod checks;
mod code;
mod problem;
mod ratchet;
mod tree;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use ratchet::Ratchet;
use tree::Tree;

fn main() -> ExitCode {
    match run(std::env::args().nth(1).as_deref()) {
        Ok(0) => {
            println!("tidy: all house rules hold");
            ExitCode::SUCCESS
        }
        Ok(problems) => {
            eprintln!("tidy: {problems} house rules are broken");
            ExitCode::FAILURE
        }
        Err(reason) => {
            eprintln!("tidy: {reason}");
            ExitCode::from(2)
        }
    }
}

/// Checks the repository, or with `--lower` lowers the ratchet to today's sizes. Returns the number of problems.
fn run(argument: Option<&str>) -> Result<usize, String> {
    let tree = Tree::read(&root())?;
    match argument {
        None => {
            let problems = checks::all(&tree, &built(&root())?)?;
            for problem in &problems {
                eprintln!("{problem}\n");
            }
            Ok(problems.len())
        }
        Some("--lower") => {
            let lowered = Ratchet::of(&tree)?.lowered(&tree);
            std::fs::write(root().join(ratchet::PATH), lowered.to_text())
                .map_err(|e| format!("cannot write {}: {e}", ratchet::PATH))?;
            Ok(0)
        }
        Some(other) => Err(format!("unknown argument `{other}`: there is only `--lower`")),
    }
}

/// Every package that is compiled for the workspace, as cargo resolves features.
fn built(root: &Path) -> Result<BTreeSet<String>, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments =
        ["tree", "--workspace", "--edges", "normal,build,dev", "--prefix", "none", "--format", "{p}"];
    let output = Command::new(cargo).args(arguments).current_dir(root).output();
    let output = output.map_err(|e| format!("cannot run `cargo tree`: {e}"))?;
    if !output.status.success() {
        return Err(format!("`cargo tree` failed: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let lines = String::from_utf8_lossy(&output.stdout);
    Ok(lines.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
}

/// The repository: the directory above this crate.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_obeys_its_house_rules() {
        let tree = Tree::read(&root()).unwrap();
        let problems = checks::all(&tree, &built(&root()).unwrap()).unwrap();
        let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert!(text.is_empty(), "\n{}", text.join("\n\n"));
    }
}
