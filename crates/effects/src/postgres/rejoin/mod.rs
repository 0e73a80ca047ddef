//! How a member comes back: rewound to what it shares with the primary, or copied anew.

mod aside;
mod clone;
mod manifest;
mod rewind;

use std::io;
use std::time::{Duration, Instant};

use model::postgres::Timeline;

pub use clone::{CloneError, CloneProgress, Cloned};
pub use rewind::{RewindError, Rewound};

use super::volume::{self, FileError};
use super::{Member, TimelineHistory};
use crate::process::{ProcessFacts, Signal, processes_of, signal_process};

impl Member {
    /// The history of `timeline` as this member's data directory has it; for [`super::divergence`].
    ///
    /// # Errors
    /// When the file is missing or not understood, or the volume does not answer.
    pub async fn own_history(
        &self,
        timeline: Timeline,
        deadline: Duration,
    ) -> Result<TimelineHistory, FileError> {
        if timeline == Timeline(1) {
            return Ok(TimelineHistory::first());
        }
        let path = self.paths().data.join("pg_wal").join(format!("{:08X}.history", timeline.0));
        volume::run("read history", deadline, move || {
            let file =
                std::fs::read_to_string(&path).map_err(|error| volume::in_words("read", &path, &error))?;
            TimelineHistory::parse(timeline, &file).map_err(io::Error::other)
        })
        .await
    }

    /// Kills copying and rewinding tools that an earlier run of the agent left behind: they work in the directory above
    /// the data.
    async fn kill_stray_tools(&self) -> Result<(), FileError> {
        let (directory, programs) = (self.paths().database.clone(), self.installation().bin_dir.clone());
        volume::run("look for tools", 2 * volume::PATIENCE, move || {
            let stray = |facts: &ProcessFacts| {
                facts.working_directory().is_some_and(|place| place == directory)
                    && facts.executable().is_some_and(|program| program.starts_with(&programs))
            };
            let begin = Instant::now();
            loop {
                let tools = processes_of(|facts| !facts.is_dead() && stray(facts));
                if tools.is_empty() {
                    return Ok(());
                }
                if begin.elapsed() > volume::PATIENCE {
                    let text = format!("a tool of an earlier run (pid {}) cannot be killed", tools[0].id.pid);
                    return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
                }
                for tool in tools {
                    signal_process(tool.id, Signal::KILL);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        })
        .await
    }
}
