//! One health question to one instance.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use model::system::Probe;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::network::probe::{self, Reach};
use crate::process::{OsUser, ProcessId, ToolCommand, ToolError, ToolOutput, facts_of, run_tool};

/// The longest part of an answer that is looked at.
const HEAD: usize = 4096;

/// Whom to ask, and in whose name a command runs.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its environment, which a check command gets too.
    pub env: BTreeMap<String, String>,
    /// Its working directory, in which a check command runs.
    pub cwd: PathBuf,
    /// Its user, as whom a check command runs.
    pub user: Option<OsUser>,
}

/// What was wrong, in one sentence, and what that says about whether it lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// It answered, and not well.
    Answer(String),
    /// It gave no answer.
    Silence(String),
    /// Its process is stopped (SIGSTOP) and does nothing at all.
    Frozen(String),
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer(because) | Self::Silence(because) | Self::Frozen(because) => f.write_str(because),
        }
    }
}

/// Whether the process runs and is not stopped: a stopped one still has connections taken by the kernel.
///
/// # Errors
/// [`Wrong::Frozen`].
pub fn moves(process: Option<ProcessId>) -> Result<(), Wrong> {
    let facts = process.and_then(|id| facts_of(id.pid).filter(|facts| facts.id == id));
    match facts.map(|facts| facts.state) {
        Some('T') => Err(Wrong::Frozen("its process is stopped (SIGSTOP)".to_owned())),
        Some(_) | None => Ok(()),
    }
}

/// Asks `target` once.
///
/// # Errors
/// What was wrong with the answer.
pub async fn check(probe: &Probe, target: &Target, timeout: Duration) -> Result<(), Wrong> {
    match probe {
        Probe::Http { path } => http(target.address, path, timeout).await,
        Probe::Tcp => match probe::tcp(target.address, timeout).await {
            Reach::Connected { .. } => Ok(()),
            reach @ (Reach::Refused { .. } | Reach::Silent { .. } | Reach::NoWay { .. }) => {
                Err(Wrong::Silence(format!("{} {reach}", target.address)))
            }
        },
        Probe::Command { command } => run(command, target, timeout).await,
        Probe::Process => Ok(()),
    }
}

async fn run(command: &[String], target: &Target, timeout: Duration) -> Result<(), Wrong> {
    let Some((program, args)) = command.split_first() else {
        return Err(Wrong::Answer("the check command is empty".into()));
    };
    let tool = ToolCommand {
        env: target.env.clone().into_iter().collect(),
        cwd: Some(target.cwd.clone()),
        user: target.user.clone(),
        capture: HEAD,
        ..ToolCommand::new(program, args.iter().cloned(), timeout)
    };
    run_tool(tool).await.and_then(ToolOutput::checked).map(|_| ()).map_err(|error| match error {
        ToolError::TimedOut { .. } | ToolError::Stuck { .. } => Wrong::Silence(error.to_string()),
        ToolError::Start(_) | ToolError::Failed { .. } => Wrong::Answer(error.to_string()),
    })
}

/// `GET path` over HTTP/1.1 (RFC 9112), on a connection of its own. 200 to 399 is good.
async fn http(address: SocketAddr, path: &str, timeout: Duration) -> Result<(), Wrong> {
    match tokio::time::timeout(timeout, status_line(address, path)).await {
        Ok(Ok(line)) => judge(path, &line),
        Ok(Err(error)) => Err(Wrong::Silence(format!("GET {path} on {address} failed: {error}"))),
        Err(_) => Err(Wrong::Silence(format!("GET {path} on {address} was not answered within {timeout:?}"))),
    }
}

async fn status_line(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nuser-agent: mainstay-health\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    let mut buffer = [0; 512];
    while !head.contains(&b'\n') && head.len() < HEAD {
        match stream.read(&mut buffer).await? {
            0 => break,
            count => head.extend_from_slice(&buffer[..count]),
        }
    }
    let line = head.split(|&byte| byte == b'\n').next().unwrap_or_default();
    Ok(String::from_utf8_lossy(line).trim_end().to_owned())
}

fn judge(path: &str, line: &str) -> Result<(), Wrong> {
    let (version, status) = line.split_once(' ').unwrap_or((line, ""));
    let code = status.get(..3).and_then(|code| code.parse::<u16>().ok());
    match code {
        Some(200..=399) if version.starts_with("HTTP/1.") => Ok(()),
        Some(_) if version.starts_with("HTTP/1.") => {
            Err(Wrong::Answer(format!("GET {path} answered {status}")))
        }
        Some(_) | None if line.is_empty() => {
            Err(Wrong::Silence(format!("GET {path} was answered by closing the connection")))
        }
        Some(_) | None => Err(Wrong::Answer(format!("GET {path} was not answered in HTTP"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_line_is_judged_by_its_code() {
        for good in ["HTTP/1.1 200 OK", "HTTP/1.0 204 No Content", "HTTP/1.1 302 Found", "HTTP/1.1 200"] {
            assert_eq!(judge("/", good), Ok(()), "{good}");
        }
        for (line, because) in [
            ("HTTP/1.1 503 Service Unavailable", "GET / answered 503 Service Unavailable"),
            ("HTTP/1.1 404", "GET / answered 404"),
            ("", "GET / was answered by closing the connection"),
            ("SSH-2.0-OpenSSH_9.2", "GET / was not answered in HTTP"),
            ("HTTP/2 200 OK", "GET / was not answered in HTTP"),
            ("HTTP/1.1 2x0 OK", "GET / was not answered in HTTP"),
        ] {
            assert_eq!(judge("/", line).map_err(|wrong| wrong.to_string()), Err(because.to_owned()));
        }
    }
}
