//! Guards: processes that take a fault back after a time, also when the one who made it is dead.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use effects::process::{Signal, signal_process};
use model::{DatabaseName, SystemName};

use crate::drill::{Step, act};
use crate::error::{LabError, Result};
use crate::lab::Lab;
use crate::node::spawn::{detach, say_ready, wait_ready};
use crate::process;
use crate::signals;

/// How long taking one fault back may take: a node has to start.
const UNDO_LIMIT: Duration = Duration::from_secs(30);

/// How long a guard may take to stand.
const START_LIMIT: Duration = Duration::from_secs(10);

impl Lab {
    /// Starts a process that does `steps` after `lasting` unless [`Lab::dismiss_guards`] ends it before.
    pub fn set_guard(&mut self, database: &DatabaseName, steps: &[Step], lasting: Duration) -> Result<()> {
        let doing = || "starting the guard of a fault".to_owned();
        let steps =
            serde_json::to_string(steps).map_err(std::io::Error::other).map_err(LabError::io(doing))?;
        let base = self.directory().parent().unwrap_or(Path::new("/")).to_owned();
        let mut command = Command::new(&self.manifest().program);
        command.args(["lab-node", "undo"]).arg(base).arg(self.system().as_str()).arg(database.as_str());
        command.args([lasting.as_millis().to_string(), steps]);
        command.current_dir("/").env(crate::node::MARK, self.directory());
        let child = detach(&mut command, None).and_then(|()| command.spawn()).map_err(LabError::io(doing))?;
        let guard = wait_ready(child, START_LIMIT)
            .map_err(|reason| LabError::Io { doing: doing(), source: std::io::Error::other(reason) })?;
        self.change(|manifest| {
            manifest.guards.retain(|guard| process::is_alive(*guard));
            manifest.guards.push(guard);
            Ok(())
        })
    }

    /// Whether a guard of a fault still waits: what it guards may last.
    pub fn is_guarded(&self) -> bool {
        self.manifest().guards.iter().any(|guard| process::is_alive(*guard))
    }

    /// Takes back now what guards would take back later, and heals all cut links. Returns how many guards there were.
    ///
    /// # Errors
    /// [`LabError::Late`] when a guard does not come to its end.
    pub fn take_back(&mut self) -> Result<usize> {
        self.refresh()?;
        let guards = self.manifest().guards.clone();
        // The last fault first: what came before it may be needed to take it back.
        for guard in guards.iter().rev().copied() {
            signal_process(guard, Signal::TERM);
            if !process::wait_gone(guard, UNDO_LIMIT) {
                let seen = process::describe(guard.pid) + " still runs";
                return Err(LabError::Late {
                    what: "taking a fault back".to_owned(),
                    within: UNDO_LIMIT,
                    seen,
                });
            }
        }
        if self.client_network().is_some() {
            self.heal_all()?;
        }
        self.dismiss_guards()?;
        Ok(guards.len())
    }

    /// Ends all guards: what they guarded has been taken back, and they must not meddle with what comes next.
    pub fn dismiss_guards(&mut self) -> Result<()> {
        self.change(|manifest| {
            for guard in manifest.guards.drain(..) {
                signal_process(guard, Signal::KILL);
            }
            Ok(())
        })
    }
}

/// Says that the guard stands and waits until its time is over, or until it is asked to do its work now.
pub(crate) fn wait(lasting: Duration) -> std::io::Result<()> {
    signals::block(&[libc::SIGTERM]);
    say_ready()?;
    signals::next(&[libc::SIGTERM], lasting);
    Ok(())
}

/// The guard: waits, then takes back what is still there to be taken back.
pub(crate) fn run(base: &Path, system: &str, database: &str, millis: u64, steps: &str) -> ExitCode {
    let Ok(steps) = serde_json::from_str::<Vec<Step>>(steps) else {
        println!("the steps are not understood");
        return ExitCode::FAILURE;
    };
    if wait(Duration::from_millis(millis)).is_err() {
        return ExitCode::FAILURE;
    }
    let Ok(mut lab) = Lab::open_in(base, &SystemName::new(system)) else { return ExitCode::FAILURE };
    for step in &steps {
        // What was taken back before says so; that is no failure of a guard.
        let _ = act(&mut lab, &DatabaseName::new(database), step);
    }
    ExitCode::SUCCESS
}
