//! What strangers send to do harm: other clients are served all the while, and memory stays bounded.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use model::routes::InstanceRouteState::Ready;
use model::system::{Carriage, Protocol};
use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use crate::agent::{LONG, Proxy, free_address, instance, service_route};
use crate::client::Wire;
use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Fate, Frames, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, block, fields_block,
};
use crate::peer::{Client, Instance};

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const FRAME_SIZE_ERROR: u32 = 6;
const COMPRESSION_ERROR: u32 = 9;

struct Stage {
    listen: SocketAddr,
    instance: Instance,
    _proxy: Proxy,
}

async fn stage() -> Stage {
    let (proxy, listen, instance) = (Proxy::start(), free_address(), Instance::http1().await);
    let instances = vec![self::instance("web-1", instance.address, Ready)];
    let route = service_route("public", listen, Protocol::Http, instances, Carriage::default());
    assert_eq!(proxy.agent().await.apply(1, vec![route]).await, [""; 0]);
    Stage { listen, instance, _proxy: proxy }
}

/// Memory of this process, in which the proxy lives, in MiB.
fn memory() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let resident: u64 = pages.split(' ').nth(1).unwrap().parse().unwrap();
    resident * 4 / 1024
}

/// Clients of either version are served quickly.
async fn others_are_served(listen: SocketAddr) {
    let begin = Instant::now();
    let served = async {
        assert_eq!(Client::http1(listen).await.get("/").await.status, 200);
        assert_eq!(Client::http2(listen).await.get("/").await.status, 200);
    };
    timeout(Duration::from_secs(5), served).await.expect("others are served");
    println!("others were served within {:?}, memory {} MiB", begin.elapsed(), memory());
}

/// Requests that two readers could understand in two ways. None of them may reach an instance, nor what is hidden in it.
const AMBIGUOUS: [&str; 25] = [
    // CL.TE and TE.CL
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\nGET /hidden HTTP/1.1\r\nHost: a\r\n\r\n0\r\n\r\n",
    // TE.TE: one of two readers overlooks the header
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nX: X\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\r\n : chunked\r\n\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\n\r\n",
    "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\n\r\n",
    // Two lengths, or one that is no number
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 30\r\n\r\nGET /hidden HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhelloGET /hidden HTTP/1.1\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\nGET /hidden HTTP/1.1\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhelloGET /hidden HTTP/1.1\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5\r\n\r\nhelloGET /hidden HTTP/1.1\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551617\r\n\r\nGET /hidden HTTP/1.1\r\n\r\n",
    // Folded lines, a bare CR, a blank in a name, no colon
    "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c: d\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: b\rContent-Length: 5\r\n\r\nhello",
    "GET / HTTP/1.1\r\nHost: a\r\nContent Length: 5\r\n\r\nhello",
    "GET / HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n",
    // Two hosts, or none
    "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "GET / HTTP/1.1\r\n\r\n",
    // Odd request lines
    "GET  /  HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1 HTTP/1.1\r\nHost: a\r\n\r\n",
];

#[tokio::test]
async fn ambiguous_requests_never_reach_an_instance() {
    let Stage { listen, instance, _proxy } = stage().await;
    for request in AMBIGUOUS {
        let mut wire = Wire::connect(listen).await;
        wire.send(request).await;
        let mut said = String::new();
        timeout(LONG, wire.stream.read_to_string(&mut said)).await.expect("the connection ends").ok();
        assert!(said.starts_with("HTTP/1.1 400 "), "{request:?}: {said}");
        assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{request:?}: {said}");
    }
    assert_eq!(instance.connections(), 0);
    others_are_served(listen).await;
}

#[tokio::test]
async fn requests_that_look_odd_but_have_one_meaning_are_passed_on_in_plain_form() {
    let Stage { listen, instance: _instance, _proxy } = stage().await;
    for (request, wanted) in [
        ("GET http://real/x HTTP/1.1\r\nHost: other\r\n\r\n", "host: real\n"),
        ("GET / HTTP/1.1\nHost: a\n\n", "host: a\n"),
        ("GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\n"),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS * HTTP/1.1\n"),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n2;x=y\r\nhi\r\n0\r\nA: b\r\n\r\n",
            "transfer-encoding: chunked\n",
        ),
    ] {
        let mut wire = Wire::connect(listen).await;
        wire.send(request).await;
        let answer = wire.read().await.unwrap();
        assert_eq!(answer.status(), 200, "{request:?}");
        assert!(answer.body.contains(wanted), "{request:?}: {}", answer.body);
        assert!(!answer.body.contains("other"), "{}", answer.body);
    }
}

