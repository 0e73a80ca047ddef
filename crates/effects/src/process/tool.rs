//! Short-lived programs (`pg_rewind`, `nft`, a health command): output captured, killed at the deadline, never waited for
//! in D state.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;

use super::spawn::{Streams, start_in_time};
use super::{Exit, OsUser, Process, Spawn, facts_of};

/// How much of each output stream is kept by default, in bytes.
const DEFAULT_CAPTURE: usize = 256 * 1024;

/// How long a killed tool is given to disappear before it counts as stuck in the kernel.
const KILL_PATIENCE: Duration = Duration::from_millis(300);

/// A program to run to its end.
#[derive(Clone, Debug)]
pub struct ToolCommand {
    /// The program; without a slash it is searched in our own `PATH`.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment, added to the clean one of [`Spawn::env`].
    pub env: Vec<(String, String)>,
    /// Its working directory; `/` when none is given.
    pub cwd: Option<PathBuf>,
    /// Whom it runs as; `None` for our own user.
    pub user: Option<OsUser>,
    /// File mode creation mask.
    pub umask: u32,
    /// What it reads from standard input; nothing when empty.
    pub stdin: Vec<u8>,
    /// When it is killed, counted from the call.
    pub deadline: Duration,
    /// How many bytes of each stream are kept: the first half of them from the beginning, the rest from the end.
    pub capture: usize,
}

/// What a program that ended left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolOutput {
    /// The program, for messages.
    pub program: String,
    /// How it ended.
    pub exit: Exit,
    /// Standard output, with a note in the middle where it was cut.
    pub stdout: String,
    /// Standard error, likewise.
    pub stderr: String,
    /// How long it ran.
    pub took: Duration,
}

/// Why a tool gave no (good) result.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It could not be started.
    #[error("{0}")]
    Start(io::Error),
    /// It did not end in time and was killed.
    #[error("{program} did not end within {after:?} and was killed{}", said(.stderr))]
    TimedOut {
        /// The program.
        program: String,
        /// The deadline.
        after: Duration,
        /// What it had said on standard error.
        stderr: String,
    },
    /// It did not end in time, was killed, and is still there because it waits in the kernel. It is left alone; it will
    /// end when what it waits for (usually a disk) answers.
    #[error(
        "{program} (pid {pid}) did not end within {after:?}, and the kill has no effect while it waits in the kernel (state {state}): a disk does not answer"
    )]
    Stuck {
        /// The program.
        program: String,
        /// Its pid.
        pid: i32,
        /// Its state letter in `/proc`, `D` for a disk wait.
        state: char,
        /// The deadline.
        after: Duration,
    },
    /// It ended with an error (only from [`ToolOutput::checked`]).
    #[error("{program} ended with {exit}{}", said(.stderr))]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        exit: Exit,
        /// What it said on standard error (or on standard output when silent there).
        stderr: String,
    },
}

impl ToolCommand {
    /// `program` with `args`, our own user, a deadline.
    pub fn new(
        program: impl Into<PathBuf>,
        args: impl IntoIterator<Item = impl Into<String>>,
        deadline: Duration,
    ) -> Self {
        Self {
            program: program.into(),
            args: args.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            cwd: None,
            user: None,
            umask: 0o022,
            stdin: Vec::new(),
            deadline,
            capture: DEFAULT_CAPTURE,
        }
    }

    fn spawn(&self) -> Spawn {
        Spawn {
            env: self.env.clone(),
            cwd: self.cwd.clone(),
            user: self.user.clone(),
            umask: self.umask,
            ..Spawn::new(self.program.clone(), self.args.iter().cloned())
        }
    }
}

impl ToolOutput {
    /// Whether it ended with exit code 0.
    pub fn is_success(&self) -> bool {
        self.exit.is_success()
    }

    /// The output when it ended with exit code 0.
    ///
    /// # Errors
    /// [`ToolError::Failed`] with what it said, when it did not.
    pub fn checked(self) -> Result<Self, ToolError> {
        if self.is_success() {
            return Ok(self);
        }
        let stderr = if self.stderr.trim().is_empty() { self.stdout } else { self.stderr };
        Err(ToolError::Failed { program: self.program, exit: self.exit, stderr })
    }
}

