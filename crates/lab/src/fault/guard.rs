//! Guards: processes that take a fault back after a time, also when the one who made it is dead.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use effects::process::{Signal, signal_process};
use model::{DatabaseName, SystemName};

use crate::drill::{Step, act};
use crate::error::{LabError, Result};
use crate::lab::Lab;
use crate::node::spawn::{detach, say_ready, wait_ready};
use crate::process;

/// How long a guard may take to stand.
const START_LIMIT: Duration = Duration::from_secs(10);

impl Lab {
    /// Starts a process that does `steps` after `lasting` unless [`Lab::dismiss_guards`] ends it before.
    pub(crate) fn set_guard(
        &mut self,
        database: &DatabaseName,
        steps: &[Step],
        lasting: Duration,
    ) -> Result<()> {
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

    /// Ends all guards: what they guarded has been taken back, and they must not meddle with what comes next.
    pub(crate) fn dismiss_guards(&mut self) -> Result<()> {
        self.change(|manifest| {
            // A guard that has just done its work may be the one who asks.
            let own = i32::try_from(std::process::id());
            for guard in manifest.guards.drain(..).filter(|guard| own != Ok(guard.pid)) {
                signal_process(guard, Signal::KILL);
            }
            Ok(())
        })
    }
}

/// Says that the guard stands and waits until its time is over.
pub(crate) fn wait(lasting: Duration) -> std::io::Result<()> {
    say_ready()?;
    thread::sleep(lasting);
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
