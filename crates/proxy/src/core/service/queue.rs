//! Requests that wait because every instance is at its limit: so many, and no more.
//!
//! An instance that is given more than it can do answers everybody late, and clients that have given up by then are
//! answered all the same. So what is beyond the limit waits here, where it costs next to nothing, and what is beyond the
//! queue is told at once to come back later.

/// The waiting requests of one route. Who is first is known by who waits; here they are only counted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Queue {
    waiting: u32,
}

impl Queue {
    /// Lets one more wait, if there is room for it among `most`.
    pub(super) fn enter(&mut self, most: u32) -> bool {
        let enters = self.waiting < most;
        self.waiting += u32::from(enters);
        enters
    }

    /// One has ceased to wait, for whatever reason.
    pub(super) fn leave(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> u32 {
        self.waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_lets_nobody_in_until_somebody_leaves() {
        let mut queue = Queue::default();
        assert!(!queue.enter(0), "a queue of none is allowed");
        assert_eq!([queue.enter(2), queue.enter(2), queue.enter(2)], [true, true, false]);
        queue.leave();
        assert!(queue.enter(2));
        assert_eq!(queue.waiting(), 2);
    }
}
