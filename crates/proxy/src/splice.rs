//! Bytes from one socket to another without a copy through this process (splice(2)).
//!
//! `SPLICE_F_MORE` is never set: it holds small messages back for 200 ms. A pipe is only held while bytes are in it; idle
//! connections share none.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use rustix::net::Shutdown;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// What a pipe holds, if the system allows so much.
const ROOM: usize = 256 << 10;
/// Unused pipes that one thread keeps.
const SPARE_PIPES: usize = 16;

thread_local! {
    static SPARE: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

/// Between two sockets.
#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

/// One direction.
#[derive(Debug, Default)]
struct Flow {
    /// There while bytes are in it.
    pipe: Option<Pipe>,
    held: usize,
    ended: bool,
    closed: bool,
}

/// Carries bytes both ways until both sides have ended or one breaks.
pub(crate) async fn join(one: &TcpStream, other: &TcpStream) -> io::Result<()> {
    let (mut there, mut back) = (Flow::default(), Flow::default());
    poll_fn(|cx| {
        let there = there.poll(cx, one, other)?;
        let back = back.poll(cx, other, one)?;
        if there.is_ready() && back.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await
}

impl Flow {
    /// Moves bytes until the source is empty, the sink is full, or all is done.
    fn poll(&mut self, cx: &mut Context<'_>, source: &TcpStream, sink: &TcpStream) -> Poll<io::Result<()>> {
        while !self.closed {
            if self.held > 0 {
                ready!(self.empty(cx, sink))?;
            } else if self.ended {
                rustix::net::shutdown(sink, Shutdown::Write)?;
                self.closed = true;
            } else {
                ready!(self.fill(cx, source))?;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Takes what the source has.
    fn fill(&mut self, cx: &mut Context<'_>, source: &TcpStream) -> Poll<io::Result<()>> {
        loop {
            if source.poll_read_ready(cx)?.is_pending() {
                self.let_go();
                return Poll::Pending;
            }
            let pipe = match self.pipe.take() {
                Some(pipe) => pipe,
                None => borrow()?,
            };
            let moved = source
                .try_io(Interest::READABLE, || Ok(splice(source, None, &pipe.write, None, ROOM, FLAGS)?));
            self.pipe = Some(pipe);
            match moved {
                Ok(0) => {
                    self.ended = true;
                    self.let_go();
                    return Poll::Ready(Ok(()));
                }
                Ok(held) => {
                    self.held = held;
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Gives the sink what is held.
    fn empty(&mut self, cx: &mut Context<'_>, sink: &TcpStream) -> Poll<io::Result<()>> {
        let Some(pipe) = &self.pipe else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
        while self.held > 0 {
            ready!(sink.poll_write_ready(cx))?;
            let moved = sink
                .try_io(Interest::WRITABLE, || Ok(splice(&pipe.read, None, sink, None, self.held, FLAGS)?));
            match moved {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(moved) => self.held -= moved,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Gives an empty pipe back.
    fn let_go(&mut self) {
        if let Some(pipe) = self.pipe.take() {
            SPARE.with_borrow_mut(|spare| {
                if spare.len() < SPARE_PIPES {
                    spare.push(pipe);
                }
            });
        }
    }
}

const FLAGS: SpliceFlags = SpliceFlags::NONBLOCK.union(SpliceFlags::MOVE);

fn borrow() -> io::Result<Pipe> {
    if let Some(pipe) = SPARE.with_borrow_mut(Vec::pop) {
        return Ok(pipe);
    }
    let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    // A user may only have so much in pipes; one of the usual size does too.
    let _ = fcntl_setpipe_size(&write, ROOM);
    Ok(Pipe { read, write })
}
