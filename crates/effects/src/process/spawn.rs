//! Starting programs that outlive the agent.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use model::time::Moment;

use super::{MemoryGroup, OsUser, Process, ProcessId, Signal, open_pidfd};
use crate::{clock, disposable, sys};

/// Environment variable that carries [`Spawn::mark`], by which a restarted agent finds a process that it started but had
/// no time to record.
pub const MARK: &str = "MAINSTAY_MARK";

/// A program to start detached: in a session of its own, with nothing inherited but what is given here.
#[derive(Clone, Debug)]
pub struct Spawn {
    /// The program; without a slash it is searched in our own `PATH`.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment. Besides it gets `PATH` (ours) and `HOME`, `USER`, `LOGNAME` of its user, unless given here.
    pub env: Vec<(String, String)>,
    /// Its working directory; `/` when none is given.
    pub cwd: Option<PathBuf>,
    /// Whom it runs as; `None` for our own user.
    pub user: Option<OsUser>,
    /// File to which both output streams are appended; made when missing, with mode 0640. `None` throws them away.
    pub log: Option<PathBuf>,
    /// File mode creation mask, e.g. `0o077`.
    pub umask: u32,
    /// Text by which the process can be recognised later (see [`MARK`]).
    pub mark: Option<String>,
    /// The control group that limits its memory.
    pub memory: Option<MemoryGroup>,
}

impl Spawn {
    /// `program` with `args`, our own user, no output, umask 022.
    pub fn new(program: impl Into<PathBuf>, args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            program: program.into(),
            args: args.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            cwd: None,
            user: None,
            log: None,
            umask: 0o022,
            mark: None,
            memory: None,
        }
    }
}

/// Starts a program in its own session: stdin from `/dev/null`, default signal dispositions and an empty signal mask, no
/// inherited descriptor, its user's groups. It survives the agent's death (under systemd this needs `KillMode=process`
/// in the agent's unit). Must be called inside a tokio runtime, which watches and reaps it.
///
/// Blocks until the program has replaced the child (exec), which hangs when the program or its working directory lies
/// on a dead disk: use [`spawn`] where that can be.
///
/// # Errors
/// With the program's name in the text: not found, not executable, no right to become the user, log not writable.
pub fn spawn_detached(spawn: &Spawn) -> io::Result<Process> {
    let (id, pidfd) = start(spawn, None)?;
    Process::watch(id, pidfd)
}

/// As [`spawn_detached`], on a thread that is abandoned after `deadline`. A start that comes too late is not carried out:
/// the child checks the deadline right before it becomes the program, and a program that slipped through is killed.
///
/// # Errors
/// As [`spawn_detached`], or timed out.
pub async fn spawn(spec: Spawn, deadline: Duration) -> io::Result<Process> {
    let (id, pidfd) = start_in_time(spec, None, deadline).await?;
    Process::watch(id, pidfd)
}

/// Both ends of a tool's output; the write ends go to the child.
pub(super) struct Streams {
    pub(super) stdin: Stdio,
    pub(super) stdout: Stdio,
    pub(super) stderr: Stdio,
}

/// Forks and executes on a disposable thread; see [`spawn`].
pub(super) async fn start_in_time(
    spec: Spawn,
    streams: Option<Streams>,
    deadline: Duration,
) -> io::Result<(ProcessId, OwnedFd)> {
    let program = spec.program.display().to_string();
    let not_after = clock::now() + deadline;
    let (sender, receiver) = tokio::sync::oneshot::channel();
    disposable::start("spawn", move || {
        // Nobody may wait for it any more, now or a moment after it was sent: then it is dropped unclaimed.
        drop(sender.send(start_before(&spec, streams, Some(not_after)).map(Started::unclaimed)));
    })?;
    match tokio::time::timeout(deadline, receiver).await {
        Ok(Ok(started)) => started?.claim(),
        Ok(Err(_)) => Err(io::Error::other(format!("the thread that started {program} ended early"))),
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!(
                "{program} could not be started within {deadline:?}: its disk or its working directory's does not answer"
            ),
        )),
    }
}

/// A program that was started for somebody who may have stopped waiting: unless it is claimed, it is killed.
struct Started(Option<(ProcessId, OwnedFd)>);

impl Started {
    fn unclaimed(started: (ProcessId, OwnedFd)) -> Self {
        Self(Some(started))
    }

    fn claim(mut self) -> io::Result<(ProcessId, OwnedFd)> {
        self.0.take().ok_or_else(|| io::Error::other("it was claimed already"))
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some((_, pidfd)) = self.0.take() {
            // It is our child and not reaped, so the pidfd is exact.
            let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
            super::strangers::adopt_orphan(pidfd);
        }
    }
}

