//! One process of a node, found by what it is, never by its name.

use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use effects::clock::now;
use effects::process::{ProcessFacts, ProcessId, Signal, signal_process};
use model::{DatabaseName, NodeName};
use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, connect, shutdown, socket_with,
};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::Evidence;
use crate::error::{LabError, Result};
use crate::lab::Lab;
use crate::manifest::Mode;
use crate::process;

/// How long one process may take to die.
const DEATH_LIMIT: Duration = Duration::from_secs(5);

/// How long is waited for a process that does not run at this moment.
const RETURN_LIMIT: Duration = Duration::from_secs(5);

/// How often is looked for it.
const LOOK_EVERY: Duration = Duration::from_millis(20);

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
            Target::Agent => listener(&root.join("run/agent.sock")),
            Target::Proxy => listener(&root.join("run/proxy.sock")),
            Target::Socket(path) => listener(path),
            Target::Postmaster(database) => postmaster(&inside, init, &root, database),
        };
        // The socket may be another's: only processes of the node count.
        found.filter(|process| inside.contains(process)).ok_or_else(|| LabError::NotPossible {
            what: format!("finding {target:?} of {node}"),
            why: "it does not run at this moment".to_owned(),
        })
    }

    /// The same; what another fault has just ended is given the time to come back.
    pub(super) fn await_process(&self, node: &NodeName, target: &Target) -> Result<ProcessId> {
        let begun = now();
        loop {
            let found = self.find_process(node, target);
            if found.is_ok() || now().since(begun) >= RETURN_LIMIT {
                return found;
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Kills one process of a node with SIGKILL.
    pub fn kill_process(&self, node: &NodeName, target: &Target) -> Result<Evidence> {
        let found = self.await_process(node, target)?;
        let begun = now();
        signal_process(found, Signal::KILL);
        if process::wait_gone(found, DEATH_LIMIT) {
            return Ok(Evidence::since(
                begun,
                format!("{target:?} of {node} (process {}) is dead", found.pid),
            ));
        }
        let seen = process::describe(found.pid) + " still runs";
        Err(LabError::Late { what: format!("the death of {target:?}"), within: DEATH_LIMIT, seen })
    }

    /// Stops one process of a node with SIGSTOP: it hangs, its children and its kernel go on. Returns which process, for
    /// [`Lab::resume_process`].
    pub fn hang_process(&self, node: &NodeName, target: &Target) -> Result<(ProcessId, Evidence)> {
        let found = self.await_process(node, target)?;
        let begun = now();
        signal_process(found, Signal::STOP);
        if process::wait_until(DEATH_LIMIT, || process::is_stopped(found)) {
            let what = format!("{target:?} of {node} (process {}) hangs", found.pid);
            return Ok((found, Evidence::since(begun, what)));
        }
        let seen = process::describe(found.pid) + " still runs";
        Err(LabError::Late { what: format!("stopping {target:?}"), within: DEATH_LIMIT, seen })
    }

    /// Lets exactly this process go on; `false` when it is gone.
    pub fn resume_process(&self, process: ProcessId) -> bool {
        signal_process(process, Signal::CONT)
    }

    /// Lets the process that is `target` now go on. One that was never stopped is not disturbed by it.
    pub fn resume(&self, node: &NodeName, target: &Target) -> Result<Evidence> {
        let begun = now();
        let what = match self.find_process(node, target) {
            Ok(found) if self.resume_process(found) => {
                format!("{target:?} of {node} (process {}) goes on", found.pid)
            }
            Ok(_) | Err(LabError::NotPossible { .. } | LabError::NodeOff { .. }) => {
                format!("{target:?} of {node} is gone meanwhile")
            }
            Err(error) => return Err(error),
        };
        Ok(Evidence::since(begun, what))
    }

    /// Shuts down the connection between a node's proxy and its agent at both ends. Neither process is touched: the
    /// proxy's end is borrowed (pidfd_getfd(2)), and shutdown(2) is for the connection, whoever holds it.
    pub fn cut_proxy(&self, node: &NodeName) -> Result<Evidence> {
        let proxy = self.await_process(node, &Target::Proxy)?;
        let begun = now();
        let doing = || format!("cutting the proxy of {node} from its agent");
        let mut ends = agent_connections(proxy, "proxy.sock");
        // The agent may just have been killed, too.
        while ends.is_empty() && now().since(begun) < RETURN_LIMIT {
            thread::sleep(LOOK_EVERY);
            ends = agent_connections(proxy, "proxy.sock");
        }
        let handle = pidfd_open(pid_of(proxy)?, PidfdFlags::empty()).map_err(LabError::io(doing))?;
        for end in &ends {
            let borrowed =
                pidfd_getfd(&handle, *end, PidfdGetfdFlags::empty()).map_err(LabError::io(doing))?;
            shutdown(&borrowed, Shutdown::Both).map_err(LabError::io(doing))?;
        }
        if ends.is_empty() {
            let why = "no agent is connected to it".to_owned();
            return Err(LabError::NotPossible { what: doing(), why });
        }
        Ok(Evidence::since(begun, format!("{} connections of the proxy on {node} are shut", ends.len())))
    }

    /// All living processes of a node, as the machine numbers them.
    pub(super) fn inside(&self, node: &NodeName, init: ProcessId) -> Vec<ProcessId> {
        match self.mode() {
            Mode::Namespaces => {
                let namespace = process::namespace(init.pid, "pid");
                process::matching(|facts| {
                    namespace.is_some() && process::namespace(facts.id.pid, "pid") == namespace
                })
            }
            Mode::Loopback => {
                let mark = self.root(node).into_os_string();
                let marked = |facts: &ProcessFacts| {
                    facts.environment_variable(crate::node::MARK).as_ref() == Some(&mark)
                };
                let mut all = process::family(init);
                all.extend(process::matching(marked));
                all
            }
        }
    }
}

/// The process that listens on a unix socket, as the kernel tells whoever connects (`SO_PEERCRED`, unix(7)). Its path alone
/// does not tell: a socket that was renamed after it was bound is listed under its first name.
fn listener(path: &Path) -> Option<ProcessId> {
    let ask = || -> io::Result<i32> {
        // A listener that hangs with a full queue must not hold us: the connection is not waited for.
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(socket_peercred(UnixStream::from(socket))?.pid.as_raw_nonzero().get())
    };
    ProcessId::of(ask().ok()?)
}

/// The descriptors of a process that are connections accepted on the unix socket of this name. One that was renamed after
/// it was bound is listed under its first name, which contains the last.
fn agent_connections(process: ProcessId, name: &str) -> Vec<i32> {
    // `Num RefCount Protocol Flags Type St Inode Path` (proc_net(5)): 03 is a connected socket, 01 the listening one.
    let table = fs::read_to_string(format!("/proc/{}/net/unix", process.pid)).unwrap_or_default();
    let connected = table.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, _, _, _, _, "03", inode, its] = words.as_slice() else { return None };
        its.rsplit('/').next()?.contains(name).then(|| format!("socket:[{inode}]"))
    });
    let wanted: Vec<String> = connected.collect();
    let open = fs::read_dir(format!("/proc/{}/fd", process.pid)).into_iter().flatten().flatten();
    open.filter(|entry| {
        fs::read_link(entry.path())
            .is_ok_and(|to| wanted.iter().any(|socket| to.as_os_str() == socket.as_str()))
    })
    .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
    .collect()
}

fn pid_of(process: ProcessId) -> Result<Pid> {
    Pid::from_raw(process.pid).ok_or_else(|| LabError::NotPossible {
        what: format!("reaching process {}", process.pid),
        why: "there is no such number".to_owned(),
    })
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
    let number: i32 = text.lines().next()?.trim().parse().ok()?;
    let works_there = |process: &ProcessId| {
        fs::read_link(format!("/proc/{}/cwd", process.pid)).is_ok_and(|directory| directory == data)
    };
    let is_it =
        |process: &&ProcessId| process::inner_pid(process.pid) == Some(number) && works_there(process);
    inside.iter().find(is_it).copied()
}