/// `: TEXT` for what a tool said, or nothing.
fn said(text: &str) -> String {
    let text = text.trim();
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

/// Runs a program to its end. A non-zero exit code is an `Ok` result (see [`ToolOutput::checked`]). When this future is
/// dropped the program is killed with everything it started in its session.
///
/// # Errors
/// When it cannot be started, or did not end before its deadline.
pub async fn run_tool(command: ToolCommand) -> Result<ToolOutput, ToolError> {
    let begin = Instant::now();
    let program = command.program.display().to_string();
    let (streams, mut captured) = Captured::open(&command).map_err(ToolError::Start)?;
    let (id, pidfd) =
        start_in_time(command.spawn(), Some(streams), command.deadline).await.map_err(ToolError::Start)?;
    let mut child = KillOnDrop(Some(Process::watch(id, pidfd).map_err(ToolError::Start)?));
    let left = command.deadline.saturating_sub(begin.elapsed());
    let exit = tokio::time::timeout(left, captured.until_exit(child.process())).await;
    let Ok(exit) = exit else {
        return Err(kill_late(child, program, command.deadline, captured).await);
    };
    child.0 = None;
    captured.drain();
    let (stdout, stderr) = captured.texts();
    Ok(ToolOutput { program, exit, stdout, stderr, took: begin.elapsed() })
}

async fn kill_late(mut child: KillOnDrop, program: String, after: Duration, captured: Captured) -> ToolError {
    let Some(process) = child.0.take() else {
        return ToolError::TimedOut { program, after, stderr: captured.texts().1 };
    };
    drop(process.kill_session());
    if tokio::time::timeout(KILL_PATIENCE, process.exited()).await.is_ok() {
        return ToolError::TimedOut { program, after, stderr: captured.texts().1 };
    }
    let pid = process.id().pid;
    let state = facts_of(pid).map_or('?', |facts| facts.state);
    ToolError::Stuck { program, pid, state, after }
}

/// Kills a tool whose caller stopped waiting.
struct KillOnDrop(Option<Process>);

impl KillOnDrop {
    fn process(&self) -> Option<Process> {
        self.0.clone()
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(process) = self.0.take() {
            drop(process.kill_session());
        }
    }
}

/// Our ends of a tool's pipes and what came through them.
struct Captured {
    stdin: Option<(pipe::Sender, Vec<u8>)>,
    stdout: Stream,
    stderr: Stream,
}

impl Captured {
    fn open(command: &ToolCommand) -> io::Result<(Streams, Self)> {
        let (stdout, out_end) = Stream::open(command.capture)?;
        let (stderr, err_end) = Stream::open(command.capture)?;
        let (stdin, in_end) = if command.stdin.is_empty() {
            (None, Stdio::null())
        } else {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            rustix::io::ioctl_fionbio(&write, true)?;
            let sender = pipe::Sender::from_owned_fd(write)?;
            (Some((sender, command.stdin.clone())), read.into())
        };
        let streams = Streams { stdin: in_end, stdout: out_end.into(), stderr: err_end.into() };
        Ok((streams, Self { stdin, stdout, stderr }))
    }

    /// Feeds and reads the pipes until the tool ends. A pipe may stay open beyond that: what the tool left running in the
    /// background holds it.
    async fn until_exit(&mut self, process: Option<Process>) -> Exit {
        let Some(process) = process else { return Exit::Unknown };
        let Self { stdin, stdout, stderr } = self;
        let feed = async {
            if let Some((mut pipe, bytes)) = stdin.take() {
                // A tool that does not read its input says so by its exit code.
                let _ = pipe.write_all(&bytes).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            exit = process.exited() => exit,
            () = feed => Exit::Unknown,
            () = stdout.follow() => Exit::Unknown,
            () = stderr.follow() => Exit::Unknown,
        }
    }

    /// Takes what still lies in the pipes: all that the tool itself wrote is there once it has ended.
    fn drain(&mut self) {
        self.stdout.drain();
        self.stderr.drain();
    }

    fn texts(self) -> (String, String) {
        (self.stdout.kept.into_text(), self.stderr.kept.into_text())
    }
}

struct Stream {
    pipe: pipe::Receiver,
    kept: Kept,
}

impl Stream {
    fn open(capture: usize) -> io::Result<(Self, OwnedFd)> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&read, true)?;
        let pipe = pipe::Receiver::from_owned_fd(read)?;
        Ok((Self { pipe, kept: Kept::new(capture) }, write))
    }

    /// Reads for ever; the end of the stream is not the end of the tool.
    async fn follow(&mut self) {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            match self.pipe.read(&mut buffer).await {
                Ok(0) | Err(_) => std::future::pending().await,
                Ok(count) => self.kept.push(&buffer[..count]),
            }
        }
    }

    fn drain(&mut self) {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(count) = rustix::io::read(&self.pipe, &mut buffer) {
            if count == 0 {
                return;
            }
            self.kept.push(&buffer[..count]);
        }
    }
}

/// The beginning and the end of a stream: errors stand at either.
struct Kept {
    head: Vec<u8>,
    tail: std::collections::VecDeque<u8>,
    half: usize,
    dropped: usize,
}

impl Kept {
    fn new(limit: usize) -> Self {
        Self {
            head: Vec::new(),
            tail: std::collections::VecDeque::new(),
            half: limit.div_ceil(2),
            dropped: 0,
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        let (head, rest) = bytes.split_at(bytes.len().min(self.half - self.head.len()));
        self.head.extend_from_slice(head);
        self.tail.extend(rest);
        let excess = self.tail.len().saturating_sub(self.half);
        self.tail.drain(..excess);
        self.dropped += excess;
    }

    fn into_text(self) -> String {
        let tail = Vec::from(self.tail);
        if self.dropped == 0 {
            return String::from_utf8_lossy(&[self.head, tail].concat()).into_owned();
        }
        let (head, tail) = (String::from_utf8_lossy(&self.head), String::from_utf8_lossy(&tail));
        format!("{head}\n... {} bytes left out ...\n{tail}", self.dropped)
    }
}

impl fmt::Debug for KillOnDrop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KillOnDrop({:?})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_and_the_end_of_a_long_output_are_kept() {
        let mut kept = Kept::new(8);
        for part in ["ab", "cdef", "gh", "ijklmnop"] {
            kept.push(part.as_bytes());
        }
        assert_eq!(kept.into_text(), "abcd\n... 8 bytes left out ...\nmnop");
    }

    #[test]
    fn a_short_output_is_kept_as_it_is() {
        let mut kept = Kept::new(8);
        kept.push(b"abcdefgh");
        assert_eq!(kept.into_text(), "abcdefgh");
    }
}
