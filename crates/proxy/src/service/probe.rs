//! The proxy's own questions: to an instance that live traffic has ejected, whether it works again, so that no client has to
//! find out; and again and again to one that no supervisor knows.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use model::system::{Probe, Protocol, duration};
use tokio::time::{Instant, sleep_until, timeout};

use super::route::ServiceRoute;
use super::upstream::{Outgoing, Upstream};
use crate::clock;
use crate::core::service::{Key, head};

/// No answer within this is no answer.
const LONGEST: Duration = Duration::from_secs(1);

/// Probes an instance whenever that is due, until it need not be.
pub(super) async fn keep(route: Arc<ServiceRoute>, key: Key) {
    while let Some(due) = route.probe_at(key) {
        sleep_until(clock::instant(due)).await;
        if let Some((upstream, path)) = route.begin_probe(key) {
            let answer = ask(&upstream, path.as_deref(), LONGEST).await;
            route.probed(key, answer.is_ok());
        }
    }
}

/// Asks an instance that nobody supervises, until it need not be asked any more.
pub(super) async fn attend(route: Arc<ServiceRoute>, key: Key) {
    while let Some((upstream, health)) = route.question(key) {
        let begin = Instant::now();
        let answer = match &health.probe {
            Probe::Http { path } => page(&upstream, Some(path), health.timeout).await,
            Probe::Tcp | Probe::Command { .. } | Probe::Process => {
                connection(&upstream, health.timeout).await
            }
        };
        route.answered(key, answer);
        sleep_until(begin + health.interval).await;
    }
}

/// Whether the instance takes a connection if nothing else is known of what it speaks, else whether it answers: its health
/// page as it should, or, where it has none, anything that is no server error.
async fn ask(upstream: &Upstream, path: Option<&str>, longest: Duration) -> Result<(), String> {
    if upstream.protocol() == Protocol::Tcp {
        return connection(upstream, longest).await;
    }
    page(upstream, path, longest).await
}

async fn connection(upstream: &Upstream, longest: Duration) -> Result<(), String> {
    match timeout(longest, upstream.open()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(format!("takes no connection: {error}")),
        Err(_) => Err(late("takes no connection", longest)),
    }
}

async fn page(upstream: &Upstream, path: Option<&str>, longest: Duration) -> Result<(), String> {
    let request = question(upstream, path).ok_or("cannot be asked for its page")?;
    let conversation = async {
        // Each HTTP/2 connection is kept for requests, so that one is enough for all questions.
        let kept = (upstream.protocol() == Protocol::H2).then(|| upstream.reuse(true)).flatten();
        let mut sender = match kept {
            Some(sender) => sender,
            None => upstream.connect().await.map_err(|error| format!("takes no connection: {error}"))?,
        };
        let answer = sender.send(request).await.map_err(|error| format!("breaks off: {}", error.error()))?;
        Ok(answer.status())
    };
    match timeout(longest, conversation).await {
        Ok(Ok(status)) if is_good(status, path.is_some()) => Ok(()),
        Ok(Ok(status)) => Err(format!("answers with status {}", status.as_u16())),
        Ok(Err(because)) => Err(because),
        Err(_) => Err(late("gives no answer", longest)),
    }
}

fn late(what: &str, longest: Duration) -> String {
    format!("{what} within {}", duration::format(longest))
}

fn is_good(status: StatusCode, is_health_page: bool) -> bool {
    if is_health_page { (200..400).contains(&status.as_u16()) } else { !head::is_server_error(status) }
}

fn question(upstream: &Upstream, path: Option<&str>) -> Option<Request<Outgoing>> {
    let mut request = Request::new(Either::Left(Full::new(Bytes::new())));
    *request.method_mut() = if path.is_some() { Method::GET } else { Method::OPTIONS };
    *request.uri_mut() = path.map_or(Ok(Uri::from_static("*")), str::parse).ok()?;
    let host = HeaderValue::from_str(&upstream.address().to_string()).ok()?;
    request.headers_mut().insert(header::HOST, host);
    request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static("mainstay-probe"));
    Some(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_health_page_must_be_good_and_anything_else_only_no_server_error() {
        let of = |number: u16, is_health_page| is_good(StatusCode::from_u16(number).unwrap(), is_health_page);
        assert!(of(204, true) && of(302, true) && !of(404, true) && !of(503, true));
        assert!(of(404, false) && of(501, false) && !of(500, false) && !of(503, false));
    }
}
