//! The purposes a connection may serve, named by its first byte.

use std::time::Duration;

/// What a connection is for. The dialling side says it in the first byte after the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StreamKind {
    /// Statuses and heartbeats between agents.
    Peer,
    /// Messages of the embedded coordination.
    Raft,
    /// Requests to an agent: commands, files, renewals.
    Api,
}

impl StreamKind {
    pub(crate) const ALL: [Self; 3] = [Self::Peer, Self::Raft, Self::Api];

    /// The longest frame body either side may send, in bytes.
    pub fn max_frame(self) -> usize {
        match self {
            Self::Peer => 1 << 20,
            Self::Raft | Self::Api => 16 << 20,
        }
    }

    /// How long sent data may stay unacknowledged before the kernel gives the connection up (TCP_USER_TIMEOUT).
    pub fn unacknowledged_limit(self) -> Duration {
        match self {
            Self::Peer => Duration::from_secs(1),
            Self::Raft | Self::Api => Duration::from_secs(5),
        }
    }

    pub(crate) fn byte(self) -> u8 {
        match self {
            Self::Peer => b'P',
            Self::Raft => b'R',
            Self::Api => b'A',
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.byte() == byte)
    }
}
