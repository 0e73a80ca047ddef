//! The handshakes under way, bounded.

use std::collections::VecDeque;
use std::future::Future;

use tokio::task::{AbortHandle, JoinSet};

/// At most `limit` tasks; a new one pushes the oldest out.
///
/// An honest handshake takes milliseconds, so the oldest of many is one that stalls on purpose or is lost.
pub(super) struct PendingHandshakes {
    limit: usize,
    tasks: JoinSet<()>,
    oldest_first: VecDeque<AbortHandle>,
}

impl PendingHandshakes {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, tasks: JoinSet::new(), oldest_first: VecDeque::new() }
    }

    /// Starts a handshake.
    pub(super) fn spawn(&mut self, handshake: impl Future<Output = ()> + Send + 'static) {
        while self.oldest_first.len() >= self.limit {
            if let Some(oldest) = self.oldest_first.pop_front() {
                oldest.abort();
            }
        }
        self.oldest_first.push_back(self.tasks.spawn(handshake));
    }

    /// Waits until some handshake has ended and forgets all that have.
    pub(super) async fn reap(&mut self) {
        if self.tasks.join_next().await.is_none() {
            return std::future::pending().await;
        }
        while self.tasks.try_join_next().is_some() {}
        self.oldest_first.retain(|task| !task.is_finished());
    }
}
