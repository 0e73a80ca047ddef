//! The first process of a lab node: does what systemd does on a real one, and no more.
//!
//! It mounts what belongs to the node alone, starts the agent, starts it again 100 ms after it ended (`Restart=always`),
//! collects orphans, and on SIGTERM ends the agent first and then everything else.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use effects::process::signal_process;
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, set_child_subreaper, setsid, wait};

use super::NodeSpec;
use crate::clocks::Files;
use crate::process;
use crate::programs;
use crate::signals;

/// Time from the end of the agent to its next start, as systemd's default `RestartSec`.
const RESTART_DELAY: Duration = Duration::from_millis(100);
/// Time to the next try when the agent cannot be started at all.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// How long the agent may take to end after SIGTERM.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// How long programs without namespaces of their own may take to clean up.
const QUIT_GRACE: Duration = Duration::from_secs(2);
/// How long the end of everything else may take.
const KILL_GRACE: Duration = Duration::from_secs(5);
/// A log larger than this is set aside when the node starts.
const LOG_LIMIT: u64 = 16 << 20;

/// The signals that an init takes one by one.
const OURS: [libc::c_int; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGCHLD, libc::SIGHUP];

/// The word an init prints when it is in charge.
pub(crate) const READY: &str = "ready";

/// Runs the node that the file describes until SIGTERM.
pub(crate) fn run(spec: &Path) -> ExitCode {
    match begin(spec) {
        Ok(spec) => Init { spec, agent: None, start_at: Instant::now() }.supervise(),
        Err(reason) => {
            // The one who started us reads it.
            println!("{reason}");
            ExitCode::FAILURE
        }
    }
}

struct Init {
    spec: NodeSpec,
    agent: Option<Pid>,
    start_at: Instant,
}

impl Init {
    fn supervise(mut self) -> ExitCode {
        loop {
            if self.agent.is_none() && Instant::now() >= self.start_at {
                self.start_agent();
            }
            let idle = Duration::from_secs(3600);
            let patience = match self.agent {
                Some(_) => idle,
                None => self.start_at.saturating_duration_since(Instant::now()),
            };
            match signals::next(&OURS, patience) {
                Some(libc::SIGTERM | libc::SIGINT) => return self.end(),
                Some(_) | None => self.reap(),
            }
        }
    }

    fn start_agent(&mut self) {
        match agent_command(&self.spec).spawn() {
            Ok(child) => {
                self.agent = Pid::from_raw(child.id().cast_signed());
                say(&format!("started process {}: {}", child.id(), self.spec.command.join(" ")));
            }
            Err(error) => {
                self.start_at = Instant::now() + RETRY_DELAY;
                say(&format!("cannot start {}: {error}", self.spec.command.join(" ")));
            }
        }
    }

    /// Collects all that have ended; the agent is to be started again.
    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if Some(pid) == self.agent {
                let status = ExitStatus::from_raw(status.as_raw());
                say(&format!("process {} ended: {status}", pid.as_raw_nonzero()));
                self.agent = None;
                self.start_at = Instant::now() + RESTART_DELAY;
            }
        }
    }

    /// Ends the agent, then everything else.
    fn end(mut self) -> ExitCode {
        say("ending");
        let deadline = Instant::now() + STOP_GRACE;
        if let Some(agent) = self.agent {
            let _ = kill_process(agent, Signal::TERM);
        }
        while self.agent.is_some() && Instant::now() < deadline {
            let _ = signals::next(&OURS, Duration::from_millis(50));
            self.reap();
        }
        self.end_all();
        ExitCode::SUCCESS
    }

    fn end_all(&self) {
        let me = process::me();
        if !self.spec.isolated {
            // PostgreSQL leaves shared memory on the machine when it is killed, and removes it when it is told to quit.
            for process in process::descendants(me) {
                signal_process(process, Signal::QUIT);
            }
            process::wait_until(QUIT_GRACE, || {
                while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
                process::descendants(me).is_empty()
            });
        }
        if let Err(error) = process::kill_all("the node", KILL_GRACE, || process::descendants(me)) {
            say(&error.to_string());
        }
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
    }
}

