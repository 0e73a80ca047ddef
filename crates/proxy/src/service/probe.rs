//! Asks an instance that live traffic has ejected whether it works again, so that no client has to find out.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use model::system::Protocol;
use tokio::time::{sleep_until, timeout};

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
            let answered = ask(&upstream, path.as_deref()).await;
            route.probed(key, answered);
        }
    }
}

/// Whether the instance takes a connection if nothing else is known of what it speaks, else whether it answers: its health page as it should, or, where it has none, anything that is no server error.
async fn ask(upstream: &Upstream, path: Option<&str>) -> bool {
    if upstream.protocol() == Protocol::Tcp {
        return upstream.open().await.is_ok();
    }
    let Some(request) = question(upstream, path) else { return false };
    let conversation = async {
        let mut sender = upstream.connect().await.ok()?;
        let answer = sender.send(request).await.ok()?;
        Some(answer.status())
    };
    match timeout(LONGEST, conversation).await {
        Ok(Some(status)) => is_good(status, path.is_some()),
        Ok(None) | Err(_) => false,
    }
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
