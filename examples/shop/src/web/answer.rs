//! HTTP answers.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde::Serialize;
use serde_json::json;

use crate::database::Fault;
use crate::ledger::OrderError;

/// The body of every answer.
pub(crate) type Body = Full<Bytes>;

/// A value as JSON.
pub(super) fn json<T: Serialize>(status: StatusCode, value: &T) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(body) => with(status, "application/json", body.into()),
        Err(error) => with(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", error.to_string().into()),
    }
}

/// A page.
pub(super) fn html(page: &'static str) -> Response<Body> {
    with(StatusCode::OK, "text/html; charset=utf-8", Bytes::from_static(page.as_bytes()))
}

/// A refusal in words.
pub(super) fn error(status: StatusCode, reason: &str) -> Response<Body> {
    let mut response = json(status, &json!({ "error": reason }));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// The answer to a statement without a result.
pub(super) fn fault(fault: &Fault) -> Response<Body> {
    let status = match fault {
        Fault::Unavailable(_) | Fault::NoTables(_) => StatusCode::SERVICE_UNAVAILABLE,
        Fault::Refused(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    error(status, &fault.to_string())
}

/// The answer to an order that was not booked.
pub(super) fn order_error(failure: &OrderError) -> Response<Body> {
    let status = match failure {
        OrderError::Invalid(_) => StatusCode::BAD_REQUEST,
        OrderError::NoProduct(_) => StatusCode::NOT_FOUND,
        OrderError::KeyTaken => StatusCode::CONFLICT,
        OrderError::Database(cause) => return fault(cause),
    };
    error(status, &failure.to_string())
}

fn with(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
