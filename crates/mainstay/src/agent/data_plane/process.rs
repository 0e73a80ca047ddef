//! The processes of the node's proxies: started, adopted, replaced when they run another program than the agent.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use effects::disposable;
use effects::process::{Process, ProcessId, Registry, Signal, Spawn, signal_process, spawn};

use crate::agent::Places;

/// Under this key the proxy is recorded for adoption.
const KEY: &str = "proxy";

/// How long its start may take.
const START_LIMIT: Duration = Duration::from_secs(5);

/// How long a look at the agent's own directories may take.
const LOOK_LIMIT: Duration = Duration::from_secs(2);

/// Where the proxy that serves answers.
pub(super) fn socket(places: &Places) -> PathBuf {
    places.run("proxy.sock")
}

/// Where one that finishes its work answers.
pub(super) fn leaving_socket(places: &Places, name: &str) -> PathBuf {
    proxy::leaving_at(&socket(places)).join(name)
}

/// The names of the sockets of those that finish their work.
pub(super) async fn leaving(places: &Places) -> Vec<String> {
    let directory = proxy::leaving_at(&socket(places));
    let read = move || -> Vec<String> {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| name.ends_with(".sock")).collect()
    };
    disposable::run("proxies", LOOK_LIMIT, read).await.unwrap_or_default()
}

/// Removes the socket of one that has ended without doing so.
pub(super) async fn forget_leaving(socket: PathBuf) {
    drop(disposable::run("proxies", LOOK_LIMIT, move || std::fs::remove_file(socket)).await);
}

/// Ends a proxy that finishes its work and does not answer any more: its connections stand still, and nothing could be agreed
/// on for as long as they may still be there.
pub(super) async fn end_hung(pid: Option<i32>) {
    let end =
        move || pid.and_then(ProcessId::of).is_some_and(|process| signal_process(process, Signal::KILL));
    let ended = disposable::run("hung proxy", LOOK_LIMIT, end).await;
    tracing::warn!(?pid, ended = ended == Ok(true), "a former proxy does not answer any more");
}

/// Starts the proxy unless one of ours runs already and is merely slow.
pub(super) async fn start_or_adopt(places: &Places) -> io::Result<()> {
    let registry = Registry::open(&places.state("processes"))?;
    if let Some(found) = registry.find(KEY)?
        && found.process.is_some_and(|process| process.is_alive())
    {
        return Ok(());
    }
    let process = start(places, &registry, &[]).await?;
    registry.record(KEY, process.id(), serde_json::Value::Null)
}

/// Starts a proxy of the agent's own program that takes the place of the one that serves.
pub(super) async fn start_successor(places: &Places, drain: Duration) -> io::Result<Process> {
    let registry = Registry::open(&places.state("processes"))?;
    let drain = drain.as_secs().to_string();
    start(places, &registry, &["--succeed", "--drain", &drain]).await
}

/// The successor serves: it is the one to adopt from now on.
pub(super) fn record(places: &Places, process: &Process) -> io::Result<()> {
    Registry::open(&places.state("processes"))?.record(KEY, process.id(), serde_json::Value::Null)
}

async fn start(places: &Places, registry: &Registry, more: &[&str]) -> io::Result<Process> {
    let root = places.root.display().to_string();
    let arguments = [&["proxy", "--root", &root], more].concat();
    let mut proxy = Spawn::new(own_program()?, arguments);
    proxy.log = Some(places.log("proxy.log"));
    proxy.mark = Some(registry.mark(KEY));
    spawn(proxy, START_LIMIT).await
}

/// The file that this process runs. Where another one has been put in its place, the kernel still has it.
fn own_program() -> io::Result<PathBuf> {
    let link = Path::new("/proc/self/exe");
    let path = std::env::current_exe()?;
    Ok(if path.exists() && is_same(&path, link) { path } else { link.to_owned() })
}

/// Whether the process runs the same program as this one; `None` when that cannot be seen.
pub(super) async fn runs_own_program(pid: i32) -> Option<bool> {
    let look = move || {
        let theirs = PathBuf::from(format!("/proc/{pid}/exe"));
        theirs.metadata().ok().map(|_| is_same(&theirs, Path::new("/proc/self/exe")))
    };
    disposable::run("proxy's program", LOOK_LIMIT, look).await.ok().flatten()
}

fn is_same(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| path.metadata().ok().map(|facts| (facts.dev(), facts.ino()));
    identity(one).is_some_and(|one| Some(one) == identity(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_is_told_from_another_one_by_its_file() {
        let me = i32::try_from(std::process::id()).unwrap();
        assert_eq!(runs_own_program(me).await, Some(true));
        let mut other = std::process::Command::new("sleep").arg("10").spawn().unwrap();
        let pid = i32::try_from(other.id()).unwrap();
        assert_eq!(runs_own_program(pid).await, Some(false));
        other.kill().unwrap();
        other.wait().unwrap();
        assert_eq!(runs_own_program(pid).await, None);
        assert!(own_program().unwrap().exists());
    }
}
