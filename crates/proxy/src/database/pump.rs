//! Copies bytes between a client and a member, in both directions, within one task.
//!
//! A buffer is borrowed only while bytes are on their way, so that an idle session costs none.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use model::time::Moment;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use crate::clock;
use crate::core::database::conversation::Conversation;

/// Bytes moved at once: large enough that bulk transfers are not dominated by system calls.
const BUFFER: usize = 64 << 10;
/// Buffers that one thread keeps for the next use.
const SPARE_BUFFERS: usize = 8;

/// Why the copying stopped.
#[derive(Debug)]
pub(super) enum Stop {
    /// The member has said everything and the client has received it.
    Finished,
    /// The session is idle outside a transaction (only when asked to stop there).
    Idle,
    /// The client's connection broke.
    Client(io::Error),
    /// The member's connection broke.
    Member(io::Error),
}

/// The bytes under way between a client and a member; survives being interrupted.
#[derive(Debug)]
pub(super) struct Pump {
    talk: Conversation,
    /// Since when the session is idle, and how long it was idle before it was asked something last.
    idle_since: Moment,
    last_gap: Duration,
    upward: Flow,
    downward: Flow,
}

/// One direction.
#[derive(Debug, Default)]
struct Flow {
    /// What was read and could not be written yet.
    held: Option<Held>,
    /// The source has ended.
    ended: bool,
    /// The sink has been told so.
    closed: bool,
}

#[derive(Debug)]
struct Held {
    bytes: Vec<u8>,
    written: usize,
}

/// Which socket of a flow failed.
enum Broken {
    Source(io::Error),
    Sink(io::Error),
}

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

impl Pump {
    pub(super) fn new(talk: Conversation) -> Self {
        let (idle_since, last_gap) = (clock::now(), Duration::ZERO);
        Self { talk, idle_since, last_gap, upward: Flow::default(), downward: Flow::default() }
    }

    /// Copies until one of the [`Stop`] reasons holds; with `until_asked` also when the client has asked so many times and
    /// the session is idle. May be dropped and called again without losing a byte.
    pub(super) async fn run(
        &mut self,
        client: &mut TcpStream,
        member: &mut TcpStream,
        until_asked: Option<u64>,
    ) -> Stop {
        let (mut client_read, mut client_write) = client.split();
        let (mut member_read, mut member_write) = member.split();
        poll_fn(|cx| {
            let (was_idle, had_asked) = (self.is_idle(), self.asked());
            let Self { talk, upward, downward, .. } = self;
            // Downward first: an answer that has arrived is passed on before the next question is looked at.
            let down =
                downward.poll(cx, &mut member_read, &mut client_write, |bytes| talk.server_sent(bytes));
            match down {
                Poll::Ready(Ok(())) => return Poll::Ready(Stop::Finished),
                Poll::Ready(Err(Broken::Source(error))) => return Poll::Ready(Stop::Member(error)),
                Poll::Ready(Err(Broken::Sink(error))) => return Poll::Ready(Stop::Client(error)),
                Poll::Pending => {}
            }
            let up = upward.poll(cx, &mut client_read, &mut member_write, |bytes| talk.client_sent(bytes));
            match up {
                Poll::Ready(Err(Broken::Source(error))) => return Poll::Ready(Stop::Client(error)),
                Poll::Ready(Err(Broken::Sink(error))) => return Poll::Ready(Stop::Member(error)),
                // The client has ended its half; the member may still have something to say.
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
            self.note_rhythm(was_idle, had_asked);
            match until_asked {
                Some(times) if self.is_idle() && self.asked() >= times => Poll::Ready(Stop::Idle),
                Some(_) | None => Poll::Pending,
            }
        })
        .await
    }

    fn note_rhythm(&mut self, was_idle: bool, had_asked: u64) {
        if was_idle && self.asked() > had_asked {
            self.last_gap = clock::now().since(self.idle_since);
        }
        if self.is_idle() && (!was_idle || self.asked() > had_asked) {
            self.idle_since = clock::now();
        }
    }

    /// How long the client paused before it asked something last.
    pub(super) fn last_gap(&self) -> Duration {
        self.last_gap
    }

    /// Whether a message of ours can be put behind what the client has received.
    pub(super) fn at_boundary(&self) -> bool {
        self.downward.held.is_none() && self.talk.at_boundary()
    }

    /// Whether the client has asked nothing since the session began.
    pub(super) fn is_fresh(&self) -> bool {
        self.talk.asked() == 0
    }

    /// How many times the client has asked something.
    pub(super) fn asked(&self) -> u64 {
        self.talk.asked()
    }

    /// Whether the session is idle outside a transaction and nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.talk.is_idle() && self.upward.held.is_none() && self.downward.held.is_none()
    }
}

impl Flow {
    /// Moves bytes until the source is empty, the sink is full, or everything is done (`Ready(Ok)`).
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut ReadHalf<'_>,
        sink: &mut WriteHalf<'_>,
        mut observe: impl FnMut(&[u8]),
    ) -> Poll<Result<(), Broken>> {
        while !self.closed {
            if let Some(held) = self.held.take() {
                ready!(self.write(cx, sink, held)).map_err(Broken::Sink)?;
            } else if self.ended {
                ready!(Pin::new(&mut *sink).poll_shutdown(cx)).map_err(Broken::Sink)?;
                self.closed = true;
            } else {
                ready!(self.read(cx, source, &mut observe)).map_err(Broken::Source)?;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn read(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut ReadHalf<'_>,
        observe: &mut impl FnMut(&[u8]),
    ) -> Poll<io::Result<()>> {
        let mut bytes = borrow();
        let mut space = ReadBuf::uninit(bytes.spare_capacity_mut());
        let outcome = Pin::new(source).poll_read(cx, &mut space);
        let filled = space.filled();
        observe(filled);
        let length = filled.len();
        // SAFETY: `ReadBuf` has initialised the first `length` bytes of the spare capacity of the empty vector.
        unsafe { bytes.set_len(length) };
        match outcome {
            Poll::Ready(Ok(())) if length > 0 => self.held = Some(Held { bytes, written: 0 }),
            Poll::Ready(Ok(())) => {
                give_back(bytes);
                self.ended = true;
            }
            Poll::Ready(Err(_)) | Poll::Pending => {
                give_back(bytes);
                return outcome;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn write(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut WriteHalf<'_>,
        mut held: Held,
    ) -> Poll<io::Result<()>> {
        while held.written < held.bytes.len() {
            match Pin::new(&mut *sink).poll_write(cx, &held.bytes[held.written..]) {
                Poll::Ready(Ok(written)) => held.written += written,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.held = Some(held);
                    return Poll::Pending;
                }
            }
        }
        give_back(held.bytes);
        Poll::Ready(Ok(()))
    }
}

fn borrow() -> Vec<u8> {
    SPARE.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(BUFFER))
}

fn give_back(mut bytes: Vec<u8>) {
    bytes.clear();
    SPARE.with_borrow_mut(|spare| {
        if spare.len() < SPARE_BUFFERS {
            spare.push(bytes);
        }
    });
}
