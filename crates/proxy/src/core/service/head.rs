//! The rules for heads of requests and answers: what is refused, what is not passed on, what is added.
//!
//! Sources: RFC 9110 section 7 (routing), RFC 9112 sections 3, 6 and 11 (request targets, framing, smuggling), RFC 9113
//! section 8 (what HTTP/2 must not carry into HTTP/1.1).

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::PathAndQuery;
use hyper::{Method, StatusCode, Uri, Version};
use thiserror::Error;

use super::forwarded::{self, Client};

/// The longest request target taken.
const LONGEST_TARGET: usize = 8 << 10;
/// Headers that concern one connection only (RFC 9110 section 7.6.1), besides those that `Connection` names.
const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHORIZATION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Why a request is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Two readers could see different ends of the request.
    #[error("the request's length is ambiguous: {0}")]
    Framing(&'static str),
    /// HTTP/1.1 requires exactly one; HTTP/2 an authority, and none that says something else.
    #[error("the request must have exactly one valid Host header")]
    Host,
    /// HTTP/2 has its own means for what these headers say.
    #[error("HTTP/2 does not allow the header `{0}`")]
    Connection(&'static str),
    /// More headers than the route takes.
    #[error("the request has more than {0} headers")]
    TooMany(usize),
    /// Nothing here tunnels to arbitrary places.
    #[error("CONNECT is not served")]
    Connect,
    /// The target is no path.
    #[error("the request target must be a path")]
    Target,
    /// The target is too long.
    #[error("the request target is longer than {LONGEST_TARGET} bytes")]
    TargetTooLong,
}

impl Refusal {
    /// The status that says so.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Framing(_) | Self::Host | Self::Target | Self::Connection(_) => StatusCode::BAD_REQUEST,
            Self::TooMany(_) => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Connect => StatusCode::METHOD_NOT_ALLOWED,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
        }
    }
}

/// Checks a request with at most `most` headers and brings its target into origin form. Returns the authority that the
/// client asked for.
pub fn check(head: &mut Parts, most: usize) -> Result<Option<HeaderValue>, Refusal> {
    if head.headers.len() > most {
        return Err(Refusal::TooMany(most));
    }
    check_framing(head)?;
    if head.version == Version::HTTP_2 {
        check_connection(&head.headers)?;
    }
    let host = host(head)?;
    head.uri = target(head)?;
    Ok(host)
}

/// Turns a checked head into the one for an instance. Returns the protocol it wants to upgrade to.
pub fn pass_on(head: &mut Parts, host: Option<HeaderValue>, client: &Client) -> Option<HeaderValue> {
    let upgrade = wanted_upgrade(&head.headers).filter(|_| head.version < Version::HTTP_2);
    if head.version == Version::HTTP_2 {
        join_cookies(&mut head.headers);
    }
    head.version = Version::HTTP_11;
    remove_hop_by_hop(&mut head.headers);
    // Answered by this proxy when the body is read; an instance would answer it a second time.
    head.headers.remove(header::EXPECT);
    if let Some(protocol) = &upgrade {
        head.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(header::UPGRADE, protocol.clone());
    }
    forwarded::write(&mut head.headers, client, host.as_ref());
    if let Some(host) = host {
        head.headers.insert(header::HOST, host);
    }
    upgrade
}

/// Turns the head of an instance's answer into the one for the client.
pub fn release(headers: &mut HeaderMap, upgraded: bool) {
    let upgrade = if upgraded { headers.get(header::UPGRADE).cloned() } else { None };
    remove_hop_by_hop(headers);
    if let Some(protocol) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }
}

/// Whether a request may be sent twice: by its method (RFC 9110 section 9.2.2; TRACE is left out, it is a question to
/// one instance), or because its client has marked it and the service keeps such `keys`.
pub fn is_repeatable(method: &Method, headers: &HeaderMap, keys: bool) -> bool {
    let methods = [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE];
    methods.contains(method) || (keys && headers.contains_key(IDEMPOTENCY_KEY))
}

