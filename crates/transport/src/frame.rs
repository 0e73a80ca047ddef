//! Messages on a connection: a length (u32, big-endian) and that many bytes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use model::NodeName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use crate::stream::StreamKind;

const HEADER: usize = 4;
/// Room is made for what has arrived, not for what a length promises.
const READ_STEP: usize = 16 * 1024;

/// A connection to a proven peer.
#[derive(Debug)]
pub struct Connection {
    sender: FrameSender,
    receiver: FrameReceiver,
    peer: NodeName,
    kind: StreamKind,
}

/// The sending half.
#[derive(Debug)]
pub struct FrameSender {
    stream: WriteHalf<TlsStream<TcpStream>>,
    buffer: BytesMut,
    limit: usize,
    /// Set while a frame is on its way out; stays set when the sending was cancelled half-way.
    busy: bool,
}

/// The receiving half.
#[derive(Debug)]
pub struct FrameReceiver {
    stream: ReadHalf<TlsStream<TcpStream>>,
    decoder: Decoder,
    received: Arc<AtomicU64>,
}

/// Why a message could not be sent or received. After any of these the connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The peer said, between two messages, that nothing more will come.
    #[error("the peer closed the connection")]
    Closed,
    /// The same inside a message.
    #[error("the connection ended inside a message")]
    Truncated,
    /// The connection ended without such a word, as it does with its process: the peer's kernel has closed it.
    #[error("the peer's process ended the connection")]
    Ended,
    /// A message is longer than its kind of connection allows.
    #[error("a message of {length} bytes is longer than the {limit} allowed")]
    TooLong {
        /// Announced or given length in bytes.
        length: usize,
        /// The limit of this connection in bytes.
        limit: usize,
    },
    /// The message is not the JSON that was expected.
    #[error("the message is not what was expected: {0}")]
    Json(#[from] serde_json::Error),
    /// An earlier `send` was cancelled, so the peer holds half a message.
    #[error("an earlier message was cut off while it was sent")]
    Interrupted,
    /// The network's reason.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
}

/// Cuts a stream of bytes into frames.
#[derive(Debug)]
pub(crate) struct Decoder {
    buffer: BytesMut,
    limit: usize,
}

// ---------------------------------------------------------------------------------------------- Connection

impl Connection {
    pub(crate) fn new(stream: TlsStream<TcpStream>, peer: NodeName, kind: StreamKind) -> Self {
        let (sender, receiver) = split(stream, kind.max_frame());
        Self { sender, receiver, peer, kind }
    }

    /// The node at the other end, proved by its certificate.
    pub fn peer(&self) -> &NodeName {
        &self.peer
    }

    /// What the connection is for.
    pub fn kind(&self) -> StreamKind {
        self.kind
    }

    /// Both directions, to be used by different tasks. The connection closes when both are dropped.
    pub fn split(self) -> (FrameSender, FrameReceiver) {
        (self.sender, self.receiver)
    }

    /// See [`FrameSender::send`].
    pub async fn send(&mut self, body: &[u8]) -> Result<(), FrameError> {
        self.sender.send(body).await
    }

    /// See [`FrameReceiver::recv`].
    pub async fn recv(&mut self) -> Result<Bytes, FrameError> {
        self.receiver.recv().await
    }

    /// See [`FrameSender::send_json`].
    pub async fn send_json<T: Serialize>(&mut self, message: &T) -> Result<(), FrameError> {
        self.sender.send_json(message).await
    }

    /// See [`FrameReceiver::recv_json`].
    pub async fn recv_json<T: DeserializeOwned>(&mut self) -> Result<T, FrameError> {
        self.receiver.recv_json().await
    }
}

/// The two framed halves of a TLS stream with messages of at most `limit` bytes.
pub(crate) fn split(stream: TlsStream<TcpStream>, limit: usize) -> (FrameSender, FrameReceiver) {
    split_uneven(stream, limit, limit)
}

/// As [`split`], with a limit for what is sent and another for what is received.
pub(crate) fn split_uneven(
    stream: TlsStream<TcpStream>,
    limit: usize,
    received: usize,
) -> (FrameSender, FrameReceiver) {
    let (read, write) = tokio::io::split(stream);
    let sender = FrameSender { stream: write, buffer: BytesMut::new(), limit, busy: false };
    (sender, FrameReceiver { stream: read, decoder: Decoder::new(received), received: Arc::default() })
}

// ---------------------------------------------------------------------------------------------- FrameSender