/// HTTP/2 requests that must not become a request of HTTP/1.1 with another meaning (RFC 9113 sections 8.2 and 8.3).
#[tokio::test]
async fn http2_requests_that_hide_another_in_http1_are_broken_off_and_others_go_on() {
    let Stage { listen, instance, _proxy } = stage().await;
    let bad: &[&[(&[u8], &[u8])]] = &[
        &[(b"x", b"a\r\nTransfer-Encoding: chunked")],
        &[(b"x", b"a\nb")],
        &[(b"x", b"a\0b")],
        &[(b"x\r\nhost", b"b")],
        &[(b"x y", b"b")],
        &[(b"X-Upper", b"b")],
        &[(b"", b"b")],
        &[(b"transfer-encoding", b"chunked")],
        &[(b"connection", b"keep-alive")],
        &[(b"keep-alive", b"1")],
        &[(b"proxy-connection", b"keep-alive")],
        &[(b"upgrade", b"websocket")],
        &[(b"te", b"gzip")],
        &[(b"host", b"bank.example")],
        &[(b"host", b"shop.example"), (b"host", b"shop.example")],
        &[(b"content-length", b"5")],
        &[(b"content-length", b"0"), (b"content-length", b"5")],
        &[(b"content-length", b"+0")],
        &[(b":path", b"")],
        &[(b":path", b"relative")],
        &[(b":path", b"/a b")],
        &[(b":path", b"/ HTTP/1.1\r\nHost: b")],
        &[(b":method", b"GET / HTTP/1.1\r\nX:")],
        &[(b":method", b"")],
        &[(b":authority", b"shop.example\r\nx: y")],
        &[(b":authority", b"user@shop.example")],
        &[(b":authority", b"")],
        &[(b":scheme", b"http\r\nx: y")],
        &[(b":unknown", b"x")],
        &[(b":status", b"200")],
    ];
    let mut frames = Frames::connect(listen).await;
    let mut stream = 1;
    for fields in bad {
        frames.request(stream, &block(fields)).await;
        let mut fate = frames.fate(stream).await;
        if let Fate::Gone(error) = fate {
            assert_eq!(error, Some(PROTOCOL_ERROR), "{}", fields[0].0.escape_ascii());
            (frames, stream, fate) =
                (Frames::connect(listen).await, u32::MAX >> 1, Fate::Reset(PROTOCOL_ERROR));
        }
        let what = format!("{}: {}", fields[0].0.escape_ascii(), fields[0].1.escape_ascii());
        assert!(matches!(fate, Fate::Reset(PROTOCOL_ERROR) | Fate::Answered(400)), "{what}: {fate:?}");
        stream = if stream == u32::MAX >> 1 { 1 } else { stream + 2 };
    }
    assert_eq!(instance.connections(), 0, "none has reached the instance");
    frames.request(stream, &block(&[])).await;
    assert_eq!(frames.fate(stream).await, Fate::Answered(200), "on the same connection");
}

#[tokio::test]
async fn pseudo_fields_that_are_missing_or_in_the_wrong_place_are_refused() {
    let Stage { listen, instance, _proxy } = stage().await;
    let (method, path, scheme): ((&[u8], &[u8]), _, _) =
        ((b":method", b"GET"), (&b":path"[..], &b"/"[..]), (&b":scheme"[..], &b"http"[..]));
    let host: (&[u8], &[u8]) = (b":authority", b"shop.example");
    let blocks: [&[(&[u8], &[u8])]; 7] = [
        &[path, scheme, host],
        &[method, scheme, host],
        &[method, path, host],
        &[method, path, scheme],
        &[method, path, scheme, host, path],
        &[method, path, scheme, (b"x", b"y"), host],
        &[(b":method", b"CONNECT"), path, scheme, host],
    ];
    for fields in blocks {
        let mut frames = Frames::connect(listen).await;
        frames.request(1, &fields_block(fields)).await;
        let fate = frames.fate(1).await;
        assert!(
            matches!(
                fate,
                Fate::Reset(PROTOCOL_ERROR) | Fate::Answered(400 | 0) | Fate::Gone(Some(PROTOCOL_ERROR))
            ),
            "{fate:?}"
        );
    }
    assert_eq!(instance.connections(), 0);
}