/// Whether both sides may talk in turns and pause as long as they like (gRPC).
pub fn is_conversation(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Whether an answer with this status may be better from another instance.
pub fn is_server_error(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}

fn check_framing(head: &Parts) -> Result<(), Refusal> {
    let mut encodings = head.headers.get_all(header::TRANSFER_ENCODING).iter();
    let mut lengths = head.headers.get_all(header::CONTENT_LENGTH).iter();
    match (encodings.next(), lengths.next()) {
        (None, None) => Ok(()),
        (Some(_), Some(_)) => Err(Refusal::Framing("both Transfer-Encoding and Content-Length")),
        (Some(_), None) if head.version < Version::HTTP_11 => {
            Err(Refusal::Framing("Transfer-Encoding in HTTP/1.0"))
        }
        (Some(encoding), None) if encodings.next().is_none() && is_chunked(encoding) => Ok(()),
        (Some(_), None) => Err(Refusal::Framing("a Transfer-Encoding other than chunked")),
        (None, Some(length)) if lengths.next().is_none() && is_number(length) => Ok(()),
        (None, Some(_)) => Err(Refusal::Framing("more than one Content-Length, or not a number")),
    }
}

fn is_chunked(encoding: &HeaderValue) -> bool {
    encoding.as_bytes().eq_ignore_ascii_case(b"chunked")
}

fn is_number(length: &HeaderValue) -> bool {
    !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit)
}

fn check_connection(headers: &HeaderMap) -> Result<(), Refusal> {
    let found = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];
    match found.into_iter().find(|name| headers.contains_key(*name)) {
        Some(name) => Err(Refusal::Connection(name)),
        None => Ok(()),
    }
}

/// HTTP/2 may send a cookie in crumbs; HTTP/1.1 has one header for all (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() > 1
        && let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        headers.insert(header::COOKIE, cookie);
    }
}

/// The authority the client asked for. In an absolute target it is the target's, whatever the header says (RFC 9112
/// section 3.2.2).
fn host(head: &Parts) -> Result<Option<HeaderValue>, Refusal> {
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let first = hosts.next();
    if hosts.next().is_some() || (first.is_none() && head.version == Version::HTTP_11) {
        return Err(Refusal::Host);
    }
    let unreadable = |host: &HeaderValue| host.as_bytes().iter().any(|byte| b" \t/\\@?#,\"<>".contains(byte));
    if first.is_some_and(unreadable) {
        return Err(Refusal::Host);
    }
    let Some(authority) = head.uri.authority() else {
        // HTTP/2 without an authority is a request that came through an older proxy: its Host counts.
        return if first.is_none() && head.version == Version::HTTP_2 {
            Err(Refusal::Host)
        } else {
            Ok(first.cloned())
        };
    };
    let authority = HeaderValue::from_str(authority.as_str()).map_err(|_| Refusal::Host)?;
    let differs = |host: &HeaderValue| !host.as_bytes().eq_ignore_ascii_case(authority.as_bytes());
    if unreadable(&authority) || (head.version == Version::HTTP_2 && first.is_some_and(differs)) {
        return Err(Refusal::Host);
    }
    Ok(Some(authority))
}

/// The target in origin form.
fn target(head: &Parts) -> Result<Uri, Refusal> {
    if head.method == Method::CONNECT {
        return Err(Refusal::Connect);
    }
    let path = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    if path.len() > LONGEST_TARGET {
        return Err(Refusal::TargetTooLong);
    }
    let asterisk = path == "*" && head.method == Method::OPTIONS;
    if !asterisk && !path.starts_with('/') {
        return Err(Refusal::Target);
    }
    path.parse().map_err(|_| Refusal::Target)
}

fn wanted_upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let wanted = tokens(headers, &header::CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"));
    // A tunnel that speaks HTTP/2 would carry requests past every rule here.
    let other_http =
        |protocol: &&HeaderValue| protocol.to_str().is_ok_and(|text| !text.to_lowercase().contains("h2"));
    headers.get(header::UPGRADE).filter(|_| wanted).filter(other_http).cloned()
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> =
        tokens(headers, &header::CONNECTION).filter_map(|token| token.parse().ok()).collect();
    // Trailers are passed on, so the wish for them is too (RFC 9110 section 10.1.4).
    let trailers = tokens(headers, &header::TE).any(|token| token.eq_ignore_ascii_case("trailers"));
    for name in HOP_BY_HOP.iter().chain(&named).chain([&header::TE]) {
        // A client must not be able to strip what the instance relies on by naming it in `Connection`.
        if *name != header::HOST && *name != header::CONTENT_LENGTH {
            headers.remove(name);
        }
    }
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
