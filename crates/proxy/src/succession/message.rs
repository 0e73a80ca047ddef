//! What predecessor and successor say to each other: a length and a JSON document each.
//!
//! The two may be of different versions: fields that one does not know are left out of account, and a format that it does
//! not know ends the attempt.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use model::routes::RouteTable;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The format of what is said here.
pub(super) const FORMAT: u32 = 1;
/// The longest message: a table of some ten thousand instances.
const LONGEST: u32 = 32 << 20;

/// The first word of the predecessor; so many listeners follow as descriptors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Legacy {
    pub(super) format: u32,
    pub(super) table: RouteTable,
    pub(super) cookies: Option<String>,
    pub(super) listeners: Vec<SocketAddr>,
}

/// What the successor says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum FromSuccessor {
    /// All is prepared.
    Ready {
        /// How long connections may stay with the predecessor, in milliseconds.
        drain_ms: u64,
    },
    /// It has a successor itself: the listeners that were kept for its end are not needed any more.
    Released,
}

/// What the predecessor says last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum FromPredecessor {
    /// Clients and agents are the successor's from now on.
    Yours {
        /// The routes in force at this moment: agents may have changed them meanwhile, and count on it.
        table: RouteTable,
    },
}

/// Says something.
pub(super) fn write(mut to: impl Write, message: &impl Serialize) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let length = u32::try_from(body.len()).ok().filter(|length| *length <= LONGEST);
    let length = length.ok_or_else(|| io::Error::other("the table is too long to be passed over"))?;
    to.write_all(&[&length.to_be_bytes(), body.as_slice()].concat())
}

/// Hears something.
pub(super) fn read<T: DeserializeOwned>(mut from: impl Read) -> io::Result<T> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length > LONGEST {
        return Err(io::Error::other(format!("a message of {length} bytes")));
    }
    let mut body = Vec::new();
    // Not reserved at once: what is announced may never come.
    from.take(u64::from(length)).read_to_end(&mut body)?;
    Ok(serde_json::from_slice(&body)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_said_is_heard_and_what_breaks_off_is_an_error() {
        let legacy = Legacy {
            format: FORMAT,
            table: RouteTable { generation: 7, ..RouteTable::default() },
            cookies: None,
            listeners: vec![([127, 0, 0, 1], 80).into()],
        };
        let mut bytes = Vec::new();
        write(&mut bytes, &legacy).unwrap();
        assert_eq!(read::<Legacy>(&bytes[..]).unwrap(), legacy);
        assert!(read::<Legacy>(&bytes[..bytes.len() - 1]).is_err());
        assert!(read::<Legacy>(&b"\xff\xff\xff\xff"[..]).is_err());
    }

    proptest! {
        /// Whatever bytes come: a message or an error, no panic, and no more room than they take.
        #[test]
        fn any_bytes_are_judged(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = read::<FromSuccessor>(&bytes[..]);
        }
    }
}
