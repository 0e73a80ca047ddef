//! The asking side: one connection, kept up in the background.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use model::NodeName;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::wire::Message;
use crate::dial::{DialError, dial};
use crate::frame::{Connection, FrameError, FrameReceiver, FrameSender};
use crate::identity::Identity;
use crate::stream::StreamKind;

/// First pause before dialling again; it doubles up to [`LONGEST_PAUSE`].
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// How long one dialling may take.
const DIAL_DEADLINE: Duration = Duration::from_secs(1);
/// While requests wait for answers, the peer is pinged this often ...
const PING_INTERVAL: Duration = Duration::from_millis(250);
/// ... and a connection on which nothing arrives for this long is replaced.
const SILENCE_LIMIT: Duration = Duration::from_secs(1);
/// A long message gets more time to leave than [`SILENCE_LIMIT`]: what a line of this speed needs (bytes per second).
const SLOWEST_LINE: usize = 1 << 20;
/// Requests that may wait to be written.
const QUEUE: usize = 256;

/// A node to be asked, with every address it can be reached at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpcTarget {
    /// The node.
    pub node: NodeName,
    /// Its addresses, one for each line, each with the own address to dial from. All are dialled at once; the first
    /// that answers is used.
    pub lines: Vec<(SocketAddr, Option<IpAddr>)>,
}

/// A client of one node. Clones share the connection; it is closed when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct RpcClient {
    requests: mpsc::Sender<Waiting>,
    connected: Arc<AtomicBool>,
    target: RpcTarget,
}

/// Why a request has no answer. Only [`RpcError::Refused`] says that it was not carried out; after the others it may
/// have been.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RpcError {
    /// There is no connection now; one is being tried for in the background.
    #[error("node `{0}` is not connected")]
    NotConnected(NodeName),
    /// The connection broke while the answer was awaited.
    #[error("the connection to node `{0}` broke")]
    ConnectionLost(NodeName),
    /// No answer in time.
    #[error("node `{node}` did not answer within {} ms", waited.as_millis())]
    TimedOut {
        /// The node asked.
        node: NodeName,
        /// The deadline given.
        waited: Duration,
    },
    /// The node answered that it cannot or will not.
    #[error("node `{node}`: {reason}")]
    Refused {
        /// The node asked.
        node: NodeName,
        /// Its words.
        reason: String,
    },
    /// The pool has no such node.
    #[error("node `{0}` is not known here")]
    UnknownNode(NodeName),
}

/// A request on its way to the connection's task.
#[derive(Debug)]
struct Waiting {
    body: Bytes,
    answer: oneshot::Sender<Result<Bytes, RpcError>>,
}

/// What the reading and the writing half of one connection share.
struct Live<'a> {
    node: &'a NodeName,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Result<Bytes, RpcError>>>>,
}

/// How long nothing has arrived although something was owed.
struct Silence {
    received: Arc<AtomicU64>,
    seen: u64,
    since: Instant,
}

/// The background task.
struct Keeper {
    target: RpcTarget,
    kind: StreamKind,
    identity: Identity,
    requests: mpsc::Receiver<Waiting>,
    connected: Arc<AtomicBool>,
}

// ---------------------------------------------------------------------------------------------- RpcClient

impl RpcClient {
    /// Starts to keep a connection to `target`. Must be called inside a tokio runtime; returns at once.
    pub fn start(target: RpcTarget, kind: StreamKind, identity: &Identity) -> Self {
        let (sender, requests) = mpsc::channel(QUEUE);
        let connected = Arc::new(AtomicBool::new(false));
        let keeper = Keeper {
            target: target.clone(),
            kind,
            identity: identity.clone(),
            requests,
            connected: connected.clone(),
        };
        tokio::spawn(keeper.run());
        Self { requests: sender, connected, target }
    }

    /// Asks and waits for the answer for at most `deadline`. Fails at once when there is no connection.
    pub async fn call(&self, body: impl Into<Bytes>, deadline: Duration) -> Result<Bytes, RpcError> {
        let node = &self.target.node;
        if !self.is_connected() {
            return Err(RpcError::NotConnected(node.clone()));
        }
        let (answer, answered) = oneshot::channel();
        let exchange = async {
            let waiting = Waiting { body: body.into(), answer };
            self.requests.send(waiting).await.map_err(|_| RpcError::NotConnected(node.clone()))?;
            answered.await.unwrap_or_else(|_| Err(RpcError::ConnectionLost(node.clone())))
        };
        let late = |_| RpcError::TimedOut { node: node.clone(), waited: deadline };
        timeout(deadline, exchange).await.map_err(late)?
    }

    /// Whether there is a connection now.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Acquire)
    }

    /// The node asked.
    pub fn target(&self) -> &RpcTarget {
        &self.target
    }
}

// ---------------------------------------------------------------------------------------------- Keeper

