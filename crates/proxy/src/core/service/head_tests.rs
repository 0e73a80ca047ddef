//! Heads as clients, and those who wish harm, send them.

use hyper::Request;
use proptest::prelude::*;

use super::*;

const CLIENT: Client = Client {
    address: std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 7)),
    secure: false,
    trusted: false,
};

fn admit(head: &mut Parts) -> Result<Option<HeaderValue>, Refusal> {
    let host = check(head, 20)?;
    Ok(pass_on(head, host, &CLIENT))
}

fn parts(method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
    let mut builder = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(()).unwrap().into_parts().0
}

fn admitted(method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
    let mut parts = parts(method, uri, headers);
    admit(&mut parts).unwrap();
    parts
}

fn refused(method: &str, uri: &str, headers: &[(&str, &str)]) -> Refusal {
    admit(&mut parts(method, uri, headers)).unwrap_err()
}

fn shown(headers: &HeaderMap) -> Vec<String> {
    let mut lines: Vec<_> =
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    lines.sort();
    lines
}

#[test]
fn what_concerns_one_connection_is_not_passed_on() {
    let parts = admitted(
        "GET",
        "/a?b",
        &[
            ("host", "shop.example"),
            ("connection", "keep-alive, X-Secret, Host"),
            ("keep-alive", "timeout=5"),
            ("x-secret", "1"),
            ("te", "trailers, deflate"),
            ("proxy-authorization", "Basic eA=="),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-proto", "gopher"),
            ("accept", "*/*"),
        ],
    );
    assert_eq!(
        shown(&parts.headers),
        [
            "accept: */*",
            "forwarded: for=10.0.0.7;host=\"shop.example\";proto=http",
            "host: shop.example",
            "te: trailers",
            "x-forwarded-for: 10.0.0.7",
            "x-forwarded-host: shop.example",
            "x-forwarded-proto: http",
        ]
    );
    assert_eq!(parts.uri, "/a?b");
}

#[test]
fn an_absolute_target_decides_the_host() {
    let parts = admitted("GET", "http://real.example/x", &[("host", "other.example")]);
    assert_eq!(parts.headers[header::HOST], "real.example");
    assert_eq!(parts.uri, "/x");
}

#[test]
fn an_upgrade_is_passed_on_and_its_answer_too() {
    let mut parts = parts(
        "GET",
        "/chat",
        &[("host", "x"), ("connection", "Upgrade"), ("upgrade", "websocket"), ("a", "b")],
    );
    assert_eq!(admit(&mut parts).unwrap().unwrap(), "websocket");
    assert_eq!(parts.headers[header::CONNECTION], "upgrade");
    assert_eq!(parts.headers[header::UPGRADE], "websocket");
    let mut answer = parts.headers.clone();
    release(&mut answer, true);
    assert_eq!(answer[header::UPGRADE], "websocket");
    release(&mut answer, false);
    assert!(!answer.contains_key(header::UPGRADE));
}

#[test]
fn nobody_tunnels_http_past_the_rules() {
    let mut parts =
        parts("GET", "/", &[("host", "x"), ("connection", "upgrade"), ("upgrade", "websocket, H2C")]);
    assert_eq!(admit(&mut parts).unwrap(), None);
    assert!(!parts.headers.contains_key(header::UPGRADE));
}

#[test]
fn ambiguous_lengths_are_refused() {
    let host = ("host", "x");
    let both = [host, ("transfer-encoding", "chunked"), ("content-length", "5")];
    let twice = [host, ("content-length", "5"), ("content-length", "5")];
    for headers in [
        &both[..],
        &twice,
        &[host, ("content-length", "5, 5")],
        &[host, ("content-length", "+5")],
        &[host, ("content-length", "")],
        &[host, ("transfer-encoding", "gzip, chunked")],
        &[host, ("transfer-encoding", "xchunked")],
        &[host, ("transfer-encoding", "chunked"), ("transfer-encoding", "identity")],
        &[host, ("transfer-encoding", "chunked, identity")],
    ] {
        assert!(matches!(refused("POST", "/", headers), Refusal::Framing(_)), "{headers:?}");
    }
    admitted("POST", "/", &[host, ("transfer-encoding", "Chunked")]);
    admitted("POST", "/", &[host, ("content-length", "0")]);
}

