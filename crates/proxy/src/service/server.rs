//! A client's connection: its requests one after the other.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::answer::{self, Body};
use super::errand::Errand;
use super::guarded::Guarded;
use super::route::Visit;
use super::tunnel::Upgrade;
use super::upstream;
use crate::core::service::head;
use crate::socket;

/// How long a client may keep a connection unused: longer than the usual 60 seconds of balancers and browsers, which
/// should be the ones to close. (hyper counts from the end of one request to the end of the next one's head.)
const UNUSED_LONGEST: Duration = Duration::from_secs(75);
/// The most headers a request may have.
const HEADERS_MOST: usize = 128;
/// The most bytes a request's head may have.
const HEAD_MOST: usize = 32 << 10;
/// The most bytes that are read ahead.
const AHEAD_MOST: usize = 64 << 10;

/// Serves a connection to its end. `_room` keeps its place among the proxy's connections.
pub(super) async fn serve(
    stream: TcpStream,
    visit: Visit,
    mut removed: watch::Receiver<bool>,
    _room: OwnedSemaphorePermit,
) {
    socket::prepare(&stream);
    let visit = Arc::new(visit);
    let service = service_fn(|request| {
        let visit = visit.clone();
        async move { Ok::<_, Infallible>(handle(visit, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(UNUSED_LONGEST)
        .max_headers(HEADERS_MOST)
        .max_header_size(HEAD_MOST)
        .max_buf_size(AHEAD_MOST)
        .serve_connection(TokioIo::new(Guarded::new(stream)), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = upstream::until(&mut removed) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a client's connection broke");
    }
}

async fn handle(visit: Arc<Visit>, mut request: Request<Incoming>) -> Response<Body> {
    visit.route.request();
    let client_side = hyper::upgrade::on(&mut request);
    let (mut head, body) = request.into_parts();
    let wanted = match head::admit(&mut head, visit.client) {
        Ok(wanted) => wanted,
        Err(refusal) => return refuse(refusal),
    };
    let errand = match Errand::new(visit.route.clone(), head, body, wanted.is_some()).await {
        Ok(errand) => errand,
        Err(sentence) => return answer::plain(StatusCode::REQUEST_TIMEOUT, sentence),
    };
    errand.run(Upgrade { client_side, visit }).await
}

/// The rest of a refused request is not read, so the connection ends with the answer.
fn refuse(refusal: head::Refusal) -> Response<Body> {
    let mut response = answer::plain(refusal.status(), &format!("Refused: {refusal}."));
    let close = hyper::header::HeaderValue::from_static("close");
    response.headers_mut().insert(hyper::header::CONNECTION, close);
    response
}
