//! Asking an agent over its unix socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::{Reply, Request};

/// Why an agent did not answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens there.
    #[error("no agent answers at {}: {source}", socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// No answer in time.
    #[error("the agent at {} did not answer within {} s", socket.display(), limit.as_secs())]
    Late {
        /// The socket.
        socket: PathBuf,
        /// How long was waited.
        limit: Duration,
    },
    /// The answer is not one.
    #[error("the agent at {} gave no proper answer: {problem}", socket.display())]
    Broken {
        /// The socket.
        socket: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// Asks the agent that listens on `socket`.
///
/// # Errors
/// [`AskError`]; a refusal is a [`Reply`], not an error.
pub async fn ask(socket: &Path, request: &Request, limit: Duration) -> Result<Reply, AskError> {
    match tokio::time::timeout(limit, exchange(socket, request)).await {
        Ok(result) => result,
        Err(_) => Err(AskError::Late { socket: socket.to_owned(), limit }),
    }
}

async fn exchange(socket: &Path, request: &Request) -> Result<Reply, AskError> {
    let broken = |problem: String| AskError::Broken { socket: socket.to_owned(), problem };
    let mut stream = UnixStream::connect(socket)
        .await
        .map_err(|source| AskError::Connect { socket: socket.to_owned(), source })?;
    let mut line = serde_json::to_vec(request).map_err(|error| broken(error.to_string()))?;
    line.push(b'\n');
    stream.write_all(&line).await.map_err(|error| broken(error.to_string()))?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).await.map_err(|error| broken(error.to_string()))?;
    serde_json::from_str(&answer).map_err(|error| broken(error.to_string()))
}
