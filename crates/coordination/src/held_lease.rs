//! Holding a lease: renewing it in the background and knowing when it can no longer be relied on.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::{Coordinator, Error, LeaseId};

/// A lease that renews itself every third of its time until dropped.
///
/// A renewal without an answer within a third of the lease counts as lost and is repeated. The lease is relied on
/// only until one TTL after the last answered renewal was **asked for**: the store's own count starts later, so
/// this node gives up first. Dropping stops the renewals; the store ends the lease one TTL later
/// ([`Coordinator::revoke_lease`] ends it at once).
#[derive(Debug)]
pub struct HeldLease {
    id: LeaseId,
    valid_until: watch::Receiver<Option<Instant>>,
    renewals: JoinHandle<()>,
}

impl HeldLease {
    /// Grants a lease and starts renewing it, on the current tokio runtime.
    ///
    /// # Errors
    /// As [`Coordinator::grant_lease`].
    pub async fn grant(store: Arc<dyn Coordinator>, ttl: Duration, within: Duration) -> Result<Self, Error> {
        let asked = Instant::now();
        let id = store.grant_lease(ttl, within).await?;
        let (sender, valid_until) = watch::channel(Some(asked + ttl));
        let renewals = tokio::spawn(renew(store, id, ttl, sender));
        Ok(Self { id, valid_until, renewals })
    }

    /// The lease, to attach keys to.
    pub fn id(&self) -> LeaseId {
        self.id
    }

    /// Until when the lease can be relied on; `None` once the store has said that it ended.
    pub fn valid_until(&self) -> Option<Instant> {
        *self.valid_until.borrow()
    }

    /// Whether the lease can be relied on at this moment.
    pub fn is_valid(&self) -> bool {
        self.valid_until().is_some_and(|until| Instant::now() < until)
    }

    /// Waits until the lease can no longer be relied on. Cancel safe.
    pub async fn lost(&self) {
        let mut valid_until = self.valid_until.clone();
        loop {
            let Some(until) = *valid_until.borrow_and_update() else { return };
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                changed = valid_until.changed() => if changed.is_err() { return },
            }
        }
    }
}

impl Drop for HeldLease {
    fn drop(&mut self) {
        self.renewals.abort();
    }
}

async fn renew(
    store: Arc<dyn Coordinator>,
    id: LeaseId,
    ttl: Duration,
    valid_until: watch::Sender<Option<Instant>>,
) {
    let third = ttl / 3;
    let mut pause = third;
    loop {
        tokio::time::sleep(pause).await;
        pause = third;
        let asked = Instant::now();
        match store.keep_alive(id, third).await {
            Ok(granted) => {
                valid_until.send_replace(Some(asked + granted));
            }
            Err(Error::LeaseEnded(_)) => {
                valid_until.send_replace(None);
                return;
            }
            Err(error) => {
                tracing::debug!(lease = %id, %error, "renewal lost");
                // The silence itself already cost up to a third; ask again soon, not after another third.
                pause = third / 10;
            }
        }
        if valid_until.borrow().is_none_or(|until| until < Instant::now()) {
            valid_until.send_replace(None);
            return;
        }
    }
}
