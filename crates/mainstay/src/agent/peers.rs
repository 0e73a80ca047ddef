//! Connections to the other agents: one for each peer and line, established by the node whose name comes first.
//!
//! Everything is sent on every line; the mind tells duplicates by their numbers. A connection that says nothing for
//! [`SILENT_AFTER`] is given up and dialled again, so that a healed line is used at once and not when TCP's
//! retransmission timer happens to fire.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use decide::agent::Input;
use model::status::PeerMessage;
use model::system::System;
use model::{LineName, NodeName};
use tokio::sync::mpsc;
use transport::{Connection, FrameError, FrameReceiver, FrameSender, Identity, StreamKind, dial};

use super::Inputs;

/// After this long without a message a connection is useless.
const SILENT_AFTER: Duration = Duration::from_millis(1200);

/// How long the word that a connection is given up may take into a socket that is full.
const FAREWELL: Duration = Duration::from_millis(20);

/// How long an attempt to connect may take.
const DIAL_LIMIT: Duration = Duration::from_millis(800);

/// Time between two attempts to connect.
const DIAL_PAUSE: Duration = Duration::from_millis(150);

/// Messages that may wait for a slow connection; more means that it is stuck and is closed.
const QUEUE: usize = 256;

type Link = (NodeName, LineName);

/// All peer connections of this node.
#[derive(Clone)]
pub(super) struct Peers {
    inputs: Inputs,
    links: Arc<Mutex<BTreeMap<Link, mpsc::Sender<Bytes>>>>,
}

impl Peers {
    pub(super) fn new(inputs: Inputs) -> Self {
        Self { inputs, links: Arc::default() }
    }

    /// Dials every peer that it is this node's part to dial, on every common line, for ever.
    pub(super) fn dial_all(
        &self,
        system: &System,
        me: &NodeName,
        identity: &Identity,
    ) -> Vec<tokio::task::AbortHandle> {
        let mut dialers = Vec::new();
        for (peer, line, address, source) in lines_to_dial(system, me) {
            let (peers, identity) = (self.clone(), identity.clone());
            let task = tokio::spawn(async move {
                loop {
                    if let Ok(connection) =
                        dial(address, &peer, StreamKind::Peer, &identity, DIAL_LIMIT, Some(source)).await
                    {
                        peers.serve(connection, peer.clone(), line.clone()).await;
                    }
                    tokio::time::sleep(DIAL_PAUSE).await;
                }
            });
            dialers.push(task.abort_handle());
        }
        dialers
    }

    /// Serves one established connection until it ends.
    pub(super) async fn serve(&self, connection: Connection, peer: NodeName, line: LineName) {
        let (mut sender, receiver) = connection.split();
        let (queue, waiting) = mpsc::channel(QUEUE);
        let link = (peer.clone(), line.clone());
        self.links().insert(link.clone(), queue.clone());
        self.inputs.send(Input::LineUp { peer: peer.clone(), line: line.clone() });
        let end = tokio::select! {
            biased;
            end = self.read(receiver, &peer) => end,
            end = write(&mut sender, waiting) => end,
        };
        if end == End::GivenUp {
            // Without a word the peer would take it for the end of this process, which is given time to come back.
            let _ = tokio::time::timeout(FAREWELL, sender.close()).await;
        }
        let mut links = self.links();
        // A newer connection of the same link may have replaced this one; then the link is not down.
        if links.get(&link).is_some_and(|current| current.same_channel(&queue)) {
            links.remove(&link);
            drop(links);
            self.inputs.send(Input::LineDown { peer, line, closed: end == End::Closed });
        }
    }

    async fn read(&self, mut receiver: FrameReceiver, peer: &NodeName) -> End {
        loop {
            match tokio::time::timeout(SILENT_AFTER, receiver.recv_json::<PeerMessage>()).await {
                Ok(Ok(message)) => self.inputs.send(Input::Message { from: peer.clone(), message }),
                Ok(Err(error)) => return End::of(&error),
                Err(_) => return End::GivenUp,
            }
        }
    }

    /// Sends `message` to `peer` on every line that is up.
    pub(super) fn send(&self, peer: &NodeName, message: &PeerMessage) {
        let Ok(body) = serde_json::to_vec(message).map(Bytes::from) else { return };
        let mut links = self.links();
        // A full queue belongs to a connection that is stuck: dropping the sender ends it, and it is dialled again.
        links.retain(|(to, _), queue| to != peer || queue.try_send(body.clone()).is_ok());
    }

    fn links(&self) -> std::sync::MutexGuard<'_, BTreeMap<Link, mpsc::Sender<Bytes>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The other side's kernel closed it, as it does when the process ends.
    Closed,
    /// This side gave it up.
    GivenUp,
    /// The other side gave it up, or the network lost it.
    Lost,
}

impl End {
    fn of(error: &FrameError) -> Self {
        match error {
            FrameError::Ended => Self::Closed,
            FrameError::Io(error) if is_reset(error) => Self::Closed,
            FrameError::Io(_) => Self::Lost,
            FrameError::Closed | FrameError::Truncated => Self::Lost,
            FrameError::TooLong { .. } | FrameError::Json { .. } | FrameError::Interrupted => Self::GivenUp,
        }
    }
}

fn is_reset(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted)
}

async fn write(sender: &mut FrameSender, mut waiting: mpsc::Receiver<Bytes>) -> End {
    while let Some(body) = waiting.recv().await {
        match tokio::time::timeout(SILENT_AFTER, sender.send(&body)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return End::of(&error),
            Err(_) => return End::GivenUp,
        }
    }
    End::GivenUp
}

/// Peers that this node dials: those whose names come after its own; the others dial it.
fn lines_to_dial(system: &System, me: &NodeName) -> Vec<(NodeName, LineName, SocketAddr, IpAddr)> {
    let Some(own) = system.nodes.get(me) else { return vec![] };
    let later = system.nodes.iter().filter(|(name, _)| *name > me);
    later
        .flat_map(|(name, node)| {
            node.agent_addresses().filter_map(|(line, address)| {
                Some((name.clone(), line.clone(), address, *own.lines.get(line)?))
            })
        })
        .collect()
}

/// The line over which a connection from `address` came.
pub(super) fn line_of(system: &System, peer: &NodeName, address: IpAddr) -> Option<LineName> {
    let lines = &system.nodes.get(peer)?.lines;
    lines.iter().find(|(_, ip)| **ip == address).map(|(line, _)| line.clone())
}
