//! Which program a node has chosen, and how it may change.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use effects::files::write_atomic;
use model::status::Program;
use serde::{Deserialize, Serialize};

/// What a node remembers of its programs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// The one that runs; `None`: the installed one.
    pub chosen: Option<Program>,
    /// The one before, which can be gone back to.
    pub former: Option<Program>,
    /// The chosen one has not proved itself yet.
    #[serde(default)]
    pub on_trial: bool,
    /// The installed program as it was when another one was chosen.
    #[serde(default)]
    pub installed: Option<Installed>,
    /// The one that was taken back last, with the reason.
    #[serde(default)]
    pub refused: Option<(Program, String)>,
    /// An event has told of that.
    #[serde(default)]
    pub told: bool,
    /// How long connections may stay with a proxy that is replaced, in seconds.
    #[serde(default)]
    pub drain_s: Option<u64>,
}

/// By what a file is known to be the same as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    size: u64,
    modified: i64,
    modified_ns: i64,
}

impl Installed {
    /// The file as it is now.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let facts = fs::metadata(path).ok()?;
        Some(Self { size: facts.len(), modified: facts.mtime(), modified_ns: facts.mtime_nsec() })
    }
}

fn path(root: &Path) -> PathBuf {
    root.join("state/program.json")
}

impl Choice {
    /// The node's; that of a node which has never chosen any when there is none that can be read.
    pub fn read(root: &Path) -> Self {
        let text = fs::read(path(root)).ok();
        text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    /// Keeps it, durably.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn write(&self, root: &Path) -> io::Result<()> {
        write_atomic(&path(root), &serde_json::to_vec_pretty(self)?, 0o644)
    }

    /// `next` takes the place of `running`, on trial. `installed`: what runs is the installed program.
    pub(crate) fn begin(&mut self, next: Program, running: Program, installed: Option<&Path>, drain_s: u64) {
        if let Some(installed) = installed {
            self.installed = Installed::of(installed);
        }
        self.former = Some(running);
        self.chosen = Some(next);
        self.on_trial = true;
        (self.refused, self.told) = (None, false);
        self.drain_s = Some(drain_s);
    }

    /// The chosen one works.
    pub(crate) fn proven(&mut self) {
        self.on_trial = false;
    }

    /// The chosen one does not work: the former one runs again.
    pub(crate) fn take_back(&mut self, because: impl Into<String>) {
        if !self.on_trial {
            return;
        }
        self.on_trial = false;
        self.refused = self.chosen.take().map(|program| (program, because.into()));
        self.told = false;
        self.chosen = self.former.take();
    }

    /// Whether somebody has put another program in the place of the installed one since.
    pub(super) fn is_overruled_by(&self, started: &Path) -> bool {
        self.installed.is_some() && Installed::of(started) != self.installed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::release::Digest;

    fn program(digit: char) -> Program {
        let digest = Digest::try_from(digit.to_string().repeat(64)).unwrap();
        Program { version: "0.1.0".to_owned(), digest }
    }

    #[test]
    fn a_program_is_tried_and_stays_or_goes() {
        let folder = tempfile::tempdir().unwrap();
        let installed = folder.path().join("installed");
        fs::write(&installed, "one").unwrap();
        let mut choice = Choice::read(folder.path());
        assert_eq!(choice, Choice::default());
        choice.begin(program('2'), program('1'), Some(&installed), 60);
        assert!(choice.on_trial);
        choice.take_back("it crashed");
        assert_eq!((choice.chosen.as_ref(), choice.former.as_ref()), (Some(&program('1')), None));
        assert_eq!(choice.refused, Some((program('2'), "it crashed".to_owned())));
        choice.begin(program('3'), program('1'), None, 60);
        choice.proven();
        choice.take_back("too late");
        assert_eq!(
            (choice.chosen.as_ref(), choice.former.as_ref()),
            (Some(&program('3')), Some(&program('1')))
        );
        assert_eq!(choice.refused, None);
        fs::create_dir(folder.path().join("state")).unwrap();
        choice.write(folder.path()).unwrap();
        assert_eq!(Choice::read(folder.path()), choice);
        assert!(!choice.is_overruled_by(&installed));
        fs::write(&installed, "another").unwrap();
        assert!(choice.is_overruled_by(&installed), "a package has been upgraded");
    }
}
