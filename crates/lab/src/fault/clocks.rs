//! Wrong clocks. They need nodes with clocks of their own (see [`Options::own_clocks`](crate::Options)).

use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

use effects::clock::now;
use effects::process::ProcessId;
use model::{DatabaseName, NodeName};

use super::{Evidence, Target};
use crate::clocks::{Clocks, Files, Reading};
use crate::error::{LabError, Result};
use crate::lab::Lab;

/// How far a node's clock may be from what was asked for: starting the program that reads it takes time.
const TOLERANCE: i64 = 400_000_000;

/// How long a rate is watched until it can be told from the right one.
const WATCHED: Duration = Duration::from_secs(1);

impl Lab {
    /// Makes the clocks of a node wrong, of all its processes at once, and proves it by reading them inside.
    ///
    /// # Errors
    /// [`LabError::NotPossible`] where the node has no clocks of its own; [`LabError::Late`] where they did not change.
    pub fn set_clocks(&self, node: &NodeName, wrong: &Clocks) -> Result<Evidence> {
        let files = self.clock_files(node)?;
        let begun = now();
        let before = self.read_clocks(node)?;
        files.set(wrong)?;
        if wrong.wall_ppm != 0 || wrong.monotonic_ppm != 0 {
            std::thread::sleep(WATCHED);
        }
        let after = self.read_clocks(node)?;
        let what = format!("{node}: {}", told(&before, &after));
        match happened(wrong, &before, &after) {
            true => Ok(Evidence::since(begun, what)),
            false => Err(LabError::Late {
                what: format!("changing the clocks of {node}"),
                within: WATCHED,
                seen: what,
            }),
        }
    }

    /// Which of a node's own processes read these clocks: its agent and its PostgreSQL must.
    pub fn reads_own_clocks(&self, node: &NodeName, database: &DatabaseName) -> Result<Evidence> {
        let library = self.clock_files(node)?.library;
        let begun = now();
        for target in [Target::Agent, Target::Postmaster(database.clone())] {
            let found = self.await_process(node, &target)?;
            if !has_mapped(found, &library.display().to_string()) {
                return Err(LabError::NotPossible {
                    what: format!("changing the clocks of {target:?} of {node}"),
                    why: "it was started without the library that does so".to_owned(),
                });
            }
        }
        Ok(Evidence::since(begun, format!("the agent and PostgreSQL of {node} read them")))
    }

    fn clock_files(&self, node: &NodeName) -> Result<Files> {
        if self.node(node)?.own_clocks {
            return Ok(Files::of(&self.home, node));
        }
        Err(LabError::NotPossible {
            what: format!("a fault of the clocks of {node}"),
            why: "it has the machine's own; use `mainstay up --own-clocks`".to_owned(),
        })
    }

    /// How far what a program inside reads is from the real clocks.
    fn read_clocks(&self, node: &NodeName) -> Result<Reading> {
        let doing = || format!("reading the clocks of {node}");
        let mut command = Command::new(&self.manifest().program);
        command.args(["lab-node", "clocks"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = self.spawn_in_node(node, &mut command)?;
        let mut text = String::new();
        if let Some(stdout) = &mut child.stdout {
            stdout.read_to_string(&mut text).map_err(LabError::io(doing))?;
        }
        child.wait().map_err(LabError::io(doing))?;
        serde_json::from_str(&text).map_err(std::io::Error::other).map_err(LabError::io(doing))
    }
}

/// The program inside: what it reads, less the real clocks.
pub(crate) fn print_clocks() {
    let (seen, real) = (Reading::as_programs_see(), Reading::now());
    let off = Reading {
        wall: seen.wall - real.wall,
        monotonic: seen.monotonic - real.monotonic,
        boot: seen.boot - real.boot,
    };
    println!("{}", serde_json::to_string(&off).unwrap_or_default());
}

fn has_mapped(process: ProcessId, library: &str) -> bool {
    let maps = fs::read_to_string(format!("/proc/{}/maps", process.pid)).unwrap_or_default();
    maps.lines().any(|line| line.contains(library))
}

/// Whether what was read is what was wanted.
fn happened(wrong: &Clocks, before: &Reading, after: &Reading) -> bool {
    let near = |off: i64, wanted: i64| (off - wanted).abs() < TOLERANCE;
    // What a rate makes of the time that was watched, or half of it, since reading takes time too.
    let gained = |by: i64, ppm: i64| ppm == 0 || (by.signum() == ppm.signum() && by.abs() > ppm.abs() * 500);
    let wall = after.wall - wrong.ahead * 1_000_000_000;
    let (strobe, _) = wrong.strobe.unwrap_or_default();
    (near(wall, 0) || near(wall, strobe * 1_000_000) || wrong.wall_ppm != 0)
        && gained(after.wall - before.wall, wrong.wall_ppm)
        && gained(after.monotonic - before.monotonic, wrong.monotonic_ppm)
        && gained(after.boot - before.boot, wrong.monotonic_ppm)
}

fn told(before: &Reading, after: &Reading) -> String {
    let seconds = |nanos: i64| nanos as f64 / 1e9;
    format!(
        "its wall clock is {:+.3} s off (before: {:+.3} s), its monotonic clock {:+.3} s (before: {:+.3} s)",
        seconds(after.wall),
        seconds(before.wall),
        seconds(after.monotonic),
        seconds(before.monotonic)
    )
}
