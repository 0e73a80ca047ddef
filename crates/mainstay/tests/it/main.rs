//! The binary from the outside. Every exit code, stdout and stderr of the commands that need no running system is a
//! snapshot, so that a changed message is a visible difference.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

mod before;
mod certificates;
mod check;
mod cli;
mod containers;
mod external;
mod histories;
mod jobs;
mod joining;
mod lab;
mod parameters;
mod releases;
mod scaling;
mod system;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Runs the binary in `folder` and returns exit code, stdout and stderr as one text.
fn mainstay_in(folder: &Path, arguments: &[&str]) -> String {
    told(&command(arguments).current_dir(folder).output().unwrap())
}

/// Runs the binary and returns exit code, stdout and stderr as one text.
fn mainstay(arguments: &[&str]) -> String {
    told(&command(arguments).output().unwrap())
}

/// The binary with nothing of the environment that changes what it prints.
fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mainstay"));
    command.args(arguments).env_clear();
    command
}

fn told(output: &Output) -> String {
    let code = output.status.code().map_or("a signal".to_owned(), |code| code.to_string());
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    format!("exit code: {code}\n--- stdout\n{}--- stderr\n{}", text(&output.stdout), text(&output.stderr))
}

/// The example files of the system file's own tests.
fn examples(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests").join(folder)
}
