//! From the program that was started to the one that was chosen.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use effects::process::{ProcessId, Signal, signal_process};

use super::{Choice, file, store};

/// How long a program may be on trial until its guard ends it: longer than it takes to give up by itself.
const TRIAL_LONGEST: Duration = Duration::from_secs(120);

/// How often the guard looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Called when an agent starts, before it does anything: becomes the program that the node has chosen, if it is another one.
/// When that one cannot be run this one goes on.
pub fn become_chosen(root: &Path) {
    let Some(program) = std::env::current_exe().ok().and_then(|started| settle(root, &started)) else {
        return;
    };
    let error = become_program(&program);
    tracing::error!(%error, program = %program.display(), "the chosen program cannot be run: going on as the installed one");
}

/// What the program that was started has to become, if anything.
///
/// The installed program is started when the machine starts and whenever the agent has ended. So what is on trial then has
/// ended before it worked, and is taken back.
fn settle(root: &Path, started: &Path) -> Option<PathBuf> {
    let mut choice = Choice::read(root);
    if choice == Choice::default() || is_chosen(root, started) {
        return None;
    }
    if choice.is_overruled_by(started) {
        tracing::warn!("another program was installed since one was chosen: the installed one counts");
        keep(&Choice::default(), root);
        return None;
    }
    if choice.on_trial {
        choice.take_back("it ended before it had worked for long enough");
        keep(&choice, root);
    }
    let program = file(root, &choice.chosen?.digest);
    program.is_file().then_some(program)
}

/// Whether a file is one of the node's own programs, not the installed one.
pub(crate) fn is_chosen(root: &Path, program: &Path) -> bool {
    let store = store(root);
    program.starts_with(store.canonicalize().unwrap_or(store))
}

fn keep(choice: &Choice, root: &Path) {
    if let Err(error) = choice.write(root) {
        tracing::error!(%error, "which program to run could not be kept");
    }
}

/// Becomes another program with the same arguments; the process, its children and its parent stay as they are. Returns only
/// when that cannot be done, with the reason.
pub(crate) fn become_program(program: &Path) -> io::Error {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    Command::new(program).args(arguments).exec()
}

/// Ends a process whose program is still on trial after a long time: it hangs. Returns when there is nothing to guard any
/// more. Whoever keeps the agent running then starts the installed program, which takes the other one back.
pub fn guard(root: &Path, process: ProcessId) {
    let begun = Instant::now();
    while Choice::read(root).on_trial && ProcessId::of(process.pid) == Some(process) {
        if begun.elapsed() >= TRIAL_LONGEST {
            tracing::warn!(%process, "the new program does not come to work: ending it");
            signal_process(process, Signal::KILL);
            return;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::release::Digest;
    use model::status::Program;

    fn program(digit: char) -> Program {
        let digest = Digest::try_from(digit.to_string().repeat(64)).unwrap();
        Program { version: "0.1.0".to_owned(), digest }
    }

    #[test]
    fn the_installed_program_becomes_the_chosen_one_and_takes_back_what_ended_on_trial() {
        let folder = tempfile::tempdir().unwrap();
        let (root, installed) = (folder.path().join("node"), folder.path().join("installed"));
        std::fs::create_dir_all(root.join("state")).unwrap();
        std::fs::write(&installed, "one").unwrap();
        for digit in ['1', '2'] {
            let file = file(&root, &program(digit).digest);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, digit.to_string()).unwrap();
        }
        assert_eq!(settle(&root, &installed), None, "nothing was chosen");
        let mut choice = Choice::default();
        choice.begin(program('2'), program('1'), Some(&installed), 60);
        choice.write(&root).unwrap();
        let (first, second) = (file(&root, &program('1').digest), file(&root, &program('2').digest));
        assert_eq!(settle(&root, &second), None, "it is the chosen one, and begins");
        assert!(Choice::read(&root).on_trial);
        assert_eq!(settle(&root, &installed), Some(first), "it has ended");
        assert!(!Choice::read(&root).on_trial);
        choice.proven();
        choice.write(&root).unwrap();
        assert_eq!(settle(&root, &installed), Some(second));
        std::fs::write(&installed, "another one").unwrap();
        assert_eq!(settle(&root, &installed), None, "a package was upgraded");
        assert_eq!(Choice::read(&root), Choice::default());
    }
}
