//! Connections to one instance.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper::header;
use hyper::http::uri::{PathAndQuery, Scheme};
use hyper::{Request, Response, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use model::system::Protocol;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::arriving::Arriving;
use super::severed::Severed;
use super::trust::{LastHandshake, Trust};
use crate::core::service::Endpoint;
use crate::socket;

/// The body of a request to an instance: whole and repeatable, or as it comes from the client.
pub(super) type Outgoing = Either<Full<Bytes>, Arriving>;
/// What came of a request; it comes back if it was never sent.
pub(super) type Sent = Result<Response<Incoming>, TrySendError<Request<Outgoing>>>;

/// How long an instance may take to accept a connection.
const CONNECT_LONGEST: Duration = Duration::from_secs(1);
/// Unused connections kept for each instance.
const IDLE_MOST: usize = 256;
/// How long an unused connection is kept.
const IDLE_LONGEST: Duration = Duration::from_secs(60);
/// A request that must not be sent twice uses only connections that were in use this recently: the instance may be
/// closing an older one at this very moment.
const IDLE_LONGEST_ONCE: Duration = Duration::from_secs(1);
/// Requests that one HTTP/2 connection carries at once; for more there is another one.
const STREAMS_MOST: usize = 100;
/// What an instance may send ahead for one request. All of a connection's requests together stay below the window of the
/// connection, so that a client who takes nothing stops no other.
const WINDOW_STREAM: u32 = 128 << 10;
const WINDOW_CONNECTION: u32 = 16 << 20;
/// The most bytes of the head of an answer.
const HEAD_MOST: u32 = 64 << 10;
/// How often a silent HTTP/2 connection is asked whether it lives, and how long it has for an answer.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_LONGEST: Duration = Duration::from_secs(5);

/// One instance as the destination of connections.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) id: String,
    address: SocketAddr,
    protocol: Protocol,
    /// How the instance proves that it is one, where it speaks TLS.
    trust: Option<Arc<Trust>>,
    last_handshake: LastHandshake,
    /// True when the instance is gone; every connection to it holds a receiver.
    gone: watch::Sender<bool>,
    pool: Mutex<Pool>,
}

#[derive(Debug, Default)]
struct Pool {
    /// HTTP/1.1, the longest unused first.
    idle: Vec<Idle>,
    /// HTTP/2.
    lanes: Vec<Lane>,
    /// No connection is kept any more.
    retired: bool,
}

#[derive(Debug)]
struct Idle {
    sender: http1::SendRequest<Outgoing>,
    since: Instant,
}

/// An HTTP/2 connection.
#[derive(Clone, Debug)]
struct Lane {
    sender: http2::SendRequest<Outgoing>,
    scheme: Scheme,
    load: Arc<AtomicUsize>,
    last_used: Instant,
}

/// The sending end of a connection, for one request.
#[derive(Debug)]
pub(super) enum Sender {
    /// A connection of its own.
    Http1(http1::SendRequest<Outgoing>),
    /// A share of one.
    Http2 {
        /// To the connection.
        sender: http2::SendRequest<Outgoing>,
        /// With TLS or without.
        scheme: Scheme,
        /// Counts as long as the request lasts.
        _share: Share,
    },
}

/// A request on an HTTP/2 connection.
#[derive(Debug)]
pub(super) struct Share(Arc<AtomicUsize>);

impl Upstream {
    pub(super) fn new(endpoint: &Endpoint, protocol: Protocol, trust: Option<Arc<Trust>>) -> Self {
        let (id, address) = (endpoint.id.clone(), endpoint.address);
        let (gone, last_handshake) = (watch::Sender::new(false), LastHandshake::default());
        Self { id, address, protocol, trust, last_handshake, gone, pool: Mutex::default() }
    }

    /// Why the last handshake with it failed, if it did.
    pub(super) fn distrust(&self) -> Option<String> {
        self.last_handshake.trouble()
    }

    /// Where the instance listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it speaks.
    pub(super) fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// An unused connection, if there is one that may serve this request.
    pub(super) fn reuse(&self, repeatable: bool) -> Option<Sender> {
        let longest = if repeatable { IDLE_LONGEST } else { IDLE_LONGEST_ONCE };
        let mut pool = self.lock();
        if self.protocol == Protocol::H2 {
            return pool.share(longest);
        }
        while let Some(idle) = pool.idle.pop() {
            if idle.since.elapsed() > longest {
                // All others are even older, but may do for another request.
                pool.idle.push(idle);
                return None;
            }
            if idle.sender.is_ready() {
                return Some(Sender::Http1(idle.sender));
            }
        }
        None
    }

    /// A new connection.
    pub(super) async fn connect(&self) -> io::Result<Sender> {
        let (stream, gone) = self.open().await?;
        let Some(trust) = &self.trust else { return self.begin(stream, gone, Scheme::HTTP).await };
        // Boxed: few services want it.
        let handshake = Box::pin(trust.shake_hands(stream, self.address, &self.last_handshake));
        self.begin(Box::new(handshake.await?), gone, Scheme::HTTPS).await
    }

