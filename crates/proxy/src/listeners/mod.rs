//! Listening sockets: opened when a table asks for them, tried again when they cannot be, closed when no table wants them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;

use crate::core::listen::Wanted;
use crate::plane::{Guest, Plane};

/// The pause after the system refused to hand out a connection (usually: no file descriptor is free).
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// Connections the kernel holds for us while we are busy.
const BACKLOG: u32 = 4096;
/// The first pause after an address could not be opened.
const REOPEN_FIRST: Duration = Duration::from_millis(10);
/// The longest.
const REOPEN_LONGEST: Duration = Duration::from_secs(1);
/// Attempts before a failure counts: the socket that is in the way may be one that is just being closed.
const GRACE_ATTEMPTS: u32 = 3;

/// All listeners of a proxy.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    attended: BTreeMap<SocketAddr, Attended>,
}

/// One address and the task that attends to it.
#[derive(Debug)]
struct Attended {
    condition: Arc<Mutex<Condition>>,
    /// Closes the listener; clients that the kernel holds already still go to the guest given here.
    close: oneshot::Sender<Option<Guest>>,
}

/// Whether an address has its listener.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    Open,
    /// Could not be opened so far; it is too early to call it a failure.
    Trying,
    Failed(String),
}

impl Listeners {
    /// Opens what is wanted and missing, then closes what is not wanted any more. `heir` names the route that gets
    /// the clients which a closing listener has already taken in.
    pub(crate) fn change(
        &mut self,
        plane: &Arc<Plane>,
        wanted: &Wanted,
        heir: impl Fn(&SocketAddr) -> Option<Guest>,
    ) {
        let present: BTreeSet<_> = self.attended.keys().copied().collect();
        let change = crate::core::listen::change(&present, wanted);
        for address in change.open {
            self.attended.insert(address, Attended::begin(plane.clone(), address));
        }
        for address in change.close {
            if let Some(attended) = self.attended.remove(&address) {
                // The task cannot have ended before: it ends by this message only.
                drop(attended.close.send(heir(&address)));
            }
        }
    }

    /// Addresses without a listener, with the reason.
    pub(crate) fn failures(&self) -> Vec<(SocketAddr, String)> {
        let failure = |(address, attended): (&SocketAddr, &Attended)| match attended.condition() {
            Condition::Failed(reason) => Some((*address, reason)),
            Condition::Open | Condition::Trying => None,
        };
        self.attended.iter().filter_map(failure).collect()
    }

    /// Whether every address either has its listener or has failed.
    pub(crate) fn are_settled(&self) -> bool {
        self.attended.values().all(|attended| attended.condition() != Condition::Trying)
    }
}

impl Attended {
    fn begin(plane: Arc<Plane>, address: SocketAddr) -> Self {
        let first = open(address);
        let condition = Arc::new(Mutex::new(if first.is_ok() { Condition::Open } else { Condition::Trying }));
        let (close, closed) = oneshot::channel();
        let attendant = Attendant { plane, address, condition: condition.clone() };
        tokio::spawn(attendant.run(first, closed));
        Self { condition, close }
    }

    fn condition(&self) -> Condition {
        self.condition.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The task of one address.
struct Attendant {
    plane: Arc<Plane>,
    address: SocketAddr,
    condition: Arc<Mutex<Condition>>,
}

impl Attendant {
    async fn run(self, first: io::Result<TcpListener>, mut close: oneshot::Receiver<Option<Guest>>) {
        let listener = match first {
            Ok(listener) => listener,
            Err(error) => match self.keep_trying(error, &mut close).await {
                Some(listener) => listener,
                None => return,
            },
        };
        loop {
            tokio::select! {
                biased;
                heir = &mut close => return self.hand_over(&listener, heir.ok().flatten()).await,
                accepted = listener.accept() => self.accepted(accepted).await,
            }
        }
    }

    /// Opens the address as soon as that is possible; `None` when it is not wanted any more.
    async fn keep_trying(
        &self,
        mut error: io::Error,
        close: &mut oneshot::Receiver<Option<Guest>>,
    ) -> Option<TcpListener> {
        let mut pause = REOPEN_FIRST;
        for attempt in 1_u32.. {
            if attempt > GRACE_ATTEMPTS {
                self.set(Condition::Failed(error.to_string()));
            }
            tokio::select! {
                _ = &mut *close => return None,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(REOPEN_LONGEST);
            match open(self.address) {
                Ok(listener) => {
                    self.set(Condition::Open);
                    return Some(listener);
                }
                Err(again) => error = again,
            }
        }
        None
    }

    async fn accepted(&self, accepted: io::Result<(TcpStream, SocketAddr)>) {
        match accepted {
            Ok((stream, _)) => self.plane.receive(&self.address, stream),
            Err(error) => {
                tracing::warn!(address = %self.address, %error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }

    /// Closes the listener after its last clients are served: a close would reset those that the kernel holds for it.
    async fn hand_over(&self, listener: &TcpListener, heir: Option<Guest>) {
        let Some(heir) = heir else { return };
        std::future::poll_fn(|cx| {
            while let Poll::Ready(Ok((stream, _))) = listener.poll_accept(cx) {
                self.plane.receive_for(heir.clone(), stream);
            }
            Poll::Ready(())
        })
        .await;
    }

    fn set(&self, condition: Condition) {
        let mut present = self.condition.lock().unwrap_or_else(PoisonError::into_inner);
        if *present != condition {
            tracing::info!(address = %self.address, ?condition, "listener");
            *present = condition;
            drop(present);
            self.plane.listeners_changed();
        }
    }
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
