//! What nodes of a group send each other: four bytes of header length, a JSON header, raw bytes.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use model::NodeName;
use openraft::raft::{AppendEntriesRequest, SnapshotResponse, TransferLeaderRequest, VoteRequest};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::operation::Operation;
use super::raft_types::{RaftId, SnapshotMeta, TypeConfig, Vote};

/// The largest message a [`super::RaftTransport`] is ever given, in bytes.
pub const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// How much of a snapshot travels in one message.
pub(crate) const SNAPSHOT_CHUNK: usize = 128 * 1024;
/// The largest snapshot a node accepts.
pub(crate) const MAX_SNAPSHOT: usize = 256 * 1024 * 1024;

/// A request, with the incarnation it is meant for: a node that lost its disk must not answer for the voter it was.
#[derive(Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) to: Option<RaftId>,
    pub(crate) body: RequestBody,
}

#[derive(Serialize, Deserialize)]
pub(crate) enum RequestBody {
    Append(AppendEntriesRequest<TypeConfig>),
    Vote(VoteRequest<TypeConfig>),
    PreVote(VoteRequest<TypeConfig>),
    Transfer(TransferLeaderRequest<TypeConfig>),
    /// A piece of a snapshot; the bytes follow the header.
    Snapshot(SnapshotChunk),
    /// Who are you?
    Identify,
    /// Nothing but an answer is wanted, to see how long it takes.
    Ping,
    /// A client's operation for the leader, to be done within the milliseconds given.
    Operate(Operation, u64),
}

#[derive(Serialize, Deserialize)]
pub(crate) struct SnapshotChunk {
    pub(crate) vote: Vote,
    pub(crate) meta: SnapshotMeta,
    pub(crate) offset: usize,
    pub(crate) total: usize,
}

/// What is answered, `T` depending on the request.
#[derive(Serialize, Deserialize)]
pub(crate) enum Response<T> {
    Answer(T),
    /// The request was for another incarnation of this node, or cannot be answered; the text says why.
    Refused(String),
}

/// The answer to a piece of a snapshot.
#[derive(Serialize, Deserialize)]
pub(crate) enum ChunkAnswer {
    /// It is kept, the next one may come.
    Kept,
    /// It was the last one, the snapshot is installed.
    Installed(SnapshotResponse<TypeConfig>),
}

/// What a node says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) id: RaftId,
    pub(crate) name: NodeName,
    /// Whether it already belongs to a group.
    pub(crate) initialised: bool,
}

/// Header and raw bytes as one message.
pub(crate) fn encode<T: Serialize>(header: &T, tail: &[u8]) -> io::Result<Bytes> {
    let json = serde_json::to_vec(header)?;
    let size = 4 + json.len() + tail.len();
    if size > MAX_MESSAGE {
        let problem = format!("coordination message of {size} bytes, at most {MAX_MESSAGE} are sent");
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    }
    let mut message = BytesMut::with_capacity(size);
    message.put_u32(u32::try_from(json.len()).unwrap_or(u32::MAX));
    message.put_slice(&json);
    message.put_slice(tail);
    Ok(message.freeze())
}

/// The header and the raw bytes of a message.
pub(crate) fn decode<T: DeserializeOwned>(mut message: Bytes) -> io::Result<(T, Bytes)> {
    let broken = |problem: &str| {
        io::Error::new(io::ErrorKind::InvalidData, format!("coordination message: {problem}"))
    };
    if message.len() < 4 || message.len() > MAX_MESSAGE {
        return Err(broken("wrong size"));
    }
    let length = message.split_to(4);
    let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize;
    if length > message.len() {
        return Err(broken("cut short"));
    }
    let header = message.split_to(length);
    let header = serde_json::from_slice(&header).map_err(|error| broken(&error.to_string()))?;
    Ok((header, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_messages_are_refused() {
        let good = encode(&Request { to: Some(7), body: RequestBody::Identify }, b"tail").unwrap();
        let (request, tail) = decode::<Request>(good.clone()).unwrap();
        assert_eq!((request.to, &tail[..]), (Some(7), &b"tail"[..]));
        for length in 0..good.len() - 4 {
            assert!(decode::<Request>(good.slice(..length)).is_err(), "{length}");
        }
        assert!(decode::<Request>(Bytes::from(vec![b'x'; MAX_MESSAGE + 1])).is_err());
        assert!(encode(&"x", &vec![0; MAX_MESSAGE]).is_err());
    }
}
