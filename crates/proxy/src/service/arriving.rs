//! The body of a client's request on its way to an instance.

use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use model::time::Moment;
use tokio::time::{Instant, Sleep, sleep};

use crate::clock;

/// A request's body as it comes from the client.
#[derive(Debug)]
pub(super) struct Arriving {
    incoming: Incoming,
    pulse: Arc<Pulse>,
    /// How long it may pause before the answer begins; `None`: as long as it likes.
    longest: Option<Duration>,
    pause: Option<Pin<Box<Sleep>>>,
}

/// What is known of a body while an instance has it.
#[derive(Debug)]
pub(super) struct Pulse {
    /// When something of it last came, in microseconds.
    last: AtomicU64,
    ended: AtomicBool,
    may_pause: bool,
    late: AtomicBool,
    answered: AtomicBool,
}

impl Arriving {
    pub(super) fn new(incoming: Incoming, longest: Option<Duration>) -> (Self, Arc<Pulse>) {
        let pulse = Arc::new(Pulse {
            last: AtomicU64::new(clock::now().as_micros()),
            ended: AtomicBool::new(incoming.is_end_stream()),
            may_pause: longest.is_none(),
            late: AtomicBool::new(false),
            answered: AtomicBool::new(false),
        });
        (Self { incoming, pulse: pulse.clone(), longest, pause: None }, pulse)
    }

    /// Counts how long the client pauses.
    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        let longest = self.longest.filter(|_| !self.pulse.answered.load(Ordering::Relaxed));
        let Some(longest) = longest else { return false };
        let pause = self.pause.get_or_insert_with(|| Box::pin(sleep(longest)));
        // An answer that begins meanwhile may find the clock still set; it is asked again when it strikes.
        pause.as_mut().poll(cx).is_ready() && !self.pulse.answered.load(Ordering::Relaxed)
    }
}

impl Pulse {
    /// The body has not come in time.
    pub(super) fn is_late(&self) -> bool {
        self.late.load(Ordering::Relaxed)
    }

    /// An answer has begun: from now on both sides may take their time.
    pub(super) fn answered(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }

    /// When something of it last came; `None` while it may pause as long as it likes.
    pub(super) fn last(&self) -> Option<Instant> {
        let last = Moment::from_micros(self.last.load(Ordering::Relaxed));
        (self.ended.load(Ordering::Relaxed) || !self.may_pause).then(|| clock::instant(last))
    }
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
        if polled.is_pending() && self.is_late(cx) {
            self.pulse.late.store(true, Ordering::Relaxed);
            return Poll::Ready(Some(Err("the client did not send the request's body in time".into())));
        }
        let frame = ready!(polled);
        self.pause = None;
        self.pulse.last.store(clock::now().as_micros(), Ordering::Relaxed);
        if frame.is_none() || self.incoming.is_end_stream() {
            self.pulse.ended.store(true, Ordering::Relaxed);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
