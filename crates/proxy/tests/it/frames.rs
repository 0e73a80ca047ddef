//! HTTP/2 by hand (RFC 9113), so that a test can say what no library would.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::agent::LONG;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// A client's connection.
pub(crate) struct Frames {
    pub(crate) stream: TcpStream,
}

/// A frame that came.
#[derive(Debug)]
pub(crate) struct Came {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It was answered; the number is the status if its code is in the static table, else 0.
    Answered(u16),
    /// The request was broken off with this error.
    Reset(u32),
    /// The connection ended, with this error if it was said.
    Gone(Option<u32>),
}

/// The header block of a request for `/` with more fields; what begins with `:` replaces a pseudo field.
pub(crate) fn block(more: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut pseudo: BTreeMap<&[u8], &[u8]> = BTreeMap::from([
        (&b":authority"[..], &b"shop.example"[..]),
        (b":method", b"GET"),
        (b":path", b"/"),
        (b":scheme", b"http"),
    ]);
    let (replaced, fields): (Vec<_>, Vec<_>) = more.iter().partition(|(name, _)| pseudo.contains_key(*name));
    pseudo.extend(replaced.into_iter().copied());
    let all = pseudo.into_iter().chain(fields.into_iter().copied());
    fields_block(&all.collect::<Vec<_>>())
}

/// Exactly these fields, as literals that are not indexed (RFC 7541 section 6.2.2).
pub(crate) fn fields_block(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            integer(&mut block, text.len());
            block.extend_from_slice(text);
        }
    }
    block
}

/// A length with a prefix of 7 bits (RFC 7541 section 5.1).
fn integer(block: &mut Vec<u8>, mut number: usize) {
    if number < 127 {
        return block.push(u8::try_from(number).unwrap());
    }
    block.push(127);
    number -= 127;
    while number >= 128 {
        block.push(u8::try_from(number % 128).unwrap() | 128);
        number /= 128;
    }
    block.push(u8::try_from(number).unwrap());
}

impl Frames {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let mut frames = Self { stream: TcpStream::connect(address).await.unwrap() };
        frames.stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        frames.send(SETTINGS, 0, 0, &[]).await;
        frames
    }

    /// Sends a frame; that the connection has ended is no matter here.
    pub(crate) async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.try_send(kind, flags, stream, payload).await.ok();
    }

    pub(crate) async fn try_send(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
    ) -> std::io::Result<()> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend(stream.to_be_bytes());
        frame.extend_from_slice(payload);
        self.stream.write_all(&frame).await
    }

    /// Sends a request without a body.
    pub(crate) async fn request(&mut self, stream: u32, block: &[u8]) {
        self.send(HEADERS, END_STREAM | END_HEADERS, stream, block).await;
    }

    /// The next frame; `None` when the connection has ended.
    pub(crate) async fn next(&mut self) -> Option<Came> {
        timeout(LONG, self.next_forever()).await.expect("a frame comes")
    }

    async fn next_forever(&mut self) -> Option<Came> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut payload).await.ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
        Some(Came { kind: head[3], flags: head[4], stream, payload })
    }

    /// What becomes of the request on `stream`.
    pub(crate) async fn fate(&mut self, stream: u32) -> Fate {
        let mut goaway = None;
        loop {
            let Some(frame) = self.next().await else { return Fate::Gone(goaway) };
            match frame.kind {
                HEADERS if frame.stream == stream => return Fate::Answered(status(&frame.payload)),
                RST_STREAM if frame.stream == stream => return Fate::Reset(number(&frame.payload)),
                GOAWAY => goaway = Some(number(&frame.payload[4..])),
                SETTINGS if frame.flags == 0 => self.send(SETTINGS, 1, 0, &[]).await,
                _ => {}
            }
        }
    }
}

fn number(payload: &[u8]) -> u32 {
    u32::from_be_bytes([payload[0], payload[1], payload[2], payload[3]])
}

/// The status, which hyper sends first: indexed where the static table has it (RFC 7541 appendix A).
fn status(block: &[u8]) -> u16 {
    match block.iter().find(|byte| **byte >> 5 != 1) {
        Some(0x88) => 200,
        Some(0x8c) => 400,
        Some(0x8d) => 404,
        Some(0x8e) => 500,
        Some(_) | None => 0,
    }
}
