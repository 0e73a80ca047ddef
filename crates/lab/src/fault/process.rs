//! One process of a node, found by what it is, never by its name.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use effects::clock::now;
use model::{DatabaseName, NodeName};
use rustix::process::Signal;

use super::Evidence;
use crate::error::{LabError, Result};
use crate::lab::Lab;
use crate::manifest::Mode;
use crate::process::{self, ProcessId};

/// How long one process may take to die.
const DEATH_LIMIT: Duration = Duration::from_secs(5);

/// A process of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The one that listens on `run/agent.sock`.
    Agent,
    /// The one that listens on `run/proxy.sock`.
    Proxy,
    /// The one that `postmaster.pid` of the database names and that works in its data directory.
    Postmaster(DatabaseName),
    /// The one that listens on this unix socket.
    Socket(PathBuf),
}

impl Lab {
    /// Finds a process of a node.
    ///
    /// # Errors
    /// [`LabError::NotPossible`] when it does not run at this moment.
    pub fn find_process(&self, node: &NodeName, target: &Target) -> Result<ProcessId> {
        let init = self.init(node)?;
        let root = self.root(node);
        let inside = self.inside(node, init);
        let found = match target {
            Target::Agent => listener(&inside, init, &root.join("run/agent.sock")),
            Target::Proxy => listener(&inside, init, &root.join("run/proxy.sock")),
            Target::Socket(path) => listener(&inside, init, path),
            Target::Postmaster(database) => postmaster(&inside, init, &root, database),
        };
        found.ok_or_else(|| LabError::NotPossible {
            what: format!("finding {target:?} of {node}"),
            why: "it does not run at this moment".to_owned(),
        })
    }

    /// Kills one process of a node with SIGKILL.
    pub fn kill_process(&self, node: &NodeName, target: &Target) -> Result<Evidence> {
        let found = self.find_process(node, target)?;
        let begun = now();
        found.signal(Signal::KILL).map_err(LabError::io(|| format!("killing {target:?} of {node}")))?;
        if found.wait_gone(DEATH_LIMIT) {
            return Ok(Evidence::since(
                begun,
                format!("{target:?} of {node} (process {}) is dead", found.pid),
            ));
        }
        let seen = process::describe(found.pid) + " still runs";
        Err(LabError::Late { what: format!("the death of {target:?}"), within: DEATH_LIMIT, seen })
    }

    /// Stops one process of a node with SIGSTOP: it hangs, its children and its kernel go on.
    pub fn hang_process(&self, node: &NodeName, target: &Target) -> Result<Evidence> {
        let found = self.find_process(node, target)?;
        let begun = now();
        found.signal(Signal::STOP).map_err(LabError::io(|| format!("stopping {target:?} of {node}")))?;
        let stopped = || process::stat(found.pid).is_some_and(|stat| stat.state == 'T');
        if process::wait_until(DEATH_LIMIT, stopped) {
            return Ok(Evidence::since(begun, format!("{target:?} of {node} (process {}) hangs", found.pid)));
        }
        let seen = process::describe(found.pid) + " still runs";
        Err(LabError::Late { what: format!("stopping {target:?}"), within: DEATH_LIMIT, seen })
    }

    /// Lets exactly this process go on, if it still lives.
    pub fn resume_process(&self, process: ProcessId) -> Result<()> {
        process.signal(Signal::CONT).map_err(LabError::io(|| format!("continuing process {}", process.pid)))
    }

    /// All living processes of a node, as the machine numbers them.
    fn inside(&self, node: &NodeName, init: ProcessId) -> Vec<ProcessId> {
        match self.mode() {
            Mode::Namespaces => {
                let namespace = process::namespace(init.pid, "pid");
                process::matching(|pid| namespace.is_some() && process::namespace(pid, "pid") == namespace)
            }
            Mode::Loopback => {
                let mark = self.root(node).display().to_string();
                let marked = process::matching(|pid| process::has_environment(pid, crate::node::MARK, &mark));
                let mut all = process::descendants(init.pid);
                all.extend(marked);
                all.sort_unstable();
                all.dedup();
                all
            }
        }
    }
}

/// The process that holds the listening unix socket bound to `path` (`/proc/PID/net/unix`, proc(5)).
fn listener(inside: &[ProcessId], init: ProcessId, path: &Path) -> Option<ProcessId> {
    /// `__SO_ACCEPTCON` in the column `Flags`: the socket listens.
    const LISTENS: u32 = 0x10000;
    let table = fs::read_to_string(format!("/proc/{}/net/unix", init.pid)).ok()?;
    let path = path.to_str()?;
    let bound = |line: &&str| {
        let mut fields = line.split_ascii_whitespace().skip(3);
        let flags = fields.next().and_then(|text| u32::from_str_radix(text, 16).ok());
        flags.is_some_and(|flags| flags & LISTENS != 0) && line.ends_with(&format!(" {path}"))
    };
    let inode = table.lines().find(bound)?.split_ascii_whitespace().nth(6)?;
    let link = format!("socket:[{inode}]");
    inside.iter().copied().find(|process| holds(process.pid, &link))
}

fn holds(pid: u32, link: &str) -> bool {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    entries.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|target| target.as_os_str() == link)
}

/// The first line of `postmaster.pid` is the postmaster's number as it sees itself.
fn postmaster(
    inside: &[ProcessId],
    init: ProcessId,
    root: &Path,
    database: &DatabaseName,
) -> Option<ProcessId> {
    let data = root.join("databases").join(database.as_str()).join("data");
    // The node's databases may lie on a volume that only the node has mounted.
    let seen = PathBuf::from(format!("/proc/{}/root", init.pid)).join(data.strip_prefix("/").ok()?);
    let text = fs::read_to_string(seen.join("postmaster.pid")).ok()?;
    let number: u32 = text.lines().next()?.trim().parse().ok()?;
    inside.iter().copied().find(|process| {
        process::inner_pid(process.pid) == Some(number)
            && process::working_directory(process.pid).is_some_and(|directory| directory == data)
    })
}
