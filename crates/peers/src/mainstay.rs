//! Ourselves on the same nodes, by the product's own commands.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use lab::Lab;
use model::SystemName;
use serde_json::Value;
use tokio::process::Command;

use crate::Outcome;
use crate::layout;
use crate::seen::Seen;
use crate::variant::Fault;

/// Mainstay, up.
pub(crate) struct Mainstay {
    program: PathBuf,
    name: SystemName,
    /// From the first act to full redundancy.
    pub(crate) set_up: Duration,
}

impl Mainstay {
    /// Brings it up and waits until all of it works.
    pub(crate) async fn up(name: SystemName, program: &Path, out: &Path) -> Outcome<Self> {
        remove(program, &name).await?;
        let file = out.join(format!("{name}.toml"));
        std::fs::write(&file, layout::mainstay_file(name.as_str()))
            .map_err(|e| format!("writing {}: {e}", file.display()))?;
        let begun = Instant::now();
        let file = file.display().to_string();
        run(program, &["up", &file, "--no-forward"]).await?;
        Ok(Self { program: program.to_owned(), name, set_up: begun.elapsed() })
    }

    /// One run of a fault.
    pub(crate) async fn measure(&self, fault: Fault) -> Outcome<Seen> {
        let arguments = ["drill", "run", fault.name(), "--system", self.name.as_str(), "--json"];
        let told = run(&self.program, &arguments).await?;
        let mut report: Value =
            serde_json::from_str(&told).map_err(|e| format!("the report of {fault}: {e}"))?;
        let run = report["runs"][0].take();
        serde_json::from_value(run).map_err(|e| format!("the report of {fault}: {e}"))
    }

    /// The lab, for a look at its nodes.
    pub(crate) fn lab(&self) -> Outcome<Lab> {
        Lab::open(&self.name).map_err(|e| e.to_string())
    }

    /// Removes it with all it left.
    pub(crate) async fn down(self) -> Outcome<()> {
        remove(&self.program, &self.name).await
    }
}

/// Removes its lab; nothing to remove is fine.
pub(crate) async fn remove(program: &Path, name: &SystemName) -> Outcome<()> {
    match Lab::list().iter().any(|lab| lab.system == *name) {
        true => run(program, &["down", name.as_str()]).await.map(drop),
        false => Ok(()),
    }
}

/// Runs one command and returns what it prints. A drill that did not pass has measured all the same.
async fn run(program: &Path, arguments: &[&str]) -> Outcome<String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.map_err(|e| format!("running {}: {e}", program.display()))?;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() || (arguments.contains(&"--json") && !told.is_empty()) {
        return Ok(told);
    }
    let reason = String::from_utf8_lossy(&output.stderr);
    Err(format!("mainstay {}: {}", arguments.join(" "), reason.trim()))
}
