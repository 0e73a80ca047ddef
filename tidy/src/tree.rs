//! The work tree as text.

use std::fs;
use std::path::Path;

/// Directories that are not ours or not source.
const SKIPPED: [&str; 3] = ["target", ".git", "node_modules"];

/// Files above this size are data, not source.
const LARGEST: u64 = 2_000_000;

/// One text file.
#[derive(Clone, Debug)]
pub(crate) struct SourceFile {
    /// Relative to the repository, with `/`.
    pub(crate) path: String,
    /// The whole content.
    pub(crate) text: String,
}

/// All text files of the repository, sorted by path.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    files: Vec<SourceFile>,
}

impl SourceFile {
    /// Lines with their numbers from 1.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(n, line)| (n + 1, line))
    }

    /// The crate's directory when this is a source file of a crate: `crates/lab` of `crates/lab/src/lib.rs`.
    pub(crate) fn crate_dir(&self) -> Option<&str> {
        let end = self.path.find("/src/").or_else(|| self.path.find("/tests/"))?;
        Some(&self.path[..end])
    }
}

impl Tree {
    /// Reads every text file below `root`, tracked or not: a rule must hold before the commit.
    pub(crate) fn read(root: &Path) -> Result<Self, String> {
        let mut files = Vec::new();
        collect(root, "", &mut files)?;
        Ok(Self::of(files))
    }

    /// A tree of these files.
    pub(crate) fn of(mut files: Vec<SourceFile>) -> Self {
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Self { files }
    }

    /// Every text file.
    pub(crate) fn files(&self) -> impl Iterator<Item = &SourceFile> {
        self.files.iter()
    }

    /// Every Rust file.
    pub(crate) fn rust(&self) -> impl Iterator<Item = &SourceFile> {
        self.files().filter(|file| file.path.ends_with(".rs"))
    }

    /// The file of this path.
    pub(crate) fn file(&self, path: &str) -> Option<&SourceFile> {
        self.files.binary_search_by(|file| file.path.as_str().cmp(path)).ok().map(|at| &self.files[at])
    }

    /// The `Cargo.toml` of every crate (not the workspace's).
    pub(crate) fn manifests(&self) -> impl Iterator<Item = &SourceFile> {
        self.files().filter(|file| file.path.ends_with("/Cargo.toml"))
    }
}

fn collect(root: &Path, below: &str, files: &mut Vec<SourceFile>) -> Result<(), String> {
    let dir = root.join(below);
    let entries = fs::read_dir(&dir).map_err(|e| format!("cannot list {}: {e}", dir.display()))?;
    for entry in entries {
        let entry = entry.map_err(|e| format!("cannot list {}: {e}", dir.display()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && !SKIPPED.contains(&name.as_str()) {
            collect(root, &path, files)?;
        } else if kind.is_file() && entry.metadata().is_ok_and(|m| m.len() <= LARGEST) {
            // A file that vanished meanwhile or is not text is nobody's source.
            if let Ok(text) = fs::read_to_string(entry.path()) {
                files.push(SourceFile { path, text });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) fn tree(files: &[(&str, &str)]) -> Tree {
    let file = |(path, text): &(&str, &str)| SourceFile { path: (*path).into(), text: (*text).into() };
    Tree::of(files.iter().map(file).collect())
}
