//! The body of an instance's answer on its way to the client.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::route::Flight;
use super::upstream::{Sender, Upstream};

/// An answer's body. When it has been read to its end, its connection serves the next request.
#[derive(Debug)]
pub(super) struct Carried {
    incoming: Incoming,
    behind: Option<Behind>,
    instance: Arc<Upstream>,
}

/// What is held until the body has ended.
#[derive(Debug)]
pub(super) struct Behind {
    pub(super) flight: Flight,
    pub(super) sender: Sender,
    pub(super) upstream: Arc<Upstream>,
}

impl Carried {
    pub(super) fn new(incoming: Incoming, behind: Behind) -> Self {
        let instance = behind.upstream.clone();
        let mut carried = Self { incoming, behind: Some(behind), instance };
        carried.look_for_end();
        carried
    }

    /// Which instance answers.
    pub(super) fn instance(&self) -> &str {
        &self.instance.id
    }

    fn look_for_end(&mut self) {
        if self.incoming.is_end_stream() {
            self.ended();
        }
    }

    fn ended(&mut self) {
        if let Some(Behind { flight, sender, upstream }) = self.behind.take() {
            drop(flight);
            upstream.give_back(sender);
        }
    }
}

impl Body for Carried {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        match &frame {
            None => self.ended(),
            Some(Ok(_)) => self.look_for_end(),
            Some(Err(_)) => self.behind = None,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
