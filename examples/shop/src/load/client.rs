//! A client of the shop that knows several addresses of it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

/// One try takes at most this long: a little more than the shop itself allows a request.
const TRY: Duration = Duration::from_secs(4);
const CONNECT: Duration = Duration::from_secs(1);

/// The client.
pub(super) struct Client {
    http: hyper_util::client::legacy::Client<HttpConnector, Full<Bytes>>,
    urls: Vec<String>,
    current: AtomicUsize,
}

impl Client {
    pub(super) fn new(urls: &[String]) -> Result<Self, String> {
        for url in urls {
            let parsed: Uri = url.parse().map_err(|error| format!("`{url}` is not a URL: {error}"))?;
            if parsed.scheme_str() != Some("http") || parsed.host().is_none() {
                return Err(format!("`{url}` does not look like http://address:port"));
            }
        }
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT));
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .build(connector);
        let urls = urls.iter().map(|url| url.trim_end_matches('/').to_owned()).collect();
        Ok(Self { http, urls, current: AtomicUsize::new(0) })
    }

    /// Sends one request once. After a failure the next address is used.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        key: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), String> {
        let number = self.current.load(Ordering::Relaxed);
        let result = match timeout(TRY, self.exchange(number, method, path, key, body)).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {} s", TRY.as_secs())),
        };
        let failed = result.as_ref().map_or(true, |(status, _)| status.is_server_error());
        if failed {
            // Of many requests that fail at once only the first moves on.
            let next = number.wrapping_add(1);
            let _ = self.current.compare_exchange(number, next, Ordering::Relaxed, Ordering::Relaxed);
        }
        result
    }

    /// Asks for JSON, again and again for at most `patience`.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str, patience: Duration) -> Result<T, String> {
        let asking = async {
            loop {
                let reason = match self.send(Method::GET, path, "", Bytes::new()).await {
                    Ok((StatusCode::OK, body)) => {
                        return serde_json::from_slice(&body).map_err(|error| format!("{path}: {error}"));
                    }
                    Ok((status, body)) => format!("{status} {}", String::from_utf8_lossy(&body)),
                    Err(reason) => reason,
                };
                eprintln!("{path}: {reason}");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        };
        match timeout(patience, asking).await {
            Ok(result) => result,
            Err(_) => Err(format!("{path} had no answer within {} s", patience.as_secs())),
        }
    }

    async fn exchange(
        &self,
        number: usize,
        method: Method,
        path: &str,
        key: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), String> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.urls[number % self.urls.len()]))
            .header(CONTENT_TYPE, "application/json")
            .header("idempotency-key", key)
            .body(Full::new(body))
            .map_err(|error| error.to_string())?;
        let response = self.http.request(request).await.map_err(|error| in_words(&error))?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| in_words(&error))?;
        Ok((status, body.to_bytes()))
    }
}

/// An error with all its causes; hyper's own words are only the outermost.
fn in_words(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
