//! One function for each thing that can be asked.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use super::Shop;
use super::answer::{self, Body};
use crate::database::Fault;
use crate::ledger::{self, Listing, NewOrder};

/// A request is answered within this time, with success or not.
const REQUEST_DEADLINE: Duration = Duration::from_secs(3);
/// A health check is answered within this time: sooner than the second that supervisors usually wait.
const HEALTH_DEADLINE: Duration = Duration::from_millis(800);
/// An audit reads everything.
const AUDIT_DEADLINE: Duration = Duration::from_secs(20);
/// The longest body accepted, in bytes.
const MAX_BODY: usize = 16 * 1024;

pub(super) async fn health(shop: &Shop) -> Response<Body> {
    let not_ready = |reason: &str| {
        let body = json!({ "ready": false, "instance": shop.instance, "reason": reason });
        answer::json(StatusCode::SERVICE_UNAVAILABLE, &body)
    };
    if let Some(reason) = shop.schema.missing_because() {
        return not_ready(&reason);
    }
    let begin = Instant::now();
    match shop.primary.query("select 1", &[], begin + HEALTH_DEADLINE).await {
        Err(fault) => not_ready(&fault.to_string()),
        Ok(_) => {
            let milliseconds = begin.elapsed().as_secs_f64() * 1000.0;
            let reason = format!("the database answered in {milliseconds:.1} ms");
            let body = json!({ "ready": true, "instance": shop.instance, "reason": reason });
            answer::json(StatusCode::OK, &body)
        }
    }
}

pub(super) async fn state(shop: &Shop) -> Response<Body> {
    answer::json(StatusCode::OK, shop.snapshots.current(shop).await.as_ref())
}

pub(super) async fn audit(shop: &Shop) -> Response<Body> {
    match ledger::audit(&shop.primary, Instant::now() + AUDIT_DEADLINE).await {
        Ok(audit) => answer::json(StatusCode::OK, &audit),
        Err(fault) => failed(shop, &fault),
    }
}

pub(super) async fn list_orders(shop: &Shop, query: &str) -> Response<Body> {
    let parameter = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let number = |name: &str, default: i64| match parameter(name) {
        None => Some(default),
        Some(text) => text.parse().ok(),
    };
    let (Some(limit), Some(after)) = (number("limit", 20), number("after", 0)) else {
        return answer::error(StatusCode::BAD_REQUEST, "`limit` and `after` are numbers");
    };
    let listing = match parameter("prefix") {
        None => Listing::Newest,
        Some(prefix) => Listing::Run { prefix: prefix.to_owned(), after },
    };
    let deadline = Instant::now() + REQUEST_DEADLINE;
    match ledger::orders(&shop.primary, &listing, limit.clamp(1, 1000), deadline).await {
        Ok(orders) => answer::json(StatusCode::OK, &orders),
        Err(fault) => failed(shop, &fault),
    }
}

pub(super) async fn place_order(shop: &Shop, request: Request<Incoming>) -> Response<Body> {
    let deadline = Instant::now() + REQUEST_DEADLINE;
    let header =
        request.headers().get("idempotency-key").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let body = match read_body(request, deadline).await {
        Ok(body) => body,
        Err(refusal) => return *refusal,
    };
    let mut order: NewOrder = match serde_json::from_slice(&body) {
        Ok(order) => order,
        Err(error) => {
            return answer::error(StatusCode::BAD_REQUEST, &format!("the order is not valid: {error}"));
        }
    };
    if let Some(key) = header {
        order.key = key;
    }
    match ledger::book(&shop.primary, &order, &shop.instance, deadline).await {
        Ok(booked) => {
            answer::json(if booked.repeated { StatusCode::OK } else { StatusCode::CREATED }, &booked)
        }
        Err(failure) => {
            if let ledger::OrderError::Database(fault) = &failure {
                shop.schema.consider(fault);
            }
            answer::order_error(&failure)
        }
    }
}

async fn read_body(request: Request<Incoming>, deadline: Instant) -> Result<Bytes, Box<Response<Body>>> {
    let refuse = |status, reason| Box::new(answer::error(status, reason));
    match timeout_at(deadline, Limited::new(request.into_body(), MAX_BODY).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(_)) => Err(refuse(StatusCode::PAYLOAD_TOO_LARGE, "the body is too long or was cut off")),
        Err(_) => Err(refuse(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time")),
    }
}

fn failed(shop: &Shop, fault: &Fault) -> Response<Body> {
    shop.schema.consider(fault);
    answer::fault(fault)
}
