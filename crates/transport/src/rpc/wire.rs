//! The bytes of one RPC message: tag (1 byte), id (8 bytes, big-endian), payload.

use bytes::{Buf, BufMut, Bytes};

const HEADER: usize = 9;

/// One message in either direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// Asks for work; answered by [`Message::Answer`] or [`Message::Failure`] with the same id.
    Request(u64, Bytes),
    /// The result.
    Answer(u64, Bytes),
    /// The request failed; the payload is the reason in words.
    Failure(u64, Bytes),
    /// Asks whether the other side still reads.
    Ping(u64),
    /// It does.
    Pong(u64),
}

impl Message {
    pub(super) fn encode(&self) -> Vec<u8> {
        let (tag, id, payload) = match self {
            Self::Request(id, payload) => (1, *id, payload.as_ref()),
            Self::Answer(id, payload) => (2, *id, payload.as_ref()),
            Self::Failure(id, payload) => (3, *id, payload.as_ref()),
            Self::Ping(id) => (4, *id, [].as_slice()),
            Self::Pong(id) => (5, *id, [].as_slice()),
        };
        let mut out = Vec::with_capacity(HEADER + payload.len());
        out.put_u8(tag);
        out.put_u64(id);
        out.put_slice(payload);
        out
    }

    /// Nothing when the frame is no message: unknown tag, too short, or a payload where none belongs.
    pub(super) fn decode(mut frame: Bytes) -> Option<Self> {
        if frame.len() < HEADER {
            return None;
        }
        let (tag, id) = (frame.get_u8(), frame.get_u64());
        match (tag, frame.is_empty()) {
            (1, _) => Some(Self::Request(id, frame)),
            (2, _) => Some(Self::Answer(id, frame)),
            (3, _) => Some(Self::Failure(id, frame)),
            (4, true) => Some(Self::Ping(id)),
            (5, true) => Some(Self::Pong(id)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_message_survives_the_wire(id: u64, payload: Vec<u8>, tag in 0..5) {
            let payload = Bytes::from(payload);
            let message = match tag {
                0 => Message::Request(id, payload),
                1 => Message::Answer(id, payload),
                2 => Message::Failure(id, payload),
                3 => Message::Ping(id),
                _ => Message::Pong(id),
            };
            prop_assert_eq!(Message::decode(message.encode().into()), Some(message));
        }

        #[test]
        fn garbage_is_refused_or_means_itself(garbage: Vec<u8>) {
            if let Some(message) = Message::decode(garbage.clone().into()) {
                prop_assert_eq!(message.encode(), garbage);
            }
        }
    }
}
