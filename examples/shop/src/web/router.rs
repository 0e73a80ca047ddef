//! Which request goes where.

use hyper::body::Incoming;
use hyper::header::ALLOW;
use hyper::header::HeaderValue;
use hyper::{Method, Request, Response, StatusCode};

use super::answer::{self, Body};
use super::{Shop, handlers};

const PAGE: &str = include_str!("page.html");

/// Answers one request.
pub(super) async fn route(shop: &Shop, request: Request<Incoming>) -> Response<Body> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    match (path.as_str(), method) {
        ("/", Method::GET | Method::HEAD) => answer::html(PAGE),
        ("/healthz", Method::GET | Method::HEAD) => handlers::health(shop).await,
        ("/api/state", Method::GET) => handlers::state(shop).await,
        ("/api/audit", Method::GET) => handlers::audit(shop).await,
        ("/api/orders", Method::GET) => {
            handlers::list_orders(shop, request.uri().query().unwrap_or_default()).await
        }
        ("/api/orders", Method::POST) => handlers::place_order(shop, request).await,
        ("/" | "/healthz" | "/api/state" | "/api/audit", _) => not_allowed("GET"),
        ("/api/orders", _) => not_allowed("GET, POST"),
        _ => answer::error(StatusCode::NOT_FOUND, "there is nothing here"),
    }
}

fn not_allowed(methods: &'static str) -> Response<Body> {
    let mut response = answer::error(StatusCode::METHOD_NOT_ALLOWED, &format!("use {methods}"));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    response
}
