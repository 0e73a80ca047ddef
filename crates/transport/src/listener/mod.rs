//! Accepting connections of nodes, and of strangers that want to join.

mod handshake;
mod pending;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use model::NodeName;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::frame::Connection;
use crate::identity::Identity;
use crate::join::{FailedAttempts, JoinDesk};
use crate::socket;
use crate::stream::StreamKind;
use pending::PendingHandshakes;

/// A peer that has not finished its greeting after this time is dropped.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(2);
/// Handshakes under way at once. When one more arrives, the oldest is dropped: an honest one takes milliseconds.
pub const MAX_PENDING_HANDSHAKES: usize = 256;
/// Accepted connections that may wait for [`Listener::accept`].
const ACCEPTED_QUEUE: usize = 64;
/// Pause after the kernel refused to accept (out of file descriptors, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Listens on one address. Dropping it stops listening; connections that were accepted live on.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    accepted: mpsc::Receiver<Accepted>,
    shared: Arc<Shared>,
    task: AbortHandle,
}

/// A connection whose peer has proved to be a node of this system.
#[derive(Debug)]
pub struct Accepted {
    /// The node, as its certificate says.
    pub peer: NodeName,
    /// What it wants.
    pub kind: StreamKind,
    /// Where it comes from.
    pub address: SocketAddr,
    /// The connection.
    pub connection: Connection,
}

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}; {}", hint(source))]
pub struct ListenError {
    /// The address.
    pub address: SocketAddr,
    /// The kernel's reason.
    pub source: io::Error,
}

/// What all handshakes of one listener need.
pub(crate) struct Shared {
    pub(crate) identity: Identity,
    pub(crate) accepted: mpsc::Sender<Accepted>,
    pub(crate) desk: RwLock<Option<Arc<dyn JoinDesk>>>,
    pub(crate) failures: Mutex<FailedAttempts>,
}

impl Listener {
    /// Listens on `address` (port 0: the kernel chooses). Must be called inside a tokio runtime.
    pub fn bind(address: SocketAddr, identity: &Identity) -> Result<Self, ListenError> {
        let fail = |source| ListenError { address, source };
        let socket = socket::listen(address).map_err(fail)?;
        let address = socket.local_addr().map_err(fail)?;
        let (sender, accepted) = mpsc::channel(ACCEPTED_QUEUE);
        let shared = Arc::new(Shared {
            identity: identity.clone(),
            accepted: sender,
            desk: RwLock::new(None),
            failures: Mutex::new(FailedAttempts::default()),
        });
        let task = tokio::spawn(serve(socket, shared.clone())).abort_handle();
        Ok(Self { address, accepted, shared, task })
    }

    /// The address listened on, with the port that the kernel chose.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The next proven connection. May be cancelled and called again: nothing is lost.
    pub async fn accept(&mut self) -> Accepted {
        match self.accepted.recv().await {
            Some(accepted) => accepted,
            // We hold a sender ourselves, so the channel never closes.
            None => std::future::pending().await,
        }
    }

    /// From now on nodes without a certificate may ask `desk` to let them in; before that they are turned away.
    pub fn offer_join(&self, desk: Arc<dyn JoinDesk>) {
        *self.shared.desk.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(desk);
    }

    /// Strangers are turned away again.
    pub fn close_join(&self) {
        *self.shared.desk.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = None;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shared({:?})", self.identity)
    }
}

async fn serve(socket: TcpListener, shared: Arc<Shared>) {
    let mut pending = PendingHandshakes::new(MAX_PENDING_HANDSHAKES);
    loop {
        tokio::select! {
            accepted = socket.accept() => match accepted {
                Ok((stream, from)) => pending.spawn(handshake::run(stream, from, shared.clone())),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            () = pending.reap() => {}
        }
    }
}

fn hint(error: &io::Error) -> &'static str {
    let hints = [
        (
            io::ErrorKind::AddrInUse,
            "another program has the port: stop it, or choose another port in the system file",
        ),
        (io::ErrorKind::AddrNotAvailable, "this machine does not have that address: see `ip address`"),
        (io::ErrorKind::PermissionDenied, "ports below 1024 need root or CAP_NET_BIND_SERVICE"),
    ];
    let known = hints.into_iter().find(|(kind, _)| *kind == error.kind());
    known.map_or("is the address right?", |(_, hint)| hint)
}