/// What is sent: type, flags, stream, payload.
type Sent = (u8, u8, u32, Vec<u8>);
/// A name, what is sent, and the errors that it may end with.
type Case = (&'static str, Vec<Sent>, &'static [u32]);

/// Frames on streams on which they must not come (RFC 9113 section 5.1).
fn misplaced() -> Vec<Case> {
    let (request, acceptable) = (block(&[]), END_STREAM | END_HEADERS);
    vec![
        ("DATA on stream 0", vec![(DATA, 0, 0, vec![0])], &[PROTOCOL_ERROR]),
        ("DATA on an idle stream", vec![(DATA, 0, 1, vec![0])], &[PROTOCOL_ERROR, 5]),
        ("HEADERS on stream 0", vec![(HEADERS, acceptable, 0, request.clone())], &[PROTOCOL_ERROR]),
        ("an even stream", vec![(HEADERS, acceptable, 2, request.clone())], &[PROTOCOL_ERROR]),
        (
            "a stream lower than before",
            vec![(HEADERS, acceptable, 5, request.clone()), (HEADERS, acceptable, 3, request.clone())],
            &[PROTOCOL_ERROR, 5],
        ),
        ("RST_STREAM on an idle stream", vec![(RST_STREAM, 0, 1, vec![0; 4])], &[PROTOCOL_ERROR]),
        (
            "RST_STREAM of a wrong size",
            vec![(HEADERS, END_HEADERS, 1, request.clone()), (RST_STREAM, 0, 1, vec![0; 3])],
            &[FRAME_SIZE_ERROR],
        ),
    ]
}

/// Frames that are wrong in themselves (RFC 9113 sections 4 and 6).
fn malformed() -> Vec<Case> {
    let settings = |id: u16, value: u32| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
    let (request, acceptable) = (block(&[]), END_STREAM | END_HEADERS);
    let window = settings(4, u32::MAX);
    vec![
        ("SETTINGS of a wrong size", vec![(SETTINGS, 0, 0, vec![0; 5])], &[FRAME_SIZE_ERROR]),
        ("SETTINGS on a stream", vec![(SETTINGS, 0, 1, vec![])], &[PROTOCOL_ERROR]),
        ("SETTINGS acknowledged with content", vec![(SETTINGS, 1, 0, settings(1, 1))], &[FRAME_SIZE_ERROR]),
        ("ENABLE_PUSH of 2", vec![(SETTINGS, 0, 0, settings(2, 2))], &[PROTOCOL_ERROR]),
        ("INITIAL_WINDOW_SIZE above the limit", vec![(SETTINGS, 0, 0, window)], &[FLOW_CONTROL_ERROR]),
        ("MAX_FRAME_SIZE below the limit", vec![(SETTINGS, 0, 0, settings(5, 100))], &[PROTOCOL_ERROR]),
        ("PING of a wrong size", vec![(PING, 0, 0, vec![0; 7])], &[FRAME_SIZE_ERROR]),
        ("PING on a stream", vec![(PING, 0, 1, vec![0; 8])], &[PROTOCOL_ERROR]),
        ("GOAWAY on a stream", vec![(GOAWAY, 0, 1, vec![0; 8])], &[PROTOCOL_ERROR]),
        ("WINDOW_UPDATE of 0", vec![(WINDOW_UPDATE, 0, 0, vec![0; 4])], &[PROTOCOL_ERROR]),
        ("WINDOW_UPDATE of a wrong size", vec![(WINDOW_UPDATE, 0, 0, vec![0; 3])], &[FRAME_SIZE_ERROR]),
        (
            "windows above the limit",
            vec![(WINDOW_UPDATE, 0, 0, vec![0x7f, 0xff, 0xff, 0xff])],
            &[FLOW_CONTROL_ERROR],
        ),
        ("CONTINUATION without HEADERS", vec![(CONTINUATION, END_HEADERS, 1, vec![])], &[PROTOCOL_ERROR]),
        (
            "a frame between HEADERS and CONTINUATION",
            vec![(HEADERS, 0, 1, request.clone()), (PING, 0, 0, vec![0; 8])],
            &[PROTOCOL_ERROR],
        ),
        (
            "a header block that is no HPACK",
            vec![(HEADERS, acceptable, 1, vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff])],
            &[COMPRESSION_ERROR],
        ),
        ("an index that does not exist", vec![(HEADERS, acceptable, 1, vec![0xbf])], &[COMPRESSION_ERROR]),
        ("a frame above the size", vec![(DATA, 0, 1, vec![0; 17_000])], &[FRAME_SIZE_ERROR]),
        ("PUSH_PROMISE from a client", vec![(5, END_HEADERS, 1, vec![0; 4])], &[PROTOCOL_ERROR]),
    ]
}