fn start(spec: &Spawn, streams: Option<Streams>) -> io::Result<(ProcessId, OwnedFd)> {
    start_before(spec, streams, None)
}

fn start_before(
    spec: &Spawn,
    streams: Option<Streams>,
    not_after: Option<Moment>,
) -> io::Result<(ProcessId, OwnedFd)> {
    let in_words = |error: io::Error| {
        io::Error::new(error.kind(), format!("cannot start {}: {error}", spec.program.display()))
    };
    let mut command = command_of(spec, streams).map_err(in_words)?;
    let identity = identity_of(spec).map_err(in_words)?;
    let not_after_us = not_after.map_or(0, Moment::as_micros);
    let group = spec.memory.as_ref().map(MemoryGroup::door).transpose().map_err(in_words)?;
    sys::prepare(&mut command, sys::BeforeExec { umask: spec.umask, identity, not_after_us, group });
    // The handle is dropped without waiting: the watcher reaps through the pidfd.
    let pid = i32::try_from(command.spawn().map_err(in_words)?.id()).map_err(io::Error::other)?;
    // Until it is reaped (by nobody but us) the pid is its own, dead or alive.
    let pidfd = open_pidfd(pid).map_err(in_words)?;
    let id =
        ProcessId::of(pid).ok_or_else(|| in_words(io::Error::other("it vanished while being started")))?;
    Ok((id, pidfd))
}

fn command_of(spec: &Spawn, streams: Option<Streams>) -> io::Result<Command> {
    let mut command = Command::new(&spec.program);
    command.args(&spec.args).env_clear().envs(base_environment(spec)).envs(spec.env.iter().cloned());
    if let Some(mark) = &spec.mark {
        command.env(MARK, mark);
    }
    command.current_dir(spec.cwd.as_deref().unwrap_or_else(|| std::path::Path::new("/")));
    let streams = match streams {
        Some(streams) => streams,
        None => log_streams(spec)?,
    };
    command.stdin(streams.stdin).stdout(streams.stdout).stderr(streams.stderr);
    Ok(command)
}

fn base_environment(spec: &Spawn) -> Vec<(String, String)> {
    let mut base =
        vec![("PATH".to_owned(), std::env::var("PATH").unwrap_or_else(|_| DEFAULT_PATH.to_owned()))];
    let user = spec.user.clone().map_or_else(|| OsUser::current().ok(), Some);
    if let Some(user) = user {
        base.push(("HOME".to_owned(), user.home.display().to_string()));
        base.push(("USER".to_owned(), user.name.clone()));
        base.push(("LOGNAME".to_owned(), user.name));
    }
    base
}

/// Used when the agent itself has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn log_streams(spec: &Spawn) -> io::Result<Streams> {
    let Some(path) = &spec.log else {
        return Ok(Streams { stdin: Stdio::null(), stdout: Stdio::null(), stderr: Stdio::null() });
    };
    let log = open_log(path, spec.user.as_ref())
        .map_err(|error| io::Error::new(error.kind(), format!("its log {}: {error}", path.display())))?;
    Ok(Streams { stdin: Stdio::null(), stdout: log.try_clone()?.into(), stderr: log.into() })
}

/// Opens a log for appending. `O_APPEND` makes every write land at the end even after the log was rotated under it.
fn open_log(path: &std::path::Path, user: Option<&OsUser>) -> io::Result<File> {
    let file = OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
    if let Some(user) = user.filter(|_| rustix::process::geteuid().is_root()) {
        // So that the program may open its own log again (PostgreSQL's tools do).
        std::os::unix::fs::fchown(&file, Some(user.uid), Some(user.gid))?;
    }
    Ok(file)
}

/// The identity to assume, or `None` to stay who we are.
fn identity_of(spec: &Spawn) -> io::Result<Option<sys::Identity>> {
    let Some(user) = &spec.user else { return Ok(None) };
    let ours = rustix::process::geteuid();
    if !ours.is_root() {
        if ours.as_raw() == user.uid {
            return Ok(None);
        }
        let text = format!("only root can run it as {}, and we run as user id {}", user.name, ours.as_raw());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok(Some(sys::Identity { uid: user.uid, gid: user.gid, groups: user.groups.clone() }))
}

/// Finds the full path of a program as the shell would: as it is when it contains a slash, else in our `PATH`.
pub fn find_program(name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(|path| is_executable(path));
    }
    let path = std::env::var("PATH").unwrap_or_else(|_| DEFAULT_PATH.to_owned());
    path.split(':').map(|directory| PathBuf::from(directory).join(name)).find(|path| is_executable(path))
}

fn is_executable(path: &std::path::Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0)
}
