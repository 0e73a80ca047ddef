//! A client's connection: who it is from, what it speaks, and its requests.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::http::request::Parts;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{sleep, timeout};

use super::answer::{self, Body};
use super::entrance::{Door, Entrance};
use super::errand::Errand;
use super::guarded::{self, Guarded, Opening, Patience, REST_AFTER};
use super::line::Line;
use super::route::{Question, ServiceRoute, Visit};
use super::tls;
use super::tunnel::Upgrade;
use crate::core::service::forwarded::{self, Client};
use crate::core::service::head;
use crate::crowd::Busy;
use crate::journal::{Asked, Note};
use crate::{dice, preamble, socket};

/// The most bytes that are read ahead.
const AHEAD_MOST: usize = 64 << 10;
/// The most requests that one HTTP/2 connection may have under way.
const STREAMS_MOST: u32 = 128;
/// What a client may send ahead for one request, and for all requests of a connection.
const WINDOW_STREAM: u32 = 256 << 10;
const WINDOW_CONNECTION: u32 = 1 << 20;
/// What is kept of an answer that the client is slow to take.
const KEPT_BACK: usize = 128 << 10;
/// Requests that a client took back before they were looked at; more end the connection ("rapid reset").
const TAKEN_BACK_MOST: usize = 64;
/// Requests of a connection that may break the protocol before it ends.
const BROKEN_MOST: usize = 128;
/// How long a connection that has to go may finish what is under way without being asked for it.
const FAREWELL: Duration = Duration::from_secs(1);

/// The connection ends with this answer.
const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// Serves a connection to its end. `_room` keeps its place among the proxy's connections.
pub(super) async fn serve(
    mut stream: TcpStream,
    peer: SocketAddr,
    entrance: Arc<Entrance>,
    _room: OwnedSemaphorePermit,
) {
    socket::prepare(&stream);
    let place = entrance.house().guests.enter();
    let door = entrance.door();
    let arrive = async {
        let from =
            preamble::origin(&mut stream, peer, door.is_balancer(peer.ip()), door.limits.header_timeout)
                .await?;
        let (line, opening) = open(stream, &entrance, &door).await?;
        Some((from, line, opening))
    };
    // Boxed, as all that is needed for a while only: most connections are idle most of the time.
    let arrived = tokio::select! {
        arrived = Box::pin(arrive) => arrived,
        () = place.evicted() => None,
    };
    let Some((from, mut line, mut opening)) = arrived else { return };
    let visit = Arc::new(Visit::new(&door, from, line.is_secure(), entrance, place));
    drop(door);
    loop {
        Box::pin(speak(line, opening, visit.clone())).await;
        match visit.wake() {
            Some(rested) => line = rested,
            None => return,
        }
        match rest(&mut line, &visit).await {
            Some(next) => opening = next,
            None => return drop(timeout(FAREWELL, line.shutdown()).await),
        }
    }
}

/// Waits for a client that may ask again.
async fn rest(line: &mut Line, visit: &Visit) -> Option<Opening> {
    let left = visit.patience.idle.saturating_sub(visit.place.unused_for());
    let opening = tokio::select! {
        opening = guarded::listen(line, Patience { idle: left, ..visit.patience }) => opening?,
        () = visit.place.evicted() => return None,
        () = visit.entrance.shut() => return None,
    };
    // A connection does not change its protocol.
    Some(Opening { is_http2: false, ..opening })
}

/// Shakes hands if that is wanted, and listens what the client speaks.
async fn open(stream: TcpStream, entrance: &Arc<Entrance>, door: &Door) -> Option<(Line, Opening)> {
    let mut line = if door.is_secure() {
        let shaken = tls::shake_hands(&entrance.acceptor()?, stream, &entrance.house().handshakes).await?;
        if tls::speaks_http2(&shaken) {
            return Some((Line::Secure(shaken), Opening { bytes: Vec::new(), is_http2: true }));
        }
        Line::Secure(shaken)
    } else {
        Line::Plain(stream)
    };
    let opening = guarded::listen(&mut line, door.patience()).await?;
    Some((line, opening))
}

