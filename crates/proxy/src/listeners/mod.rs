//! Listening sockets: opened when a table asks for them, tried again when they cannot be, closed when no table wants them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{oneshot, watch};

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
    /// Taken over from the proxy before this one, until a table asks for them.
    inherited: BTreeMap<SocketAddr, TcpListener>,
    stance: watch::Sender<Stance>,
    /// They have been left to others for good.
    released: bool,
}

/// What is done with clients who come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stance {
    /// They are served.
    #[default]
    Accepting,
    /// They are left to another process that has the same listeners; these are kept for the case that it ends.
    Holding,
}

/// One address and the task that attends to it.
#[derive(Debug)]
struct Attended {
    post: Arc<Mutex<Post>>,
    /// Closes the listener; clients that the kernel holds already still go to the guest given here.
    close: oneshot::Sender<Option<Guest>>,
}

/// An address and what became of it.
#[derive(Debug)]
struct Post {
    condition: Condition,
    listener: Option<Arc<TcpListener>>,
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
        let opens =
            !self.released && (*self.stance.borrow() == Stance::Accepting || !self.inherited.is_empty());
        for address in change.open.into_iter().filter(|_| opens) {
            let inherited = self.inherited.remove(&address);
            let attended = Attended::begin(plane.clone(), address, inherited, self.stance.subscribe());
            self.attended.insert(address, attended);
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
        if self.are_left_to_others() {
            return Vec::new();
        }
        let failure = |(address, attended): (&SocketAddr, &Attended)| match attended.condition() {
            Condition::Failed(reason) => Some((*address, reason)),
            Condition::Open | Condition::Trying => None,
        };
        self.attended.iter().filter_map(failure).collect()
    }

    /// Whether every address either has its listener or has failed.
    pub(crate) fn are_settled(&self) -> bool {
        self.are_left_to_others()
            || self.attended.values().all(|attended| attended.condition() != Condition::Trying)
    }

    fn are_left_to_others(&self) -> bool {
        *self.stance.borrow() == Stance::Holding
    }

    /// Those of the proxy before this one; the next table opens no address anew that is among them.
    pub(crate) fn inherit(&mut self, inherited: BTreeMap<SocketAddr, TcpListener>) {
        self.inherited = inherited;
    }

    /// Serves clients who come from now on, or leaves them to others.
    pub(crate) fn take(&mut self, stance: Stance) {
        self.inherited.clear();
        self.stance.send_replace(stance);
    }

    /// Leaves all of them to others for good.
    pub(crate) fn release(&mut self) {
        self.released = true;
        self.attended.clear();
    }

    /// Descriptors of all that are open.
    pub(crate) fn descriptors(&self) -> io::Result<Vec<(SocketAddr, OwnedFd)>> {
        let open =
            self.attended.iter().filter_map(|(address, attended)| Some((*address, attended.listener()?)));
        open.map(|(address, listener)| Ok((address, listener.as_fd().try_clone_to_owned()?))).collect()
    }
}

impl Attended {
    fn begin(
        plane: Arc<Plane>,
        address: SocketAddr,
        inherited: Option<TcpListener>,
        stance: watch::Receiver<Stance>,
    ) -> Self {
        let first = inherited.map_or_else(|| open(address), Ok).map(Arc::new);
        let post = match &first {
            Ok(listener) => Post { condition: Condition::Open, listener: Some(listener.clone()) },
            Err(_) => Post { condition: Condition::Trying, listener: None },
        };
        let post = Arc::new(Mutex::new(post));
        let (close, closed) = oneshot::channel();
        let attendant = Attendant { plane, address, post: post.clone(), stance };
        tokio::spawn(attendant.run(first, closed));
        Self { post, close }
    }

    fn condition(&self) -> Condition {
        lock(&self.post).condition.clone()
    }

    fn listener(&self) -> Option<Arc<TcpListener>> {
        lock(&self.post).listener.clone()
    }
}

fn lock(post: &Mutex<Post>) -> MutexGuard<'_, Post> {
    post.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The task of one address.
struct Attendant {
    plane: Arc<Plane>,
    address: SocketAddr,
    post: Arc<Mutex<Post>>,
    stance: watch::Receiver<Stance>,
}

impl Attendant {
    async fn run(mut self, first: io::Result<Arc<TcpListener>>, mut close: oneshot::Receiver<Option<Guest>>) {
        let listener = match first {
            Ok(listener) => listener,
            Err(error) => match self.keep_trying(error, &mut close).await {
                Some(listener) => listener,
                None => return,
            },
        };
        loop {
            let accepting = self.is_accepting();
            tokio::select! {
                biased;
                // Clients of one that is merely held are those of whoever else has it.
                heir = &mut close => return match heir {
                    Ok(heir) if accepting => self.hand_over(&listener, heir).await,
                    Ok(_) | Err(_) => {}
                },
                changed = self.stance.changed() => if changed.is_err() { return },
                accepted = listener.accept(), if accepting => self.accepted(accepted).await,
            }
        }
    }

    fn is_accepting(&mut self) -> bool {
        *self.stance.borrow_and_update() == Stance::Accepting
    }

    /// Opens the address as soon as that is possible; `None` when it is not wanted any more.
    async fn keep_trying(
        &mut self,
        mut error: io::Error,
        close: &mut oneshot::Receiver<Option<Guest>>,
    ) -> Option<Arc<TcpListener>> {
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
            if !self.is_accepting() {
                continue;
            }
            match open(self.address) {
                Ok(listener) => {
                    let listener = Arc::new(listener);
                    lock(&self.post).listener = Some(listener.clone());
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
        let mut post = lock(&self.post);
        if post.condition != condition {
            tracing::info!(address = %self.address, ?condition, "listener");
            post.condition = condition;
            drop(post);
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