// ---- before the agent ----

/// Makes the node and tells the one who started us; from then on everything printed goes to the log.
fn begin(path: &Path) -> Result<NodeSpec, String> {
    let text = fs::read(path).map_err(|e| format!("reading {}: {e}", path.display()))?;
    let spec: NodeSpec =
        serde_json::from_slice(&text).map_err(|e| format!("reading {}: {e}", path.display()))?;
    signals::block(&OURS);
    if spec.isolated {
        isolate(&spec)?;
    } else {
        set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|e| format!("becoming the parent of orphans: {e}"))?;
    }
    let log = open_log(&spec.log).map_err(|e| format!("opening {}: {e}", spec.log.display()))?;
    println!("{READY}");
    io::stdout().flush().and_then(|()| take_over(&log)).map_err(|e| format!("redirecting output: {e}"))?;
    Ok(spec)
}

/// Mounts and names what is the node's own. Its mount namespace is private already.
fn isolate(spec: &NodeSpec) -> Result<(), String> {
    let quiet = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", "/proc", "proc", quiet, None).map_err(|e| format!("mounting /proc: {e}"))?;
    // PostgreSQL keeps shared memory there; a killed node must not leave it on the machine.
    if Path::new("/dev/shm").is_dir() {
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount("shm", "/dev/shm", "tmpfs", flags, None).map_err(|e| format!("mounting /dev/shm: {e}"))?;
    }
    rustix::system::sethostname(spec.node.as_str().as_bytes())
        .map_err(|e| format!("setting the host name: {e}"))?;
    if let Some((image, directory)) = &spec.volume {
        mount_volume(image, directory)?;
    }
    // Last: what is started from now on has them, this process has not.
    spec.clocks.as_ref().map_or(Ok(()), Files::mount)
}

/// Mounts the image in this namespace alone. mount(8) makes the loop device vanish with the last mount.
fn mount_volume(image: &Path, directory: &Path) -> Result<(), String> {
    let output = Command::new(programs::path("mount"))
        .args(["-t", "ext4", "-o", "loop,noatime"])
        .args([image, directory])
        .output()
        .map_err(|e| format!("running mount: {e}"))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        return Err(format!("mounting {}: {}", image.display(), reason.trim()));
    }
    let _ = fs::remove_dir(directory.join("lost+found"));
    Ok(())
}

fn open_log(path: &Path) -> io::Result<File> {
    if fs::metadata(path).is_ok_and(|m| m.len() > LOG_LIMIT) {
        fs::rename(path, path.with_extension("log.1"))?;
    }
    OpenOptions::new().create(true).append(true).open(path)
}

/// Makes the log standard output and standard error.
fn take_over(log: &File) -> io::Result<()> {
    for stream in [io::stdout().as_fd().as_raw_fd(), io::stderr().as_fd().as_raw_fd()] {
        // SAFETY: both descriptors are open, and replacing a standard stream is what is wanted.
        if unsafe { libc::dup2(log.as_raw_fd(), stream) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

fn agent_command(spec: &NodeSpec) -> Command {
    let mut command = Command::new(&spec.command[0]);
    command.args(&spec.command[1..]).current_dir(&spec.directory);
    command.env_clear().envs(&spec.environment).stdin(Stdio::null());
    let prepare = || {
        signals::unblock();
        setsid().map(|_| ()).map_err(io::Error::from)
    };
    // SAFETY: both are plain system calls, which are allowed between fork and exec.
    unsafe { command.pre_exec(prepare) };
    command
}

/// One line in the log, with the time since boot as the kernel's log has it.
fn say(text: &str) {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    eprintln!("[{:5}.{:03}] lab-node: {text}", now.tv_sec, now.tv_nsec / 1_000_000);
}
