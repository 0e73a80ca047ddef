//! One run of a job: a program that is started, waited for, and ended when it takes too long.

use std::io;
use std::path::Path;
use std::time::Duration;

use model::system::{duration, size};
use tokio::time::Instant;

use crate::process::{Exit, Launch, Launched, MemoryGroup, Process, Registry, Signal, launch};

/// How long a run that takes too long has from SIGTERM to SIGKILL.
const GRACE: Duration = Duration::from_secs(10);

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// With exit code 0.
    Succeeded,
    /// Otherwise; how, in a few words.
    Failed(String),
    /// Nobody can tell; why.
    Unknown(String),
}

/// A run that has begun.
#[derive(Debug)]
pub struct Begun {
    /// Its process.
    pub process: Process,
    /// What limits its memory.
    pub memory: Option<MemoryGroup>,
    /// The limit, for words.
    pub bytes: Option<u64>,
}

/// Starts a run and waits for its end, at most for `limit`. A limit of memory that cannot be kept is no reason not to run;
/// it is told in the log of the agent.
pub async fn run(start: Launch, registry: Registry, limit: Duration) -> End {
    let (key, bytes, until) = (start.key.clone(), start.memory, Instant::now() + limit);
    match launch(start, registry).await {
        Ok(Launched { process, memory, unlimited }) => {
            if let Some(because) = unlimited {
                tracing::warn!(key, because, "the memory of a job is not limited");
            }
            finish(Begun { process, memory, bytes }, until, limit).await
        }
        Err(error) => End::Failed(format!("could not be started: {error}")),
    }
}

/// Waits for the end of a run that has begun, also with an earlier run of the agent, and leaves nothing of it running.
pub async fn finish(begun: Begun, until: Instant, limit: Duration) -> End {
    let Begun { process, memory, bytes } = begun;
    let in_time = tokio::time::timeout_at(until, process.exited()).await.ok();
    let exit = match in_time {
        Some(exit) => exit,
        None => stop(&process).await,
    };
    // What it left behind.
    let _ = process.kill_session().await;
    let ran_out = memory.as_ref().is_some_and(MemoryGroup::ran_out);
    if let Some(group) = memory {
        group.remove();
    }
    match (in_time, exit, bytes.filter(|_| ran_out)) {
        (None, _, _) => End::Failed(format!("did not end within {} and was ended", duration::format(limit))),
        (Some(_), Exit::Code(0), _) => End::Succeeded,
        (Some(_), _, Some(bytes)) => {
            End::Failed(format!("needs more memory than its limit of {}", size::format(bytes)))
        }
        (Some(_), Exit::Unknown, None) => End::Unknown(
            "the agent was restarted while it ran, so that its end was seen but not how it ended".to_owned(),
        ),
        (Some(_), exit @ (Exit::Code(_) | Exit::Signal(_)), None) => {
            End::Failed(format!("ended with {exit}"))
        }
    }
}

async fn stop(process: &Process) -> Exit {
    // An error means that it has ended, which is seen next.
    let _ = process.signal(Signal::TERM);
    if let Ok(exit) = tokio::time::timeout(GRACE, process.exited()).await {
        return exit;
    }
    drop(process.kill_session());
    process.exited().await
}

/// The file name of a run's log without its end; `@` stands in no name of a service.
pub fn log_name(job: &str, run: u64) -> String {
    format!("job@{job}.{run}")
}

/// Removes the logs in `directory` of runs of `job` before `oldest`. Blocks on the directory's disk.
///
/// # Errors
/// When the directory cannot be read.
pub fn remove_logs(directory: &Path, job: &str, oldest: u64) -> io::Result<()> {
    let prefix = format!("job@{job}.");
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let run =
            name.to_str().and_then(|name| name.strip_prefix(&prefix)).and_then(|rest| rest.split('.').next());
        if run.and_then(|run| run.parse::<u64>().ok()).is_some_and(|run| run < oldest) {
            // One that is left is tried again before the next run.
            let _ = std::fs::remove_file(entry.path());
        }
    }
    Ok(())
}