async fn speak(line: Line, opening: Opening, visit: Arc<Visit>) {
    let limits = visit.limits;
    let is_http2 = opening.is_http2;
    let io = TokioIo::new(Guarded::new(line, opening, visit.clone()));
    let guest = visit.clone();
    let service = service_fn(move |request| {
        let guest = guest.clone();
        // From here on, not from the future's first step: the connection reads on before that, and must not rest.
        let busy = guest.place.busy();
        async move { Ok::<_, Infallible>(handle(guest, busy, request).await) }
    });
    let outcome = if is_http2 {
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MOST)
            .max_header_list_size(limits.header_bytes)
            .max_pending_accept_reset_streams(TAKEN_BACK_MOST)
            .max_local_error_reset_streams(BROKEN_MOST)
            .initial_stream_window_size(WINDOW_STREAM)
            .initial_connection_window_size(WINDOW_CONNECTION)
            .max_send_buf_size(KEPT_BACK)
            .keep_alive_interval(limits.idle_timeout)
            .keep_alive_timeout(limits.header_timeout)
            .serve_connection(io, service);
        attend(pin!(connection), &visit, true).await
    } else {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            // hyper counts from the end of one request to the end of the next one's head.
            .header_read_timeout(limits.idle_timeout)
            .max_headers(usize::try_from(limits.headers).unwrap_or(usize::MAX))
            .max_header_size(usize::try_from(limits.header_bytes).unwrap_or(usize::MAX))
            .max_buf_size(AHEAD_MOST.max(usize::try_from(limits.header_bytes).unwrap_or(0)))
            .serve_connection(io, service)
            .with_upgrades();
        attend(pin!(connection), &visit, false).await
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a client's connection broke");
    }
}

/// A connection of either version.
trait Connection: Future<Output = hyper::Result<()>> {
    /// Takes no further request.
    fn end(self: Pin<&mut Self>);
}

impl<S: hyper::service::HttpService<Incoming, ResBody = Body> + Send> Connection
    for http1::UpgradeableConnection<TokioIo<Guarded>, S>
