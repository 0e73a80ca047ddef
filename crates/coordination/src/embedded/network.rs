//! Raft's outgoing messages over the transport that the agent supplies.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::NodeName;
use openraft::entry::RaftEntry;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};

use serde::de::DeserializeOwned;

use super::message::{
    ChunkAnswer, Request, RequestBody, Response, SNAPSHOT_CHUNK, SnapshotChunk, decode, encode,
};
use super::pace::Pace;
use super::raft_types::{LogId, Peer, RaftId, Snapshot, TypeConfig, Vote};
use super::timings::Timings;
use crate::BoxFuture;

/// Carries messages between the agents' [`super::Embedded`] stores, at most [`super::MAX_MESSAGE`] bytes each way.
///
/// The implementation authenticates both sides (in the product: mutual TLS) and gives what arrives to
/// [`super::Embedded::handle`] with the name proven by the sender's certificate.
pub trait RaftTransport: Send + Sync + 'static {
    /// Sends a request to a node and waits for its answer, at most for `deadline`.
    ///
    /// The future may be dropped at any time. It runs on Raft's own thread ([`super::Embedded::runtime`]): it must
    /// not block, and heartbeats are only as punctual as the tasks it depends on, so connections are best driven
    /// from that runtime too. Requests to one node must not wait for each other: a snapshot's pieces must not hold up
    /// heartbeats.
    ///
    /// A request must not be delivered twice: a client's transaction in it would be done twice.
    ///
    /// # Errors
    /// [`io::ErrorKind::ConnectionRefused`] and [`io::ErrorKind::NotConnected`] promise that the request was **not**
    /// delivered. Every other kind leaves that open ([`io::ErrorKind::TimedOut`] when the deadline passed).
    fn call(
        &self,
        target: &NodeName,
        request: Bytes,
        deadline: Duration,
    ) -> BoxFuture<'static, io::Result<Bytes>>;
}

/// Makes the connections that Raft asks for.
pub(crate) struct Network {
    transport: Arc<dyn RaftTransport>,
    timings: Timings,
    pace: Arc<Pace>,
}

/// Messages to one incarnation of one node.
pub(crate) struct Connection {
    transport: Arc<dyn RaftTransport>,
    target: RaftId,
    name: NodeName,
    /// How long an append may take, by Raft's clock.
    append: Duration,
    pace: Arc<Pace>,
}

/// How long a node may take to install a snapshot once it has all of it.
const INSTALL: Duration = Duration::from_secs(10);

impl Network {
    pub(crate) fn new(transport: Arc<dyn RaftTransport>, timings: Timings, pace: Arc<Pace>) -> Self {
        Self { transport, timings, pace }
    }

    fn connection(&self, target: RaftId, node: &Peer, append: Duration) -> Connection {
        let (transport, pace) = (self.transport.clone(), self.pace.clone());
        Connection { transport, target, name: node.node_name(), append, pace }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Connection;

    async fn new_client(&mut self, target: RaftId, node: &Peer) -> Connection {
        self.connection(target, node, self.timings.replication())
    }

    async fn new_heartbeat_client(&mut self, target: RaftId, node: &Peer) -> Connection {
        self.connection(target, node, self.timings.heartbeat)
    }
}

/// Sends one request; the deadline holds even if the transport forgets it.
pub(crate) async fn call<T: DeserializeOwned>(
    transport: &dyn RaftTransport,
    target: &NodeName,
    message: Bytes,
    deadline: Duration,
) -> io::Result<Response<T>> {
    let answer = tokio::time::timeout(deadline, transport.call(target, message, deadline));
    let answer = answer.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    Ok(decode(answer)?.0)
}

type Result<T> = std::result::Result<T, RPCError<TypeConfig>>;

impl Connection {
    async fn send<T: DeserializeOwned>(
        &self,
        body: RequestBody,
        tail: &[u8],
        deadline: Duration,
    ) -> Result<T> {
        let message = encode(&self.request(body), tail).map_err(|error| unreachable(&error))?;
        self.send_encoded(message, deadline).await
    }

    async fn send_encoded<T: DeserializeOwned>(&self, message: Bytes, deadline: Duration) -> Result<T> {
        let response = call(&*self.transport, &self.name, message, deadline).await;
        match response.map_err(|error| unreachable(&error))? {
            Response::Answer(answer) => Ok(answer),
            Response::Refused(problem) => Err(unreachable(&io::Error::other(problem))),
        }
    }

    fn request(&self, body: RequestBody) -> Request {
        Request { to: Some(self.target), body }
    }

    async fn send_snapshot(&self, vote: Vote, snapshot: Snapshot) -> Result<SnapshotResponse<TypeConfig>> {
        let Snapshot { meta, snapshot: data } = snapshot;
        let total = data.len();
        // The first piece is empty: a node that is not there shall cost one short deadline, not the long one for
        // installing.
        let mut piece = 0..0;
        loop {
            let chunk = SnapshotChunk { vote, meta: meta.clone(), offset: piece.start, total };
            let deadline = if piece.end == total { INSTALL } else { self.pace.lasts(self.append) };
            match self.send(RequestBody::Snapshot(chunk), &data[piece.clone()], deadline).await? {
                ChunkAnswer::Installed(response) => return Ok(response),
                ChunkAnswer::Kept if piece.end < total => {
                    piece = piece.end..total.min(piece.end + SNAPSHOT_CHUNK)
                }
                ChunkAnswer::Kept => {
                    return Err(unreachable(&io::Error::other("the snapshot was not installed")));
                }
            }
        }
    }
}

impl RaftNetworkV2<TypeConfig> for Connection {
    type SnapshotData = Vec<u8>;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>> {
        let mut request = self.request(RequestBody::Append(rpc));
        let mut sent_upto = None;
        let message = loop {
            match encode(&request, &[]) {
                Ok(message) => break message,
                Err(error) => sent_upto = Some(halve(&mut request).ok_or_else(|| unreachable(&error))?),
            }
        };
        let response = self.send_encoded(message, self.pace.lasts(self.append)).await?;
        match sent_upto {
            Some(upto) if response == AppendEntriesResponse::Success => {
                Ok(AppendEntriesResponse::PartialSuccess(Some(upto)))
            }
            Some(_) | None => Ok(response),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>> {
        self.send(RequestBody::Vote(rpc), &[], self.pace.lasts(option.hard_ttl())).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>> {
        self.send(RequestBody::PreVote(rpc), &[], self.pace.lasts(option.hard_ttl())).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> std::result::Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = self.send_snapshot(vote, snapshot) => Ok(sent?),
        }
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>> {
        self.send(RequestBody::Transfer(rpc), &[], self.pace.lasts(option.hard_ttl())).await
    }
}

/// Keeps the first half of an append's entries: the last one kept, or nothing when a single entry does not fit.
fn halve(request: &mut Request) -> Option<LogId> {
    let RequestBody::Append(append) = &mut request.body else { return None };
    let half = append.entries.len() / 2;
    append.entries.truncate(half);
    append.entries.last().map(RaftEntry::log_id)
}

/// "Back off before trying again": also right for a timeout, which has cost its time already.
fn unreachable(error: &io::Error) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::new(error))
}
