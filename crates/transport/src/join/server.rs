//! The side that lets nodes in.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsStream, server};

use super::wire::{Application, MAX_JOIN_ANSWER, MAX_JOIN_FRAME, Verdict};
use super::{Admission, JoinDesk, JoinRequest};
use crate::frame::{self, FrameError, FrameReceiver, FrameSender};
use crate::listener::Shared;

/// How long the stranger may take to send its request, and to take the answer.
const MESSAGE_DEADLINE: Duration = Duration::from_secs(2);
/// How long the desk may take; it may have to wait for the agreement of other nodes.
const DESK_DEADLINE: Duration = Duration::from_secs(10);

/// Serves one stranger; whatever goes wrong ends only this connection.
pub(crate) async fn serve(stream: server::TlsStream<TcpStream>, from: SocketAddr, shared: &Arc<Shared>) {
    let (mut sender, mut receiver) =
        frame::split_uneven(TlsStream::from(stream), MAX_JOIN_ANSWER, MAX_JOIN_FRAME);
    let verdict = match decide(&mut receiver, from, shared).await {
        Ok(admission) => Verdict::Admitted {
            certificate_pem: admission.certificate_pem,
            authority_pem: shared.identity.authority_pem(),
            system: admission.system,
        },
        Err(reason) => {
            tracing::warn!(%from, %reason, "refused a request to join");
            Verdict::Refused { reason }
        }
    };
    match timeout(MESSAGE_DEADLINE, answer(&mut sender, &mut receiver, &verdict)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%from, %error, "cannot answer a request to join"),
        Err(_) => tracing::debug!(%from, "the answer to a request to join was not taken"),
    }
}

async fn answer(
    sender: &mut FrameSender,
    receiver: &mut FrameReceiver,
    verdict: &Verdict,
) -> Result<(), FrameError> {
    sender.send_json(verdict).await?;
    sender.close().await?;
    // Closing while bytes of the peer are unread would reset the connection and destroy our answer on its way.
    while receiver.recv().await.is_ok() {}
    Ok(())
}

async fn decide(
    receiver: &mut FrameReceiver,
    from: SocketAddr,
    shared: &Arc<Shared>,
) -> Result<Admission, String> {
    let desk = shared.desk.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
    let desk = desk.ok_or("this node cannot let others in; ask the node that founded the system")?;
    let penalty = failures(shared).penalty(from.ip(), Instant::now());
    if !penalty.is_zero() {
        return Err(format!("too many failed attempts from {}; wait {} s", from.ip(), penalty.as_secs() + 1));
    }
    let decided = match timeout(MESSAGE_DEADLINE, receiver.recv()).await {
        Err(_) => Err("no request came".to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Ok(Ok(frame)) => match Application::parse(&frame, from) {
            Ok(request) => ask(desk, request).await,
            Err(reason) => Err(reason),
        },
    };
    if decided.is_err() {
        failures(shared).record(from.ip(), Instant::now());
    }
    decided
}

async fn ask(desk: Arc<dyn JoinDesk>, request: JoinRequest) -> Result<Admission, String> {
    let asked = tokio::task::spawn_blocking(move || desk.admit(&request));
    match timeout(DESK_DEADLINE, asked).await {
        Ok(Ok(decided)) => decided,
        Ok(Err(_)) => Err("this node failed while it looked at the request; its log says why".into()),
        Err(_) => Err("this node could not decide in time; try again with the same token".into()),
    }
}

fn failures(shared: &Shared) -> std::sync::MutexGuard<'_, super::FailedAttempts> {
    shared.failures.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
