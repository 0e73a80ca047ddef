//! A client's connection with a guard at its mouth: ambiguous and oversized heads, and heads that take too long.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use crate::core::service::scan::Scan;

/// How long a client may take from the first byte of a head to its last.
const HEAD_LONGEST: Duration = Duration::from_secs(10);
/// A byte that no head may contain: the parser behind answers 400 and closes.
const POISON: &[u8] = b"\0";

/// A client's connection.
#[derive(Debug)]
pub(super) struct Guarded {
    stream: TcpStream,
    scan: Scan,
    refused: bool,
    /// Runs while a head is incomplete.
    patience: Option<Pin<Box<Sleep>>>,
}

impl Guarded {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, scan: Scan::default(), refused: false, patience: None }
    }

    /// Starts, keeps or stops the clock for the head.
    fn watch_the_clock(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if !self.scan.is_in_head() {
            self.patience = None;
            return Ok(());
        }
        let patience = self.patience.get_or_insert_with(|| Box::pin(sleep(HEAD_LONGEST)));
        match patience.as_mut().poll(cx) {
            Poll::Ready(()) => {
                Err(io::Error::new(io::ErrorKind::TimedOut, "the head of a request took too long"))
            }
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.refused {
            return Poll::Ready(Ok(()));
        }
        self.watch_the_clock(cx)?;
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if let Err(unacceptable) = self.scan.read(&buf.filled()[before..]) {
            self.refused = true;
            buf.set_filled(before + unacceptable.at);
            buf.put_slice(POISON);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