    async fn begin<S>(&self, stream: S, gone: watch::Receiver<bool>, scheme: Scheme) -> io::Result<Sender>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        match self.protocol {
            Protocol::H2 => self.begin_http2(stream, gone, scheme).await,
            Protocol::Http | Protocol::Tcp => begin_http1(stream, gone).await,
        }
    }

    /// A new connection as it is, with what tells that the instance is gone.
    pub(super) async fn open(&self) -> io::Result<(TcpStream, watch::Receiver<bool>)> {
        let mut gone = self.gone.subscribe();
        let stream = tokio::select! {
            () = until(&mut gone) => return Err(io::Error::other("the instance is gone")),
            connected = timeout(CONNECT_LONGEST, TcpStream::connect(self.address)) => connected??,
        };
        socket::prepare(&stream);
        Ok((stream, gone))
    }

    async fn begin_http2<S>(
        &self,
        stream: S,
        gone: watch::Receiver<bool>,
        scheme: Scheme,
    ) -> io::Result<Sender>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(WINDOW_STREAM)
            .initial_connection_window_size(WINDOW_CONNECTION)
            .max_header_list_size(HEAD_MOST)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_LONGEST)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(Severed::new(stream, gone)))
            .await
            .map_err(io::Error::other)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an instance's connection ended");
            }
        });
        let lane = Lane { sender, scheme, load: Arc::default(), last_used: Instant::now() };
        let share = lane.share();
        let mut pool = self.lock();
        if !pool.retired {
            pool.lanes.push(lane);
        }
        Ok(share)
    }

    /// Keeps a connection for the next request once it is ready for one.
    pub(super) fn give_back(self: &Arc<Self>, sender: Sender) {
        let mut sender = match sender {
            Sender::Http1(sender) => sender,
            Sender::Http2 { .. } => return,
        };
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

    fn keep(&self, sender: http1::SendRequest<Outgoing>) {
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
        pool.lanes.clear();
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

async fn begin_http1<S>(stream: S, mut gone: watch::Receiver<bool>) -> io::Result<Sender>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(async move {
        tokio::select! {
            outcome = connection.with_upgrades() => if let Err(error) = outcome {
                tracing::debug!(%error, "an instance's connection ended");
            },
            () = until(&mut gone) => {}
        }
    });
    Ok(Sender::Http1(sender))
}

impl Pool {
    /// A share of the least loaded connection that has been in use within `longest`.
    fn share(&mut self, longest: Duration) -> Option<Sender> {
        self.lanes.retain(|lane| {
            !lane.sender.is_closed() && (lane.load() > 0 || lane.last_used.elapsed() <= IDLE_LONGEST)
        });
        let fresh = |lane: &&mut Lane| lane.load() > 0 || lane.last_used.elapsed() <= longest;
        let lane = self.lanes.iter_mut().filter(fresh).min_by_key(|lane| lane.load())?;
        if lane.load() >= STREAMS_MOST {
            return None;
        }
        lane.last_used = Instant::now();
        Some(lane.share())
    }
}

impl Lane {
    fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    fn share(&self) -> Sender {
        self.load.fetch_add(1, Ordering::Relaxed);
        let (sender, scheme) = (self.sender.clone(), self.scheme.clone());
        Sender::Http2 { sender, scheme, _share: Share(self.load.clone()) }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Sender {
    /// Sends a request whose head is that of HTTP/1.1.
    pub(super) async fn send(&mut self, request: Request<Outgoing>) -> Sent {
        match self {
            Self::Http1(sender) => sender.try_send_request(request).await,
            Self::Http2 { sender, scheme, .. } => {
                sender.try_send_request(as_http2(request, scheme.clone())).await
            }
        }
    }
}

/// HTTP/2 names the host in its target, and a connection is no business of a request.
fn as_http2(mut request: Request<Outgoing>, scheme: Scheme) -> Request<Outgoing> {
    let host = request.headers_mut().remove(header::HOST);
    request.headers_mut().remove(header::CONNECTION);
    request.headers_mut().remove(header::UPGRADE);
    let path = request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    let authority = host.as_ref().map_or(&b"localhost"[..], |host| host.as_bytes());
    let target = Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build();
    match target {
        Ok(target) => *request.uri_mut() = target,
        // hyper refuses the target as it is, and the request comes back.
        Err(error) => tracing::debug!(%error, "a target cannot be written for HTTP/2"),
    }
    *request.version_mut() = hyper::Version::HTTP_2;
    request
}

/// Returns when the instance is gone.
pub(super) async fn until(gone: &mut watch::Receiver<bool>) {
    if gone.wait_for(|gone| *gone).await.is_err() {
        // The upstream was dropped with its instance still there: nothing will ever be heard.
        std::future::pending::<()>().await;
    }
}