where
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn end(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<S: hyper::service::HttpService<Incoming, ResBody = Body>> Connection
    for http2::Connection<TokioIo<Guarded>, S, TokioExecutor>
where
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: Send + 'static,
{
    fn end(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Lets a connection go on until it ends, is in the way, is of no use any more, or rests.
///
/// The client of one of HTTP/2 can be told at any time to ask elsewhere, without losing what it has asked. That of one of
/// HTTP/1.1 is told so by the next answer (see [`handle`]): were its connection closed while it is unused, it could be closed
/// under a request.
async fn attend(
    mut connection: Pin<&mut impl Connection>,
    visit: &Visit,
    is_http2: bool,
) -> hyper::Result<()> {
    let idle = visit.limits.idle_timeout;
    let mut leaving = visit.entrance.house().leaving.clone();
    let mut stays = is_http2;
    loop {
        let look_after = match is_http2 {
            true => idle.saturating_sub(visit.place.unused_for()).max(FAREWELL),
            false => REST_AFTER,
        };
        tokio::select! {
            outcome = connection.as_mut() => return outcome,
            () = visit.entrance.shut() => {
                connection.as_mut().end();
                return connection.await;
            }
            () = visit.place.evicted() => break,
            () = true_at_last(&mut leaving), if stays => {
                stays = false;
                connection.as_mut().end();
            }
            // HTTP/1.1 reads again and may then rest; HTTP/2 does not notice by itself that nothing is asked.
            () = sleep(look_after) => {
                if is_http2 && visit.place.unused_for() >= idle {
                    break;
                }
            }
        }
    }
    connection.as_mut().end();
    timeout(FAREWELL, connection).await.unwrap_or(Ok(()))
}

/// Returns when it is true.
async fn true_at_last(value: &mut watch::Receiver<bool>) {
    if value.wait_for(|value| *value).await.is_err() {
        // Without its plane the proxy is about to end, and nothing changes any more.
        std::future::pending().await
    }
}

async fn handle(visit: Arc<Visit>, busy: Busy, mut request: Request<Incoming>) -> Response<Body> {
    let version = request.version();
    let question = Question::new(visit.clone());
    let client_side = hyper::upgrade::on(&mut request);
    let (mut head, body) = request.into_parts();
    let (mut response, note) = match admit(&visit, &mut head) {
        Ok(admitted) => {
            let Admitted { route, upgrading, note } = admitted;
            let upgrade = Upgrade { client_side, visit: visit.clone() };
            (answer(route, head, body, upgrading, upgrade).await, note)
        }
        Err(refusal) => (*refusal, None),
    };
    let note = note.map(|mut note| {
        note.answered(response.status().as_u16(), response.body().instance());
        if hyper::body::Body::is_end_stream(response.body()) {
            note.is_all();
        }
        note
    });
    response.body_mut().keep(note, busy);
    let is_last = *visit.entrance.house().leaving.borrow() && version != Version::HTTP_2;
    if is_last && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(hyper::header::CONNECTION, CLOSE);
    }
    question.answered();
    response
}

/// A request that may go to an instance.
struct Admitted {
    route: Arc<ServiceRoute>,
    upgrading: bool,
    note: Option<Box<Note>>,
}

/// Checks a request, finds its route and makes its head the one for an instance; else what the client is told.
fn admit(visit: &Visit, head: &mut Parts) -> Result<Admitted, Box<Response<Body>>> {
    let most = usize::try_from(visit.limits.headers).unwrap_or(usize::MAX);
    let version = head.version;
    let host = head::check(head, most).map_err(|refusal| Box::new(refuse(refusal, version)))?;
    let door = visit.entrance.door();
    let name = host.as_ref().and_then(|host| host.to_str().ok());
    let Some(route) = door.find(name, head.uri.path()) else {
        return Err(Box::new(answer::plain(
            StatusCode::NOT_FOUND,
            "Nothing is served under this host and path.",
        )));
    };
    route.request();
    let carriage = route.carriage();
    if let Some(port) = carriage.redirect_https {
        return Err(Box::new(answer::redirect(&secure_address(name, port, head))));
    }
    let trusted = carriage.trusted_proxies.iter().any(|range| range.contains(visit.client));
    let client = Client { address: visit.client, secure: visit.is_secure, trusted };
    let id = forwarded::identify(&mut head.headers, [dice::draw(), dice::draw()]);
    let note = route.samples().map(|chosen| {
        visit.entrance.house().journal.note(asked(route, visit, head, name, &id, version), chosen)
    });
    let upgrading = head::pass_on(head, host, &client).is_some();
    Ok(Admitted { route: route.clone(), upgrading, note })
}

/// The same address by HTTPS.
fn secure_address(host: Option<&str>, port: u16, head: &Parts) -> String {
    let host = host.unwrap_or_default();
    let after_brackets = host.rfind(']').unwrap_or(0);
    let name = match host.rfind(':') {
        Some(at) if at > after_brackets => &host[..at],
        Some(_) | None => host,
    };
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let target = if target == "*" { "/" } else { target };
    match port {
        443 => format!("https://{name}{target}"),
        port => format!("https://{name}:{port}{target}"),
    }
}

fn asked(
    route: &ServiceRoute,
    visit: &Visit,
    head: &Parts,
    host: Option<&str>,
    id: &HeaderValue,
    version: Version,
) -> Asked {
    Asked {
        route: route.name().to_string(),
        client: visit.client,
        method: head.method.to_string(),
        host: host.map(str::to_owned),
        path: head.uri.path().to_owned(),
        protocol: if version == Version::HTTP_2 { "HTTP/2" } else { "HTTP/1.1" },
        id: id.to_str().unwrap_or_default().to_owned(),
    }
}

async fn answer(
    route: Arc<ServiceRoute>,
    head: Parts,
    body: Incoming,
    upgrading: bool,
    upgrade: Upgrade,
) -> Response<Body> {
    let id = head.headers.get(&forwarded::REQUEST_ID).cloned();
    let limits = upgrade.visit.limits;
    let mut response = match Errand::new(route, head, body, upgrading, limits.body_timeout).await {
        Ok(errand) => errand.run(upgrade).await,
        Err(sentence) => answer::plain(StatusCode::REQUEST_TIMEOUT, sentence),
    };
    if let Some(id) = id {
        response.headers_mut().entry(forwarded::REQUEST_ID).or_insert(id);
    }
    response
}

/// The rest of a refused request is not read, so the connection ends with the answer; in HTTP/2 only the request does.
fn refuse(refusal: head::Refusal, version: Version) -> Response<Body> {
    let mut response = answer::plain(refusal.status(), &format!("Refused: {refusal}."));
    if version != Version::HTTP_2 {
        response.headers_mut().insert(hyper::header::CONNECTION, CLOSE);
    }
    response
}
