//! Who works in a data directory, and the proof that nobody does.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use super::super::session::left;
use super::super::volume;
use super::{Member, Postmaster};
use crate::process::{ProcessFacts, ProcessId, Signal, processes_of, signal_process};

/// Processes that work in a data directory: PostgreSQL's (the postmaster and all its children, also those that outlive
/// it), and tools that run one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Remains {
    /// The data directory.
    pub data: String,
    /// The processes, with their state letters in `/proc` (`D`: waits for a disk, cannot be killed).
    pub processes: Vec<(ProcessId, char)>,
}

impl fmt::Display for Remains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each = |(id, state): &(ProcessId, char)| {
            let why = if *state == 'D' { " (waits for a disk and cannot be killed)" } else { "" };
            format!("{id}{why}")
        };
        if self.processes.is_empty() {
            return write!(
                f,
                "it is not known whether processes still work in {}: /proc did not answer",
                self.data
            );
        }
        let list: Vec<String> = self.processes.iter().map(each).collect();
        write!(f, "processes still work in {}: {}", self.data, list.join(", "))
    }
}

impl Member {
    /// The running server, found by its working directory and its pid file; for an agent that lost its records.
    pub async fn running(&self) -> Option<Postmaster> {
        let member = self.clone();
        let find = move || Ok(member.find_postmaster());
        let id = volume::run("find server", volume::PATIENCE, find).await.ok()??;
        self.adopt(id).await
    }

    /// Proof that no process of a server or tool works in the data directory (and so none has its shared memory or
    /// sockets). Reads `/proc` only, never the database's volume.
    ///
    /// # Errors
    /// With the processes that do.
    pub async fn is_really_gone(&self) -> Result<(), Remains> {
        let member = self.clone();
        let look = move || Ok(member.remains());
        let unknown = Remains { data: self.paths().data.display().to_string(), processes: Vec::new() };
        match volume::run("look for server", volume::PATIENCE, look).await {
            Ok(remains) if remains.processes.is_empty() => Ok(()),
            Ok(remains) => Err(remains),
            Err(_) => Err(unknown),
        }
    }

    /// Waits `patience` for the processes in the data directory to end, then kills them, and waits for that.
    pub(super) async fn clear_remains(&self, patience: Duration, deadline: Duration) -> Result<(), Remains> {
        let begin = Instant::now();
        loop {
            let Err(remains) = self.is_really_gone().await else { return Ok(()) };
            if begin.elapsed() >= patience {
                for (id, _) in &remains.processes {
                    signal_process(*id, Signal::KILL);
                }
            }
            if left(begin, deadline).is_zero() {
                return Err(remains);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn remains(&self) -> Remains {
        let processes = self.workers().into_iter().map(|facts| (facts.id, facts.state)).collect();
        Remains { data: self.paths().data.display().to_string(), processes }
    }

    /// All living processes whose working directory is the data directory. PostgreSQL enters it first of all and never
    /// leaves it; the link in `/proc` is read without touching the volume.
    fn workers(&self) -> Vec<ProcessFacts> {
        let data = &self.paths().data;
        let works_here = |facts: &ProcessFacts| {
            !facts.is_dead() && facts.working_directory().is_some_and(|directory| directory == *data)
        };
        processes_of(works_here)
    }

    /// The postmaster among the workers: the one in the pid file, else one that has children among them (orphans have
    /// none).
    fn find_postmaster(&self) -> Option<ProcessId> {
        let workers = self.workers();
        let is_child = |facts: &ProcessFacts| workers.iter().any(|other| other.id.pid == facts.parent);
        let written: Option<i32> = std::fs::read_to_string(self.paths().pid_file())
            .ok()
            .and_then(|text| text.lines().next()?.trim().parse().ok());
        let has_children = |facts: &ProcessFacts| workers.iter().any(|other| other.parent == facts.id.pid);
        let mut roots = workers.iter().filter(|facts| !is_child(facts));
        let root = roots.find(|facts| Some(facts.id.pid) == written || has_children(facts))?;
        Some(root.id)
    }
}

impl Postmaster {
    /// Kills the postmaster and every process of its server, and waits until they are gone. Use it where nothing of
    /// the server may survive; commits that wait for standbys stay unacknowledged.
    ///
    /// # Errors
    /// With the processes that are still there after `deadline`, usually because they wait for a disk.
    pub async fn kill(&self, deadline: Duration) -> Result<(), Remains> {
        // An error means that it has ended already; its children may not have.
        let _ = self.process.signal(Signal::KILL);
        self.member.clear_remains(Duration::ZERO, deadline).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_cannot_be_killed_is_told_with_the_reason() {
        let id = |pid| ProcessId { pid, start_ticks: 1 };
        let remains = Remains { data: "/data".into(), processes: vec![(id(7), 'S'), (id(8), 'D')] };
        assert_eq!(
            remains.to_string(),
            "processes still work in /data: pid 7, pid 8 (waits for a disk and cannot be killed)"
        );
    }
}
