//! The side that gives its place up.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as Blocking;
use std::time::Duration;

use model::routes::RouteTable;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::task::spawn_blocking;

use super::message::{FORMAT, FromPredecessor, FromSuccessor, Legacy};
use super::{Estate, PATIENCE, descriptors, message};

/// A successor that is ready and waits for its turn.
pub(crate) struct Awaiting {
    stream: Blocking,
    /// How long connections may stay with the predecessor.
    pub(crate) drain: Duration,
}

/// A process that has taken over. It is known to live as long as it keeps the connection.
pub(crate) struct Successor(UnixStream);

/// How a successor's part ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Its process has ended.
    Ended,
    /// It has handed over to somebody else.
    Released,
}

/// Passes all over to whoever has connected; returns when that is ready to serve. Nothing has changed until then.
pub(crate) async fn offer(stream: UnixStream, estate: Estate) -> io::Result<Awaiting> {
    let stream = stream.into_std()?;
    // Both sides wait for one another and do nothing else: plain blocking calls, on a thread for that.
    spawn_blocking(move || offer_blocking(stream, estate)).await.map_err(io::Error::other)?
}

fn offer_blocking(stream: Blocking, estate: Estate) -> io::Result<Awaiting> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let (listeners, open): (Vec<_>, Vec<OwnedFd>) = estate.listeners.into_iter().unzip();
    let legacy = Legacy { format: FORMAT, table: estate.table, cookies: estate.cookies, listeners };
    message::write(&stream, &legacy)?;
    descriptors::send(&stream, &open)?;
    match message::read(&stream)? {
        FromSuccessor::Ready { drain_ms } => Ok(Awaiting { stream, drain: Duration::from_millis(drain_ms) }),
        FromSuccessor::Released => Err(io::Error::other("the successor gave up before it was ready")),
    }
}

impl Awaiting {
    /// Tells it that it is its turn.
    pub(crate) async fn yours(self, table: RouteTable) -> io::Result<Successor> {
        let told = spawn_blocking(move || {
            message::write(&self.stream, &FromPredecessor::Yours { table })?;
            self.stream.set_nonblocking(true)?;
            Ok::<_, io::Error>(self.stream)
        });
        Ok(Successor(UnixStream::from_std(told.await.map_err(io::Error::other)??)?))
    }
}

impl Successor {
    /// Waits until its part ends. May be dropped and called again.
    pub(crate) async fn outcome(&mut self) -> Outcome {
        // It says one thing only, and that in a few bytes.
        match self.0.read_u8().await {
            Ok(_) => Outcome::Released,
            Err(_) => Outcome::Ended,
        }
    }
}
