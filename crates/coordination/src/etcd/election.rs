//! Who leads the agents: whoever made the key first, for as long as its lease lives.

use std::sync::Arc;
use std::time::Duration;

use model::NodeName;

use super::Etcd;
use crate::{Coordinator, Entry, Error, HeldLease, LeaderHint, Revision, Txn, TxnOutcome, Watch};

/// The key; its value is the leader's name.
const KEY: &str = "leader";
/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// The pause after a failed question.
const PAUSE: Duration = Duration::from_millis(100);

/// Follows the leader's key for ever, and takes it when it is free if this node is a candidate.
pub(super) async fn run(store: Etcd, node: NodeName, candidate: bool, ttl: Duration) {
    loop {
        if let Err(error) = round(&store, &node, candidate, ttl).await {
            tracing::debug!(%error, "election");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn round(store: &Etcd, node: &NodeName, candidate: bool, ttl: Duration) -> Result<(), Error> {
    let listing = store.list(KEY, PATIENCE).await?;
    let mut watch = store.watch(KEY, listing.revision.next());
    match listing.entries.first() {
        Some(entry) => {
            let leader: NodeName = entry.json()?;
            if leader == *node {
                // Left over from this node's life before: nobody renews it, so there is nothing to wait for.
                return end(store, entry).await;
            }
            announce(store, Some(leader), entry.created);
            gone(&mut watch).await;
            announce(store, None, entry.created);
            Ok(())
        }
        None if candidate => stand(store, node, ttl, &mut watch).await,
        None => {
            // Any change: look again.
            let _ = watch.next().await;
            Ok(())
        }
    }
}

/// Tries to become leader; leads until the lease or the key is lost.
async fn stand(store: &Etcd, node: &NodeName, ttl: Duration, watch: &mut Watch) -> Result<(), Error> {
    let lease = HeldLease::grant(Arc::new(store.clone()), ttl, PATIENCE).await?;
    let name = serde_json::to_vec(node).map_err(|error| Error::Invalid(error.to_string()))?;
    let take = Txn::new().compare(KEY, Revision(0)).put_leased(KEY, name, lease.id());
    let outcome = store.txn(take, PATIENCE).await;
    if let Ok(TxnOutcome::Committed(revision)) = outcome {
        announce(store, Some(node.clone()), revision);
        tokio::select! {
            () = lease.lost() => {}
            () = gone(watch) => {}
        }
        announce(store, None, revision);
    }
    // Also when it is unknown whether the key was taken: without its lease it goes.
    let id = lease.id();
    drop(lease);
    store.revoke_lease(id, PATIENCE).await?;
    outcome.map(|_| ())
}

/// Waits until the key is deleted, or until that can no longer be told.
async fn gone(watch: &mut Watch) {
    while let Ok(changes) = watch.next().await {
        let deleted = changes
            .changes
            .iter()
            .any(|change| matches!(change, crate::Change::Deleted { key } if key == KEY));
        if deleted {
            return;
        }
    }
}

async fn end(store: &Etcd, entry: &Entry) -> Result<(), Error> {
    match entry.lease {
        Some(lease) => store.revoke_lease(lease, PATIENCE).await,
        None => store.txn(Txn::new().compare(KEY, entry.modified).delete(KEY), PATIENCE).await.map(|_| ()),
    }
}

/// Ends the leadership of `leader`, if it is still the one.
pub(super) async fn depose(store: &Etcd, leader: &NodeName, within: Duration) -> Result<(), Error> {
    match store.get(KEY, within).await? {
        Some(entry) if entry.json::<NodeName>()? == *leader => end(store, &entry).await,
        Some(_) | None => Ok(()),
    }
}

fn announce(store: &Etcd, leader: Option<NodeName>, epoch: Revision) {
    store.hint.send_replace(LeaderHint { leader, epoch: epoch.0 });
}
