//! Cancel requests: a connection of its own that carries a session's number and key, is never answered, and is closed
//! by the server when it has been dealt with.
//!
//! Source: PostgreSQL documentation, "Canceling Requests in Progress".

use std::time::Duration;

use model::routes::DatabaseEndpoint;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::socket;

/// How long one member may take to deal with the request.
const LONGEST: Duration = Duration::from_secs(2);

/// Passes a cancel request to every member that may hold the session (which one does, only the member can tell by the
/// key) and returns when all have dealt with it, as the client waits for that.
pub(super) async fn forward(request: Vec<u8>, members: &[DatabaseEndpoint]) {
    let mut errands = JoinSet::new();
    for member in members {
        let (address, request) = (member.address, request.clone());
        errands.spawn(timeout(LONGEST, async move {
            let mut stream = TcpStream::connect(address).await?;
            socket::prepare(&stream);
            stream.write_all(&request).await?;
            stream.read(&mut [0]).await
        }));
    }
    while let Some(outcome) = errands.join_next().await {
        match outcome {
            Ok(Ok(Ok(_))) => {}
            Ok(Ok(Err(error))) => tracing::debug!(%error, "a member took no cancel request"),
            Ok(Err(_)) | Err(_) => tracing::debug!("a member did not deal with a cancel request in time"),
        }
    }
}
