//! Upgraded connections (WebSocket and others): bytes in both directions until either side ends.

use std::sync::Arc;

use hyper::Response;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

use super::answer::Body;
use super::attempt::Reply;
use super::carried::Behind;
use super::route::Visit;
use super::upstream;
use crate::core::service::head;

/// The client's side of an upgrade that may come.
pub(super) struct Upgrade {
    pub(super) client_side: OnUpgrade,
    /// Keeps the connection counted as open.
    pub(super) visit: Arc<Visit>,
}

/// Answers 101 and joins both sides once that has been sent.
pub(super) fn begin(upgrade: Upgrade, reply: Reply) -> Response<Body> {
    let Reply { mut response, behind } = reply;
    let instance_side = hyper::upgrade::on(&mut response);
    tokio::spawn(carry(upgrade, instance_side, behind));
    let (mut head, _) = response.into_parts();
    head::release(&mut head.headers, true);
    Response::from_parts(head, Body::whole(""))
}

async fn carry(upgrade: Upgrade, instance_side: OnUpgrade, behind: Behind) {
    let Upgrade { client_side, visit } = upgrade;
    let _busy = visit.place.busy();
    let Behind { flight, sender: _, upstream } = behind;
    let _tunnel = flight.into_tunnel();
    let mut gone = upstream.watch();
    let joined = async {
        let (client, instance) = tokio::try_join!(client_side, instance_side)?;
        join(client, instance).await
    };
    let outcome = tokio::select! {
        outcome = joined => outcome,
        () = upstream::until(&mut gone) => Ok(()),
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a tunnel broke");
    }
}

async fn join(client: Upgraded, instance: Upgraded) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(instance)).await?;
    Ok(())
}
