//! The first message of a PostgreSQL client, read before a member is chosen.
//!
//! Source: PostgreSQL documentation, "Message Formats": `StartupMessage`, `SSLRequest`, `GSSENCRequest` and
//! `CancelRequest` have no type byte but a length (which counts itself) and a code.

use thiserror::Error;

/// The longest first message taken; PostgreSQL's own limit (`MAX_STARTUP_PACKET_LENGTH`).
pub const MAX_LENGTH: usize = 10_000;
/// Bytes after which the kind and the length are known.
pub const HEAD: usize = 8;
/// The longest cancel request: header, process number and a key of up to 256 bytes (protocol 3.2).
const MAX_CANCEL: usize = 12 + 256;

const CANCEL: u32 = 80_877_102;
const TLS: u32 = 80_877_103;
const GSS: u32 = 80_877_104;
/// The first byte of a TLS handshake record: `sslnegotiation=direct` sends it instead of an `SSLRequest`.
const TLS_HANDSHAKE: u8 = 0x16;

/// What a client's first message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A session in plain text begins.
    Startup,
    /// The client asks for TLS (`SSLRequest`) or GSSAPI encryption (`GSSENCRequest`) and waits for one byte.
    Encryption,
    /// TLS without asking; nothing further can be read by us.
    DirectTls,
    /// Cancel a query of another connection.
    Cancel,
}

/// Kind and length of a first message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// What it is.
    pub kind: Kind,
    /// Its length in bytes, with the head.
    pub length: usize,
}

/// Why a first message is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// The length is impossible.
    #[error("the first message claims a length of {0} bytes; PostgreSQL clients send 8 to {MAX_LENGTH}")]
    Length(u32),
    /// The protocol is none that PostgreSQL 7.4 and later speak.
    #[error("the first message asks for protocol {}.{}; this is not a PostgreSQL client", .0 >> 16, .0 & 0xffff)]
    Protocol(u32),
}

/// Reads the head of a first message.
pub fn head(bytes: [u8; HEAD]) -> Result<Head, Malformed> {
    if bytes[0] == TLS_HANDSHAKE && bytes[1] == 3 {
        return Ok(Head { kind: Kind::DirectTls, length: HEAD });
    }
    let claimed = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let code = u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
    let length = usize::try_from(claimed).unwrap_or(usize::MAX);
    let (kind, allowed) = match code {
        CANCEL => (Kind::Cancel, 16..=MAX_CANCEL),
        TLS | GSS => (Kind::Encryption, HEAD..=HEAD),
        _ if code >> 16 == 3 => (Kind::Startup, HEAD..=MAX_LENGTH),
        _ => return Err(Malformed::Protocol(code)),
    };
    if allowed.contains(&length) { Ok(Head { kind, length }) } else { Err(Malformed::Length(claimed)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(length: u32, code: u32) -> [u8; HEAD] {
        let mut all = [0; HEAD];
        all[..4].copy_from_slice(&length.to_be_bytes());
        all[4..].copy_from_slice(&code.to_be_bytes());
        all
    }

    #[test]
    fn the_kinds_are_told_apart() {
        assert_eq!(head(bytes(41, 3 << 16)), Ok(Head { kind: Kind::Startup, length: 41 }));
        assert_eq!(head(bytes(41, 3 << 16 | 2)), Ok(Head { kind: Kind::Startup, length: 41 }));
        assert_eq!(head(bytes(8, TLS)), Ok(Head { kind: Kind::Encryption, length: 8 }));
        assert_eq!(head(bytes(8, GSS)), Ok(Head { kind: Kind::Encryption, length: 8 }));
        assert_eq!(head(bytes(16, CANCEL)), Ok(Head { kind: Kind::Cancel, length: 16 }));
        assert_eq!(head([0x16, 3, 1, 2, 0, 1, 0, 1]), Ok(Head { kind: Kind::DirectTls, length: HEAD }));
    }

    #[test]
    fn strangers_are_told_what_is_wrong() {
        assert_eq!(head(*b"GET / HT"), Err(Malformed::Protocol(0x2f20_4854)));
        assert_eq!(head(bytes(10_001, 3 << 16)), Err(Malformed::Length(10_001)));
        assert_eq!(head(bytes(9, TLS)), Err(Malformed::Length(9)));
        assert_eq!(head(bytes(8, CANCEL)), Err(Malformed::Length(8)));
        let text = Malformed::Protocol(2 << 16).to_string();
        assert_eq!(text, "the first message asks for protocol 2.0; this is not a PostgreSQL client");
    }

    proptest! {
        #[test]
        fn any_eight_bytes_are_judged_within_bounds(input in any::<[u8; HEAD]>()) {
            if let Ok(head) = head(input) {
                prop_assert!((HEAD..=MAX_LENGTH).contains(&head.length));
            }
        }

        #[test]
        fn likely_bytes_are_judged_within_bounds(length in 0_u32..20_000, code in prop_oneof![
            Just(CANCEL), Just(TLS), Just(GSS), Just(3 << 16), any::<u32>(),
        ]) {
            if let Ok(head) = head(bytes(length, code)) {
                prop_assert!((HEAD..=MAX_LENGTH).contains(&head.length));
            }
        }
    }
}
