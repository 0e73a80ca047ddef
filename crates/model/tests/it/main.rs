//! The system file from the outside: what is accepted, what is refused and why.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

mod carriage;
mod change;
mod hostile;
mod malformed;
mod reference;
mod schema;
mod valid;

use std::path::{Path, PathBuf};

/// The `.toml` files of `tests/FOLDER`, by name.
fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .collect();
    files.sort();
    files
}

/// The words of the first line behind `# KEY:`.
fn announced(text: &str, key: &str) -> Vec<String> {
    let line = text.lines().next().and_then(|line| line.strip_prefix(&format!("# {key}:")));
    line.unwrap_or_else(|| panic!("the first line must be `# {key}: ...`"))
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

/// The text of `tests/valid/NAME.toml`.
fn read_valid(name: &str) -> String {
    let path = files("valid").into_iter().find(|path| path.file_stem().unwrap() == name).unwrap();
    std::fs::read_to_string(path).unwrap()
}