/// Each with the errors it may end with; a peer that cannot say more may always say PROTOCOL_ERROR (section 7).
#[tokio::test]
async fn frames_that_break_the_rules_end_their_connection() {
    let Stage { listen, instance: _instance, _proxy } = stage().await;
    for (what, frames, errors) in misplaced().into_iter().chain(malformed()) {
        let mut connection = Frames::connect(listen).await;
        for (kind, flags, stream, payload) in frames {
            connection.send(kind, flags, stream, &payload).await;
        }
        let fate = connection.fate(u32::MAX).await;
        assert!(
            matches!(fate, Fate::Gone(Some(error)) if error == PROTOCOL_ERROR || errors.contains(&error)),
            "{what}: {fate:?}"
        );
    }
    others_are_served(listen).await;
}

#[tokio::test]
async fn unknown_frames_and_settings_are_passed_over() {
    let Stage { listen, instance: _instance, _proxy } = stage().await;
    let mut frames = Frames::connect(listen).await;
    frames.send(0xfa, 0xff, 0, b"whatever").await;
    frames.send(SETTINGS, 0, 0, &[0xfa, 0xfa, 0, 0, 0, 1]).await;
    frames.send(2, 0, 1, &[0, 0, 0, 0, 15]).await;
    frames.request(1, &block(&[])).await;
    assert_eq!(frames.fate(1).await, Fate::Answered(200));
    frames.send(PING, 0, 0, b"12345678").await;
    let pong = loop {
        let frame = frames.next().await.expect("an answer");
        if frame.kind == PING {
            break frame;
        }
    };
    assert_eq!((pong.flags, pong.payload.as_slice()), (1, &b"12345678"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn rapid_resets_end_their_connection_and_hinder_nobody() {
    let Stage { listen, instance: _instance, _proxy } = stage().await;
    let before = memory();
    for round in 0..5 {
        let mut frames = Frames::connect(listen).await;
        let request = block(&[]);
        let mut sent = 0;
        for number in 0..50_000_u32 {
            let stream = 2 * number + 1;
            if frames.try_send(HEADERS, END_STREAM | END_HEADERS, stream, &request).await.is_err()
                || frames.try_send(RST_STREAM, 0, stream, &8_u32.to_be_bytes()).await.is_err()
            {
                break;
            }
            sent = number;
        }
        println!("round {round}: cut off after {sent} requests");
        assert!(sent < 49_999, "it is cut off");
        others_are_served(listen).await;
    }
    assert!(memory() < before + 100, "{} MiB", memory());
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_headers_are_cut_off() {
    let Stage { listen, instance: _instance, _proxy } = stage().await;
    let before = memory();
    let filling = fields_block(&[(b"x", &[b'a'; 8000])]);
    let mut frames = Frames::connect(listen).await;
    frames.send(HEADERS, 0, 1, &block(&[])).await;
    let mut sent = 0;
    while frames.try_send(CONTINUATION, 0, 1, &filling).await.is_ok() && sent < 20_000 {
        sent += 1;
    }
    println!("CONTINUATION: cut off after {sent}");
    assert!(sent < 20_000);
    let mut frames = Frames::connect(listen).await;
    frames.send(HEADERS, 0, 1, &block(&[])).await;
    let mut sent = 0;
    while frames.try_send(CONTINUATION, 0, 1, &[]).await.is_ok() && sent < 1_000_000 {
        sent += 1;
    }
    println!("empty CONTINUATION: cut off after {sent}");
    assert!(sent < 1_000_000);
    let mut wire = Wire::connect(listen).await;
    let mut sent = 0;
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n").await;
    while wire.stream.get_mut().write_all(&[b"x: ", &[b'a'; 990][..], b"\r\n"].concat()).await.is_ok()
        && sent < 20_000
    {
        sent += 1;
    }
    println!("HTTP/1.1: cut off after {sent} kB");
    assert!(sent < 20_000);
    // A small block that the table of HPACK makes large.
    let mut frames = Frames::connect(listen).await;
    let mut bomb = block(&[]);
    bomb.extend([0x40, 1, b'x', 127, 0x81, 0x1e]);
    bomb.extend([b'a'; 127 + 1 + 30 * 128]);
    bomb.extend([0xbe; 12_000]);
    frames.request(1, &bomb).await;
    let fate = frames.fate(1).await;
    assert!(!matches!(fate, Fate::Answered(200)), "{fate:?}");
    others_are_served(listen).await;
    assert!(memory() < before + 100, "{} MiB", memory());
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_frames_that_ask_for_answers_are_bounded() {
    let Stage { listen, instance: _instance, _proxy } = stage().await;
    let before = memory();
    for (kind, payload) in [(PING, vec![0; 8]), (SETTINGS, vec![0, 3, 0, 0, 0, 100])] {
        let mut frames = Frames::connect(listen).await;
        let flood = async {
            for _ in 0..300_000 {
                if frames.try_send(kind, 0, 0, &payload).await.is_err() {
                    break;
                }
            }
        };
        // Its answers are not read: sooner or later nothing more is taken.
        let stuck = timeout(Duration::from_secs(3), flood).await.is_err();
        println!("frame {kind}: {}", if stuck { "not taken any more" } else { "taken or cut off" });
        others_are_served(listen).await;
        assert!(memory() < before + 100, "{} MiB", memory());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_reads_keep_little_memory() {
    let large = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (proxy, listen) = (Proxy::start(), free_address());
    let instances = vec![instance("web-1", large.local_addr().unwrap(), Ready)];
    let route = service_route("public", listen, Protocol::Http, instances, Carriage::default());
    proxy.agent().await.apply(1, vec![route]).await;
    tokio::spawn(async move {
        loop {
            let mut wire = Wire::accept_now(&large).await;
            tokio::spawn(async move {
                while let Some(request) = wire.read_forever().await {
                    if request.first.contains("/small") {
                        wire.answer("small").await;
                        continue;
                    }
                    wire.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").await;
                    while wire.stream.get_mut().write_all(&[0; 65_536]).await.is_ok() {}
                }
            });
        }
    });
    let before = memory();
    let mut readers = Vec::new();
    for _ in 0..20 {
        let mut frames = Frames::connect(listen).await;
        // A window that lets much come, and nobody who takes it.
        frames.send(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]).await;
        frames.send(WINDOW_UPDATE, 0, 0, &[0x7f, 0, 0, 0]).await;
        for stream in 0..20 {
            frames.request(2 * stream + 1, &block(&[])).await;
        }
        readers.push(frames);
    }
    sleep(Duration::from_secs(2)).await;
    println!("400 large answers that nobody reads: {} MiB before, {} MiB now", before, memory());
    assert!(memory() < before + 300, "{} MiB", memory());
    assert_eq!(timeout(LONG, Client::http1(listen).await.get("/small")).await.unwrap().body, "small");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_connections_that_ask_nothing_makes_room_for_those_that_do() {
    // Room for 572 connections; the other ends of the flood are files of this process too.
    let few = Rlimit { current: Some(1400), maximum: Some(1400) };
    setrlimit(Resource::Nofile, few).unwrap();
    let Stage { listen, instance: _instance, _proxy } = stage().await;
    let mut asked = Client::http1(listen).await;
    assert_eq!(asked.get("/").await.status, 200);
    let mut flood = Vec::new();
    for _ in 0..700 {
        flood.push(TcpStream::connect(listen).await.unwrap());
    }
    for _ in 0..10 {
        others_are_served(listen).await;
    }
    let closed = flood.iter().filter(|stream| matches!(stream.try_read(&mut [0; 1]), Ok(0))).count();
    println!("{closed} of {} silent connections had to go", flood.len());
    assert!(closed >= 128);
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_heads_and_silent_connections_hinder_nobody() {
    let Stage { listen, instance: _instance, _proxy } = stage().await;
    let before = memory();
    let mut connections = Vec::new();
    for number in 0..3000 {
        let mut stream = TcpStream::connect(listen).await.unwrap();
        match number % 3 {
            0 => stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nX-").await.unwrap(),
            1 => stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap(),
            _ => {}
        }
        connections.push(stream);
    }
    others_are_served(listen).await;
    let begin = Instant::now();
    let slow = async {
        for stream in connections.iter_mut().step_by(3) {
            while let Ok(1..) = stream.read(&mut [0; 512]).await {}
        }
    };
    timeout(LONG, slow).await.expect("slow heads are cut off");
    println!("1000 slow heads were cut off within {:?}", begin.elapsed());
    others_are_served(listen).await;
    assert!(memory() < before + 200, "{} MiB", memory());
}
