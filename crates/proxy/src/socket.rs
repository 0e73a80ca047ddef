//! Options of sockets and limits of the process.

use std::time::Duration;

use rustix::net::sockopt;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpStream;

/// Silence after which the kernel asks whether the peer still lives.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
/// Time between two such questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
/// Unanswered questions after which the connection is dead.
const KEEPALIVE_COUNT: u32 = 3;
/// Files for listeners, the control socket, logs and the runtime itself.
const FILES_KEPT_BACK: u64 = 256;
/// Never plan for more connections than this, whatever the limit of open files.
const MOST_CONNECTIONS: u64 = 200_000;

/// No delay for small messages, and a peer that vanished without a word is noticed within 20 seconds of silence.
///
/// `TCP_USER_TIMEOUT` is not set on purpose: since Linux 5.11 it also cuts a peer that lives but does not read for
/// that long (a client that thinks about a row, a server that waits for a lock), which no database connection may
/// suffer. See `database::stalled` for the case that keepalives do not cover.
pub(crate) fn prepare(stream: &TcpStream) {
    let outcome = stream
        .set_nodelay(true)
        .and_then(|()| Ok(sockopt::set_socket_keepalive(stream, true)?))
        .and_then(|()| Ok(sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?))
        .and_then(|()| Ok(sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?))
        .and_then(|()| Ok(sockopt::set_tcp_keepcnt(stream, KEEPALIVE_COUNT)?));
    if let Err(error) = outcome {
        // The peer has gone already; the next read says so.
        tracing::debug!(%error, "cannot set socket options");
    }
}

/// Makes the close of `stream` a reset: the peer learns at once and the kernel forgets all that is unsent.
pub(crate) fn reset_on_close(stream: &TcpStream) {
    if let Err(error) = stream.set_zero_linger() {
        tracing::debug!(%error, "cannot arrange a reset");
    }
}

/// Raises the soft limit of open files to the hard one; returns how many proxied connections fit into it.
pub(crate) fn raise_file_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    if limit.current < limit.maximum
        && let Err(error) =
            setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        tracing::warn!(%error, "cannot raise the limit of open files to the hard limit");
    }
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let connections = (files.saturating_sub(FILES_KEPT_BACK) / 2).clamp(16, MOST_CONNECTIONS);
    usize::try_from(connections).unwrap_or(usize::MAX)
}
