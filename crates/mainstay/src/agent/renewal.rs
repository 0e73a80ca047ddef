//! Certificates count a year; every agent has its own renewed by the node that holds the authority when half of that is
//! over, so that half a year is left for whatever is in the way.

use std::time::{Duration, SystemTime};

use decide::agent::Input;
use model::NodeName;
use transport::{Authority, Identity, RpcPool};

use super::Shared;
use super::api::forward;
use crate::api::{Reply, Request};
use crate::install;

/// Connections to the other agents are made meanwhile.
const FIRST_LOOK_AFTER: Duration = Duration::from_secs(5);
/// How often it is looked whether the certificate is old enough, and how often a renewal that failed is tried again.
const LOOK_EVERY: Duration = Duration::from_secs(3600);
/// From so long before its end a certificate that could not be renewed is a trouble of the node.
const WARN_BEFORE: Duration = Duration::from_secs(60 * 24 * 3600);
/// The part of a node's trouble that this is about.
const PART: &str = "certificate";

/// Keeps this node's certificate young, for ever.
pub(super) async fn keep(shared: Shared, rpc: RpcPool, identity: Identity) {
    tokio::time::sleep(FIRST_LOOK_AFTER).await;
    loop {
        let mut because = None;
        if identity.renewal_due(SystemTime::now())
            && let Err(reason) = renew(&shared, &rpc, &identity).await
        {
            tracing::warn!(%reason, "this node's certificate could not be renewed; it is tried again");
            because = warning(&identity, SystemTime::now(), &reason);
        }
        shared.inputs.send(Input::Missing { part: PART.to_owned(), because });
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn warning(identity: &Identity, now: SystemTime, reason: &str) -> Option<String> {
    let left = identity.expires_at().duration_since(now).unwrap_or_default();
    let days = left.as_secs() / (24 * 3600);
    (left < WARN_BEFORE).then(|| {
        format!(
            "a certificate for more than {days} days, without which it is no part of the system: {reason}; start the node \
             that holds the authority, or bring the authority back: mainstay authority import FILE"
        )
    })
}

/// Has the present key certified again, by this node itself or by the first other one that holds the authority.
async fn renew(shared: &Shared, rpc: &RpcPool, identity: &Identity) -> Result<(), String> {
    let request_pem = identity.renewal_request().map_err(|error| error.to_string())?;
    let certificate = match certify(shared, &shared.me, &request_pem) {
        Ok(certificate) => certificate,
        Err(_) => ask_others(shared, rpc, request_pem).await?,
    };
    identity.renew(&shared.places.state("identity"), &certificate).map_err(|error| error.to_string())?;
    tracing::info!("this node's certificate is renewed for a year");
    Ok(())
}

async fn ask_others(shared: &Shared, rpc: &RpcPool, request_pem: String) -> Result<String, String> {
    let others: Vec<NodeName> =
        shared.system.borrow().nodes.keys().filter(|node| **node != shared.me).cloned().collect();
    let request = Request::Renew { request_pem };
    for node in &others {
        if let Reply::Certificate(certificate) = forward(rpc, node, &request).await {
            return Ok(certificate);
        }
    }
    Err("no node that answers holds the system's authority".to_owned())
}

/// Signs what `node` asks for, if this node holds the authority. Who asks is known by its present certificate.
pub(super) fn certify(shared: &Shared, node: &NodeName, request_pem: &str) -> Result<String, String> {
    let directory = shared.places.state(install::AUTHORITY);
    let authority = Authority::load(&directory).map_err(|error| error.to_string())?;
    let addresses: Vec<_> = match shared.system.borrow().nodes.get(node) {
        Some(described) => described.lines.values().copied().collect(),
        None => return Err(format!("the system file in force has no node `{node}`")),
    };
    authority.sign_csr(request_pem, node, &addresses).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use model::SystemName;

    use super::*;

    fn ends_in(days: u64) -> Identity {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create(folder.path(), &SystemName::from("shop")).unwrap();
        let end = SystemTime::now() + Duration::from_secs(days * 24 * 3600 + 60);
        let credentials = authority.issue_until(&"a".into(), &[], end).unwrap();
        Identity::from_credentials(credentials).unwrap()
    }

    #[test]
    fn a_node_is_warned_two_months_before_its_certificate_ends() {
        let now = SystemTime::now();
        assert_eq!(warning(&ends_in(61), now, "nobody answers"), None);
        let told = warning(&ends_in(59), now, "nobody answers").unwrap();
        assert!(told.contains("59 days") && told.contains("nobody answers"), "{told}");
        assert!(told.contains("mainstay authority import FILE"), "{told}");
    }
}