impl FrameSender {
    /// Sends one message and flushes it. A cancelled call (a deadline around it) spoils the connection: later calls
    /// answer [`FrameError::Interrupted`].
    pub async fn send(&mut self, body: &[u8]) -> Result<(), FrameError> {
        if self.busy {
            return Err(FrameError::Interrupted);
        }
        self.buffer.clear();
        encode(body, self.limit, &mut self.buffer)?;
        self.busy = true;
        self.stream.write_all(&self.buffer).await?;
        self.stream.flush().await?;
        self.busy = false;
        // One large message must not pin its size for the connection's life.
        if self.buffer.capacity() > 4 * READ_STEP {
            self.buffer = BytesMut::new();
        }
        Ok(())
    }

    /// Sends one message as JSON.
    pub async fn send_json<T: Serialize>(&mut self, message: &T) -> Result<(), FrameError> {
        self.send(&serde_json::to_vec(message)?).await
    }

    /// Tells the peer that nothing more will come.
    pub async fn close(&mut self) -> Result<(), FrameError> {
        Ok(self.stream.shutdown().await?)
    }
}

// ---------------------------------------------------------------------------------------------- FrameReceiver

impl FrameReceiver {
    /// Waits for the next message. May be cancelled and called again: nothing is lost.
    pub async fn recv(&mut self) -> Result<Bytes, FrameError> {
        loop {
            if let Some(frame) = self.decoder.next()? {
                return Ok(frame);
            }
            let read = match self.stream.read_buf(self.decoder.room()).await {
                Ok(0) => return Err(self.decoder.ended()),
                // TLS without its close_notify alert (RFC 8446, 6.1).
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(FrameError::Ended),
                read => read?,
            };
            self.received.fetch_add(u64::try_from(read).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    /// Counts the bytes received, also those of a message that is still incomplete.
    pub(crate) fn received(&self) -> Arc<AtomicU64> {
        self.received.clone()
    }

    /// Waits for the next message and reads it as JSON.
    pub async fn recv_json<T: DeserializeOwned>(&mut self) -> Result<T, FrameError> {
        Ok(serde_json::from_slice(&self.recv().await?)?)
    }
}

// ---------------------------------------------------------------------------------------------- Decoder

impl Decoder {
    pub(crate) fn new(limit: usize) -> Self {
        Self { buffer: BytesMut::new(), limit }
    }

    /// Where bytes that arrive are to be appended.
    pub(crate) fn room(&mut self) -> &mut BytesMut {
        self.buffer.reserve(READ_STEP);
        &mut self.buffer
    }

    /// The next whole message, if it has arrived.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(header) = self.buffer.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*header)).unwrap_or(usize::MAX);
        if length > self.limit {
            return Err(FrameError::TooLong { length, limit: self.limit });
        }
        if self.buffer.len() - HEADER < length {
            return Ok(None);
        }
        self.buffer.advance(HEADER);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    /// What a peer's word that nothing more will come means now.
    pub(crate) fn ended(&self) -> FrameError {
        if self.buffer.is_empty() { FrameError::Closed } else { FrameError::Truncated }
    }
}

/// Appends `body` with its length to `out`.
pub(crate) fn encode(body: &[u8], limit: usize, out: &mut BytesMut) -> Result<(), FrameError> {
    let too_long = || FrameError::TooLong { length: body.len(), limit };
    let length = u32::try_from(body.len()).map_err(|_| too_long())?;
    if body.len() > limit {
        return Err(too_long());
    }
    out.reserve(HEADER + body.len());
    out.put_u32(length);
    out.put_slice(body);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn frames_survive_any_cutting(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..8),
            step in 1_usize..64,
        ) {
            let mut wire = BytesMut::new();
            for body in &bodies {
                encode(body, 200, &mut wire).unwrap();
            }
            let mut decoder = Decoder::new(200);
            let mut found = Vec::new();
            for piece in wire.chunks(step) {
                decoder.room().put_slice(piece);
                while let Some(frame) = decoder.next().unwrap() {
                    found.push(frame.to_vec());
                }
            }
            prop_assert_eq!(found, bodies);
            prop_assert!(matches!(decoder.ended(), FrameError::Closed));
        }

        #[test]
        fn garbage_never_panics_and_never_yields_more_than_arrived(garbage in prop::collection::vec(any::<u8>(), 0..512)) {
            let mut decoder = Decoder::new(64);
            decoder.room().put_slice(&garbage);
            let mut yielded = 0;
            while let Ok(Some(frame)) = decoder.next() {
                prop_assert!(frame.len() <= 64);
                yielded += frame.len() + HEADER;
            }
            prop_assert!(yielded <= garbage.len());
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_the_body_arrives() {
        let mut decoder = Decoder::new(1 << 20);
        decoder.room().put_slice(&u32::MAX.to_be_bytes());
        assert!(matches!(decoder.next(), Err(FrameError::TooLong { limit, .. }) if limit == 1 << 20));
        assert!(decoder.buffer.capacity() < 64 * 1024);
    }
}
