//! A client's connection with a guard at its mouth: ambiguous and oversized heads, heads that take too long, and clients
//! that take nothing of what they asked for.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep, timeout};

use super::line::Line;
use super::route::Visit;
use crate::core::service::scan::Scan;

/// The end of a head with a byte that none may contain: the parser behind answers 400 and closes. It looks at a head that
/// came in pieces only when that has an end.
const POISON: &[u8] = b"\0\r\n\r\n";
/// How a client begins that speaks HTTP/2 without having been asked (RFC 9113 section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// After so much time without a request the line goes to rest.
pub(super) const REST_AFTER: Duration = Duration::from_millis(250);

/// A client's connection.
#[derive(Debug)]
pub(super) struct Guarded {
    /// `None` once it has been laid to rest.
    line: Option<Line>,
    visit: Arc<Visit>,
    /// What is read before the client's further bytes: those by which it was found out what it speaks.
    ahead: Vec<u8>,
    /// Reads along in HTTP/1.1; HTTP/2 has no ambiguous ends.
    scan: Option<Scan>,
    refused: bool,
    /// Runs while a head is incomplete.
    patience: Option<Pin<Box<Sleep>>>,
    head_longest: Duration,
    /// Runs while the client takes nothing.
    stall: Option<Pin<Box<Sleep>>>,
    stall_longest: Duration,
}

/// How long a client may let the proxy wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For the rest of a head.
    pub(super) head: Duration,
    /// For the first byte, and until it takes what it is sent.
    pub(super) idle: Duration,
}

/// What a client has begun to say.
pub(super) struct Opening {
    /// The first bytes.
    pub(super) bytes: Vec<u8>,
    pub(super) is_http2: bool,
}

/// Reads so much that HTTP/2 can be told from HTTP/1.1. `None`: the client has gone or takes too long.
pub(super) async fn listen(line: &mut Line, patience: Patience) -> Option<Opening> {
    let mut first = [0; 1];
    match timeout(patience.idle, line.read(&mut first)).await {
        Ok(Ok(1)) => {}
        Ok(Ok(_) | Err(_)) | Err(_) => return None,
    }
    let mut bytes = first.to_vec();
    let begins = |bytes: &[u8]| PREFACE.starts_with(bytes);
    let more = async {
        let mut rest = [0; PREFACE.len()];
        while begins(&bytes) && bytes.len() < PREFACE.len() {
            let room = PREFACE.len() - bytes.len();
            match line.read(&mut rest[..room]).await? {
                0 => break,
                length => bytes.extend_from_slice(&rest[..length]),
            }
        }
        io::Result::Ok(())
    };
    timeout(patience.head, more).await.ok()?.ok()?;
    let is_http2 = bytes == PREFACE;
    Some(Opening { bytes, is_http2 })
}

impl Guarded {
    pub(super) fn new(line: Line, opening: Opening, visit: Arc<Visit>) -> Self {
        let scan = (!opening.is_http2).then(Scan::default);
        let patience = visit.patience;
        Self {
            line: Some(line),
            visit,
            ahead: opening.bytes,
            scan,
            refused: false,
            patience: None,
            head_longest: patience.head,
            stall: None,
            stall_longest: patience.idle,
        }
    }

    /// Starts, keeps or stops the clock for the head.
    fn watch_the_clock(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if !self.scan.as_ref().is_some_and(Scan::is_in_head) {
            self.patience = None;
            return Ok(());
        }
        let longest = self.head_longest;
        let patience = self.patience.get_or_insert_with(|| Box::pin(sleep(longest)));
        match patience.as_mut().poll(cx) {
            Poll::Ready(()) => Err(late("the head of a request took too long")),
            Poll::Pending => Ok(()),
        }
    }

    /// Counts how long the client takes nothing.
    fn watch_the_stall<T>(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stall = None;
            return outcome;
        }
        let longest = self.stall_longest;
        let stall = self.stall.get_or_insert_with(|| Box::pin(sleep(longest)));
        ready!(stall.as_mut().poll(cx));
        Poll::Ready(Err(late("the client takes nothing of what it is sent")))
    }

    fn read_on(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return match &mut self.line {
                Some(line) => Pin::new(line).poll_read(cx, buf),
                None => Poll::Ready(Ok(())),
            };
        }
        let length = self.ahead.len().min(buf.remaining());
        buf.put_slice(&self.ahead[..length]);
        self.ahead.drain(..length);
        self.ahead.shrink_to_fit();
        Poll::Ready(Ok(()))
    }

    /// Lays the line to rest when nothing has been asked for a while. Who reads here then finds the end of the connection,
    /// as if the client had closed it between two requests, and lets go of all that it keeps for it.
    fn has_gone_to_rest(&mut self) -> bool {
        let is_between = self.scan.as_ref().is_some_and(Scan::is_between);
        // What the client has not taken yet must still be written.
        if !is_between || self.stall.is_some() || self.visit.place.unused_for() < REST_AFTER {
            return false;
        }
        self.visit.lay_to_rest(self.line.take());
        true
    }

    fn line(&mut self) -> io::Result<Pin<&mut Line>> {
        self.line.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

fn late(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.refused {
            // What is left of the poison, then the end.
            return if self.ahead.is_empty() { Poll::Ready(Ok(())) } else { self.read_on(cx, buf) };
        }
        self.watch_the_clock(cx)?;
        let before = buf.filled().len();
        let read = self.read_on(cx, buf);
        if read.is_pending() && self.has_gone_to_rest() {
            return Poll::Ready(Ok(()));
        }
        ready!(read)?;
        let scanned = self.scan.as_mut().map_or(Ok(()), |scan| scan.read(&buf.filled()[before..]));
        if let Err(unacceptable) = scanned {
            self.refused = true;
            buf.set_filled(before + unacceptable.at);
            self.ahead = POISON.to_vec();
            return self.read_on(cx, buf);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = self.line()?.poll_write(cx, bytes);
        self.watch_the_stall(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = self.line()?.poll_write_vectored(cx, slices);
        self.watch_the_stall(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.line.as_ref().is_some_and(Line::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Ok(line) = self.line() else { return Poll::Ready(Ok(())) };
        let outcome = line.poll_flush(cx);
        self.watch_the_stall(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Ok(line) = self.line() else { return Poll::Ready(Ok(())) };
        let outcome = line.poll_shutdown(cx);
        self.watch_the_stall(cx, outcome)
    }
}
