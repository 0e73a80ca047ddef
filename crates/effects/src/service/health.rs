//! One health question to one instance.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use model::system::Probe;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::network::probe::{self, Reach};
use crate::process::{OsUser, ToolCommand, ToolOutput, run_tool};

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

/// Asks `target` once.
///
/// # Errors
/// One sentence that says what was wrong with the answer.
pub async fn check(probe: &Probe, target: &Target, timeout: Duration) -> Result<(), String> {
    match probe {
        Probe::Http { path } => http(target.address, path, timeout).await,
        Probe::Tcp => match probe::tcp(target.address, timeout).await {
            Reach::Connected { .. } => Ok(()),
            reach @ (Reach::Refused { .. } | Reach::Silent { .. } | Reach::NoWay { .. }) => {
                Err(format!("{} {reach}", target.address))
            }
        },
        Probe::Command { command } => run(command, target, timeout).await,
        Probe::Process => Ok(()),
    }
}

async fn run(command: &[String], target: &Target, timeout: Duration) -> Result<(), String> {
    let Some((program, args)) = command.split_first() else {
        return Err("the check command is empty".into());
    };
    let tool = ToolCommand {
        env: target.env.clone().into_iter().collect(),
        cwd: Some(target.cwd.clone()),
        user: target.user.clone(),
        capture: HEAD,
        ..ToolCommand::new(program, args.iter().cloned(), timeout)
    };
    run_tool(tool).await.and_then(ToolOutput::checked).map(|_| ()).map_err(|error| error.to_string())
}

/// `GET path` over HTTP/1.1 (RFC 9112), on a connection of its own. 200 to 399 is good.
async fn http(address: SocketAddr, path: &str, timeout: Duration) -> Result<(), String> {
    match tokio::time::timeout(timeout, status_line(address, path)).await {
        Ok(Ok(line)) => judge(path, &line),
        Ok(Err(error)) => Err(format!("GET {path} on {address} failed: {error}")),
        Err(_) => Err(format!("GET {path} on {address} was not answered within {timeout:?}")),
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

fn judge(path: &str, line: &str) -> Result<(), String> {
    let (version, status) = line.split_once(' ').unwrap_or((line, ""));
    let code = status.get(..3).and_then(|code| code.parse::<u16>().ok());
    match code {
        Some(200..=399) if version.starts_with("HTTP/1.") => Ok(()),
        Some(_) if version.starts_with("HTTP/1.") => Err(format!("GET {path} answered {status}")),
        Some(_) | None if line.is_empty() => {
            Err(format!("GET {path} was answered by closing the connection"))
        }
        Some(_) | None => Err(format!("GET {path} was not answered in HTTP")),
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
            assert_eq!(judge("/", line), Err(because.to_owned()));
        }
    }
}