#[test]
fn unclear_destinations_are_refused() {
    assert_eq!(refused("GET", "/", &[]), Refusal::Host);
    assert_eq!(refused("GET", "/", &[("host", "a"), ("host", "b")]), Refusal::Host);
    assert_eq!(refused("GET", "/", &[("host", "a/b")]), Refusal::Host);
    assert_eq!(refused("GET", "/", &[("host", "user@b")]), Refusal::Host);
    assert_eq!(refused("CONNECT", "a:1", &[("host", "a:1")]), Refusal::Connect);
    assert_eq!(refused("GET", "*", &[("host", "a")]), Refusal::Target);
    admitted("OPTIONS", "*", &[("host", "a")]);
    let long = format!("/{}", "x".repeat(9000));
    assert_eq!(refused("GET", &long, &[("host", "a")]).status(), StatusCode::URI_TOO_LONG);
}

fn http2(uri: &str, headers: &[(&str, &str)]) -> Result<Parts, Refusal> {
    let mut parts = parts("GET", uri, headers);
    parts.version = Version::HTTP_2;
    admit(&mut parts).map(|_| parts)
}

#[test]
fn http2_becomes_http1_without_a_second_meaning() {
    let parts =
        http2("https://shop/a?b", &[("cookie", "a=1"), ("cookie", "b=2"), ("te", "trailers")]).unwrap();
    assert_eq!(parts.headers[header::HOST], "shop");
    assert_eq!(parts.headers[header::COOKIE], "a=1; b=2");
    assert_eq!((parts.version, parts.uri.to_string().as_str()), (Version::HTTP_11, "/a?b"));
    http2("https://shop/", &[("host", "SHOP")]).unwrap();
    http2("/", &[("host", "shop")]).unwrap();
    for (uri, headers, refusal) in [
        ("https://shop/", &[("host", "bank")][..], Refusal::Host),
        ("/", &[], Refusal::Host),
        ("https://user@shop/", &[], Refusal::Host),
        ("https://shop/", &[("transfer-encoding", "chunked")], Refusal::Connection("transfer-encoding")),
        ("https://shop/", &[("connection", "close")], Refusal::Connection("connection")),
        ("https://shop/", &[("upgrade", "websocket")], Refusal::Connection("upgrade")),
        (
            "https://shop/",
            &[("content-length", "1"), ("content-length", "2")],
            Refusal::Framing("more than one Content-Length, or not a number"),
        ),
        ("https://shop/", &[("a", "b"); 21], Refusal::TooMany(20)),
    ] {
        assert_eq!(http2(uri, headers).unwrap_err(), refusal, "{uri} {headers:?}");
    }
}

#[test]
fn only_what_is_safe_twice_is_repeatable() {
    let mut headers = HeaderMap::new();
    assert!(is_repeatable(&Method::PUT, &headers, false));
    assert!(!is_repeatable(&Method::POST, &headers, true));
    assert!(!is_repeatable(&Method::PATCH, &headers, true));
    headers.insert("idempotency-key", HeaderValue::from_static("a"));
    assert!(is_repeatable(&Method::POST, &headers, true));
    assert!(
        !is_repeatable(&Method::POST, &headers, false),
        "only where the file says that the service keeps keys"
    );
}

proptest! {
    /// Whatever headers come: no panic, and what is passed on carries no hop-by-hop header and one Host at most.
    #[test]
    fn admitted_heads_are_clean(
        headers in proptest::collection::vec((prop_oneof![
            Just("host"), Just("connection"), Just("te"), Just("transfer-encoding"), Just("content-length"),
            Just("upgrade"), Just("keep-alive"), Just("x-a"), Just("x-forwarded-for"),
        ], "[ -~]{0,20}"), 0..8),
    ) {
        let mut builder = Request::builder().uri("/");
        for (name, value) in &headers {
            builder = builder.header(*name, value);
        }
        let mut parts = builder.body(()).unwrap().into_parts().0;
        if let Ok(upgrade) = admit(&mut parts) {
            prop_assert!(!parts.headers.contains_key("keep-alive"));
            prop_assert!(!parts.headers.contains_key(header::TRANSFER_ENCODING));
            prop_assert_eq!(parts.headers.contains_key(header::CONNECTION), upgrade.is_some());
            prop_assert_eq!(parts.headers.get_all(header::HOST).iter().count(), 1);
        }
    }
}
