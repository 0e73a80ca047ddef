//! The key of the cookies that keep clients at their instances: one for the whole system, made when it is first needed.

use std::time::Duration;

use coordination::{JsonCoordinator, Revision, TxnOutcome};
use model::routes::{RouteTable, RouteTarget};
use tokio::sync::watch;

use super::Shared;
use super::store::WITHIN;

/// Where it is agreed on.
const KEY: &str = "cookies/key";

/// Time between two attempts to read it.
const PAUSE: Duration = Duration::from_millis(500);

/// Finds the key once a table needs it, and passes it on.
pub(super) async fn find(
    shared: Shared,
    mut tables: watch::Receiver<Option<RouteTable>>,
    found: watch::Sender<Option<String>>,
) {
    let needed = |table: &Option<RouteTable>| table.as_ref().is_some_and(needs);
    if tables.wait_for(needed).await.is_err() {
        return;
    }
    loop {
        match agreed(&shared).await {
            Ok(key) => {
                found.send_replace(Some(key));
                return;
            }
            Err(because) => tracing::info!(%because, "clients cannot be kept at their instances yet"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether a route keeps clients at their instances.
fn needs(table: &RouteTable) -> bool {
    table.routes.iter().any(|route| match &route.target {
        RouteTarget::Service(target) => target.traffic.sticky.is_some(),
        RouteTarget::Database(_) => false,
    })
}

/// The key as the system agreed on it, made now if there is none.
async fn agreed(shared: &Shared) -> Result<String, String> {
    let coordinator = &shared.store.coordinator;
    let words = |error: coordination::Error| error.to_string();
    if let Some((key, _)) = coordinator.get_json::<String>(KEY, WITHIN).await.map_err(words)? {
        return Ok(key);
    }
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| "this machine has no random numbers".to_owned())?;
    let key: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    match coordinator.compare_and_set_json(KEY, Revision(0), &key, WITHIN).await.map_err(words)? {
        TxnOutcome::Committed(_) => Ok(key),
        TxnOutcome::Conflict { .. } => Err("another node made the key at the same moment".to_owned()),
    }
}
