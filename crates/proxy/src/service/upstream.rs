//! Connections to one instance.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::socket;

/// The body of a request to an instance: whole and repeatable, or as it comes from the client.
pub(super) type Outgoing = Either<Full<Bytes>, Incoming>;
/// The sending end of one connection.
pub(super) type Sender = SendRequest<Outgoing>;

/// How long an instance may take to accept a connection.
const CONNECT_LONGEST: Duration = Duration::from_secs(1);
/// Unused connections kept for each instance.
const IDLE_MOST: usize = 256;
/// How long an unused connection is kept.
const IDLE_LONGEST: Duration = Duration::from_secs(60);
/// A request that must not be sent twice uses only connections that were in use this recently: the instance may be
/// closing an older one at this very moment.
const IDLE_LONGEST_ONCE: Duration = Duration::from_secs(1);

/// One instance as the destination of connections.
#[derive(Debug)]
pub(super) struct Upstream {
    address: SocketAddr,
    /// True when the instance is gone; every connection to it holds a receiver.
    gone: watch::Sender<bool>,
    pool: Mutex<Pool>,
}

#[derive(Debug, Default)]
struct Pool {
    /// The longest unused first.
    idle: Vec<Idle>,
    /// No connection is kept any more.
    retired: bool,
}

#[derive(Debug)]
struct Idle {
    sender: Sender,
    since: Instant,
}

impl Upstream {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self { address, gone: watch::Sender::new(false), pool: Mutex::default() }
    }

    /// Where the instance listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// An unused connection, if there is one that may serve this request.
    pub(super) fn reuse(&self, repeatable: bool) -> Option<Sender> {
        let longest = if repeatable { IDLE_LONGEST } else { IDLE_LONGEST_ONCE };
        let mut pool = self.lock();
        while let Some(idle) = pool.idle.pop() {
            if idle.since.elapsed() > longest {
                // All others are even older, but may do for another request.
                pool.idle.push(idle);
                return None;
            }
            if idle.sender.is_ready() {
                return Some(idle.sender);
            }
        }
        None
    }

    /// A new connection.
    pub(super) async fn connect(&self) -> io::Result<Sender> {
        let mut gone = self.gone.subscribe();
        let stream = tokio::select! {
            () = until(&mut gone) => return Err(io::Error::other("the instance is gone")),
            connected = timeout(CONNECT_LONGEST, TcpStream::connect(self.address)) => connected??,
        };
        socket::prepare(&stream);
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        tokio::spawn(async move {
            tokio::select! {
                outcome = connection.with_upgrades() => if let Err(error) = outcome {
                    tracing::debug!(%error, "an instance's connection ended");
                },
                () = until(&mut gone) => {}
            }
        });
        Ok(sender)
    }

    /// Keeps a connection for the next request once it is ready for one.
    pub(super) fn give_back(self: &Arc<Self>, mut sender: Sender) {
        if sender.is_ready() {
            self.keep(sender);
        } else if !sender.is_closed() {
            let upstream = self.clone();
            tokio::spawn(async move {
                if sender.ready().await.is_ok() {
                    upstream.keep(sender);
                }
            });
        }
    }

    fn keep(&self, sender: Sender) {
        let mut pool = self.lock();
        let stale = |idle: &Idle| idle.sender.is_closed() || idle.since.elapsed() > IDLE_LONGEST;
        if pool.retired || pool.idle.len() >= IDLE_MOST {
            return;
        }
        if pool.idle.first().is_some_and(stale) {
            pool.idle.remove(0);
        }
        pool.idle.push(Idle { sender, since: Instant::now() });
    }

    /// The instance takes no new requests: unused connections are closed now, others after their request.
    pub(super) fn retire(&self) {
        let mut pool = self.lock();
        pool.retired = true;
        pool.idle.clear();
    }

    /// The instance takes requests (again).
    pub(super) fn welcome(&self) {
        self.lock().retired = false;
    }

    /// The instance is gone: every connection to it is closed.
    pub(super) fn cut(&self) {
        self.retire();
        self.gone.send_replace(true);
    }

    /// Whether the instance has gone; one that comes back in its place needs another `Upstream`.
    pub(super) fn is_cut(&self) -> bool {
        *self.gone.borrow()
    }

    /// Returns when nothing is connected to an instance that is gone.
    pub(super) async fn cleared(&self) {
        if self.is_cut() {
            self.gone.closed().await;
        }
    }

    /// Tells when the instance is gone; as long as it is held, [`Upstream::cleared`] waits for its holder.
    pub(super) fn watch(&self) -> watch::Receiver<bool> {
        self.gone.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns when the instance is gone.
pub(super) async fn until(gone: &mut watch::Receiver<bool>) {
    if gone.wait_for(|gone| *gone).await.is_err() {
        // The upstream was dropped with its instance still there: nothing will ever be heard.
        std::future::pending::<()>().await;
    }
}
