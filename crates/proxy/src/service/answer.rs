//! Answers of the proxy's own: plain words for whoever looks at them.

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};

use super::carried::Carried;

/// The body of any answer.
pub(super) type Body = Either<Full<Bytes>, Carried>;

/// Seconds after which a client may try again when there is no instance.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// An answer with a sentence as its body.
pub(super) fn plain(status: StatusCode, sentence: &str) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::from(format!("{sentence}\n"))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, RETRY_AFTER);
    }
    response
}

/// A complete answer, as bytes, for a client that is turned away before it is heard.
pub(super) fn crowded(limit: usize) -> Vec<u8> {
    let body = format!("This node's proxy already carries {limit} connections, which is its limit.\n");
    let head =
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nRetry-After: 1";
    format!("{head}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}
