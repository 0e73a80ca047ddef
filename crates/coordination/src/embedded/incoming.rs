//! What other nodes of the group ask of this one.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use model::NodeName;
use serde::Serialize;
use tokio::time::{Instant, timeout};

use super::message::{
    ChunkAnswer, Identity, MAX_SNAPSHOT, Request, RequestBody, Response, SnapshotChunk, decode, encode,
};
use super::node::Node;
use super::operation::{Answer, Failure, Hindrance, Operation};
use super::raft_types::{Snapshot, SnapshotMeta};
use crate::Reason;

/// The longest time a message is worked on here, whatever the sender says.
const MAX_OPERATION: Duration = Duration::from_secs(60);

/// Snapshots that are arriving, by sender.
#[derive(Default)]
pub(crate) struct Arriving(Mutex<HashMap<NodeName, Partial>>);

struct Partial {
    meta: SnapshotMeta,
    data: Vec<u8>,
}

impl Node {
    /// Answers one message.
    pub(crate) async fn handle(&self, from: &NodeName, message: Bytes) -> Bytes {
        let answer = match decode::<Request>(message) {
            // While the disk hangs nothing gets done, and what waits for it must not pile up.
            Ok((request, tail)) => match timeout(MAX_OPERATION, self.respond(from, request, &tail)).await {
                Ok(answer) => answer,
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            },
            Err(error) => Err(error),
        };
        // A refusal always fits, so the last resort, an empty message, which the sender takes for a broken one, is
        // never reached.
        answer.or_else(|error| encode(&Response::<()>::Refused(error.to_string()), &[])).unwrap_or_default()
    }

    async fn respond(&self, from: &NodeName, request: Request, tail: &[u8]) -> io::Result<Bytes> {
        if request.to.is_some_and(|to| to != self.id) {
            let problem = format!("{} is incarnation {}, not the one addressed", self.name, self.id);
            return Err(io::Error::other(problem));
        }
        let raft = &self.raft;
        match request.body {
            RequestBody::Append(append) => {
                self.heard_from_leader();
                answer(raft.append_entries(append).await.map_err(io::Error::other)?)
            }
            RequestBody::Vote(vote) => answer(raft.vote(vote).await.map_err(io::Error::other)?),
            RequestBody::PreVote(vote) => answer(raft.pre_vote(vote).await.map_err(io::Error::other)?),
            RequestBody::Transfer(to) => {
                answer(raft.handle_transfer_leader(to).await.map_err(io::Error::other)?)
            }
            RequestBody::Snapshot(chunk) => answer(self.take_chunk(from, chunk, tail).await?),
            RequestBody::Identify => {
                let identity = self.identity().await;
                answer(identity.map_err(|hindrance| io::Error::other(Reason::from(hindrance)))?)
            }
            RequestBody::Ping => answer(()),
            RequestBody::Operate(operation, millis) => answer(self.operate(&operation, millis).await),
        }
    }

    pub(crate) async fn identity(&self) -> Result<Identity, Hindrance> {
        Ok(Identity { id: self.id, name: self.name.clone(), initialised: self.is_initialised().await? })
    }

    /// Does what another node's client asked for, if this node leads; it is never passed on a second time.
    async fn operate(&self, operation: &Operation, millis: u64) -> Answer {
        if !self.raft.is_leader() {
            return Err(Failure::NotDone(Hindrance::NotLeader));
        }
        let within = Duration::from_millis(millis).min(MAX_OPERATION);
        self.lead(operation, Instant::now() + within).await
    }

    async fn take_chunk(
        &self,
        from: &NodeName,
        chunk: SnapshotChunk,
        tail: &[u8],
    ) -> io::Result<ChunkAnswer> {
        let Some(complete) = self.arriving.add(from, &chunk, tail).map_err(io::Error::other)? else {
            return Ok(ChunkAnswer::Kept);
        };
        let snapshot = Snapshot { meta: chunk.meta, snapshot: complete };
        let installed = self.raft.install_full_snapshot(chunk.vote, snapshot).await;
        Ok(ChunkAnswer::Installed(installed.map_err(io::Error::other)?))
    }
}

fn answer<T: Serialize>(value: T) -> io::Result<Bytes> {
    encode(&Response::Answer(value), &[])
}

impl Arriving {
    /// Adds a piece; the whole snapshot once the last one is there.
    fn add(
        &self,
        from: &NodeName,
        chunk: &SnapshotChunk,
        data: &[u8],
    ) -> Result<Option<Vec<u8>>, &'static str> {
        if chunk.total > MAX_SNAPSHOT {
            return Err("the snapshot is too large");
        }
        let mut arriving = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if chunk.offset == 0 {
            arriving.insert(from.clone(), Partial { meta: chunk.meta.clone(), data: Vec::new() });
        }
        let Some(partial) = arriving.get_mut(from) else {
            return Err("the snapshot did not start at its beginning");
        };
        let fits = partial.meta == chunk.meta
            && partial.data.len() == chunk.offset
            && chunk.offset + data.len() <= chunk.total;
        if !fits {
            arriving.remove(from);
            return Err("a piece of the snapshot is missing");
        }
        partial.data.extend_from_slice(data);
        if partial.data.len() < chunk.total {
            return Ok(None);
        }
        Ok(arriving.remove(from).map(|partial| partial.data))
    }
}