impl Keeper {
    async fn run(mut self) {
        let mut pause = SHORTEST_PAUSE;
        loop {
            match self.dial_any().await {
                Ok(connection) => {
                    pause = SHORTEST_PAUSE;
                    self.connected.store(true, Ordering::Release);
                    let ended = self.serve(connection).await;
                    self.connected.store(false, Ordering::Release);
                    match ended {
                        Some(error) => tracing::debug!(node = %self.target.node, %error, "connection ended"),
                        None => return,
                    }
                }
                Err(error) => tracing::debug!(node = %self.target.node, %error, "cannot connect"),
            }
            if !self.refuse_for(pause).await {
                return;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Dials all addresses at once and takes the first connection.
    async fn dial_any(&self) -> Result<Connection, DialError> {
        let mut attempts = JoinSet::new();
        for (address, source) in self.target.lines.iter().copied() {
            let (node, kind, identity) = (self.target.node.clone(), self.kind, self.identity.clone());
            attempts.spawn(async move { dial(address, &node, kind, &identity, DIAL_DEADLINE, source).await });
        }
        let mut failure = DialError::Name(self.target.node.clone());
        while let Some(attempt) = attempts.join_next().await {
            match attempt {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => failure = error,
                Err(_) => {}
            }
        }
        Err(failure)
    }

    /// Runs one connection to its end; nothing means that nobody holds the client any more.
    async fn serve(&mut self, connection: Connection) -> Option<FrameError> {
        let (sender, receiver) = connection.split();
        let live = Live { node: &self.target.node, waiting: Mutex::default() };
        let silence = Silence { received: receiver.received(), seen: 0, since: Instant::now() };
        let ended = tokio::select! {
            ended = live.write(sender, &mut self.requests, silence) => ended,
            error = live.read(receiver) => Some(error),
        };
        live.fail_all();
        ended
    }

    /// Pauses; requests that slipped in fail at once. False when nobody holds the client any more.
    async fn refuse_for(&mut self, pause: Duration) -> bool {
        let pause = sleep(pause);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => return true,
                request = self.requests.recv() => match request {
                    // The caller may have given up already.
                    Some(waiting) => drop(waiting.answer.send(Err(RpcError::NotConnected(self.target.node.clone())))),
                    None => return false,
                },
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------- Live

impl Live<'_> {
    async fn write(
        &self,
        mut sender: FrameSender,
        requests: &mut mpsc::Receiver<Waiting>,
        mut silence: Silence,
    ) -> Option<FrameError> {
        let mut ticks = tokio::time::interval(PING_INTERVAL);
        let mut next_id = 0_u64;
        loop {
            let message = tokio::select! {
                request = requests.recv() => match request {
                    Some(waiting) => self.register(&mut next_id, waiting),
                    None => return None,
                },
                _ = ticks.tick() => match silence.check(self.owed()) {
                    Ok(true) => Message::Ping(0),
                    Ok(false) => continue,
                    Err(error) => return Some(error),
                },
            };
            let frame = message.encode();
            // A full send buffer must not hide a dead connection.
            let limit =
                SILENCE_LIMIT + Duration::from_secs(u64::try_from(frame.len() / SLOWEST_LINE).unwrap_or(0));
            match (timeout(limit, sender.send(&frame)).await, message) {
                (Ok(Ok(())), _) => {}
                (Ok(Err(error @ FrameError::TooLong { .. })), Message::Request(id, _)) => {
                    self.refuse(id, &error)
                }
                (Ok(Err(error)), _) => return Some(error),
                (Err(_), _) => return Some(silent()),
            }
        }
    }

    async fn read(&self, mut receiver: FrameReceiver) -> FrameError {
        loop {
            let frame = match receiver.recv().await {
                Ok(frame) => frame,
                Err(error) => return error,
            };
            match Message::decode(frame) {
                Some(Message::Answer(id, body)) => self.complete(id, Ok(body)),
                Some(Message::Failure(id, reason)) => {
                    let reason = String::from_utf8_lossy(&reason).into_owned();
                    self.complete(id, Err(RpcError::Refused { node: self.node.clone(), reason }));
                }
                Some(Message::Pong(_)) => {}
                Some(Message::Request(..) | Message::Ping(_)) | None => {
                    return std::io::Error::new(std::io::ErrorKind::InvalidData, "not an answer").into();
                }
            }
        }
    }

    fn register(&self, next_id: &mut u64, waiting: Waiting) -> Message {
        *next_id += 1;
        let mut all = lock(&self.waiting);
        all.retain(|_, answer| !answer.is_closed());
        all.insert(*next_id, waiting.answer);
        Message::Request(*next_id, waiting.body)
    }

    fn owed(&self) -> bool {
        !lock(&self.waiting).is_empty()
    }

    fn complete(&self, id: u64, result: Result<Bytes, RpcError>) {
        if let Some(answer) = lock(&self.waiting).remove(&id) {
            // The caller may have given up already.
            let _ = answer.send(result);
        }
    }

    fn refuse(&self, id: u64, error: &FrameError) {
        self.complete(id, Err(RpcError::Refused { node: self.node.clone(), reason: error.to_string() }));
    }

    fn fail_all(&self) {
        for (_, answer) in lock(&self.waiting).drain() {
            let _ = answer.send(Err(RpcError::ConnectionLost(self.node.clone())));
        }
    }
}

impl Silence {
    /// Whether to ping: answers are owed. An error when nothing came for too long although something was owed.
    fn check(&mut self, owed: bool) -> Result<bool, FrameError> {
        let received = self.received.load(Ordering::Relaxed);
        if !owed || received != self.seen {
            (self.seen, self.since) = (received, Instant::now());
        }
        if self.since.elapsed() > SILENCE_LIMIT { Err(silent()) } else { Ok(owed) }
    }
}

fn silent() -> FrameError {
    std::io::Error::new(std::io::ErrorKind::TimedOut, "nothing arrives any more").into()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
