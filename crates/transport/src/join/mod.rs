//! How a node without a certificate gets one.
//!
//! A running node makes a [`JoinToken`]: the authority's fingerprint, a secret that counts once, an end. The new node
//! finds by the fingerprint that it talks to the right system, sends the secret, its name and a certificate request
//! over TLS, and gets its certificate. Its key never leaves it.

mod attempts;
mod book;
mod client;
mod server;
mod token;
mod wire;

use std::net::SocketAddr;

use model::NodeName;

pub(crate) use attempts::FailedAttempts;
pub use book::{JoinRefusal, TokenBook};
pub use client::{JoinError, Joined, join};
pub(crate) use server::serve;
pub use token::{JoinSecret, JoinToken, TokenError};
pub use wire::{MAX_JOIN_ANSWER, MAX_JOIN_FRAME};

/// A stranger's request to become a node, parsed and with a valid name, but not yet proved to hold a good token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRequest {
    /// The secret of its token.
    pub secret: JoinSecret,
    /// The node it wants to be.
    pub node: NodeName,
    /// Its certificate request (PEM, PKCS#10), for [`crate::Authority::sign_csr`].
    pub csr_pem: String,
    /// Where it comes from.
    pub from: SocketAddr,
}

/// The answer to a request that was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// The node's certificate.
    pub certificate_pem: String,
    /// What the node needs to know of the system; carried as it is.
    pub system: String,
}

/// Decides who may join: redeems the token and signs the certificate.
pub trait JoinDesk: Send + Sync {
    /// Grants or refuses; the words of a refusal are shown to the person at the new node. Runs on a thread of its own
    /// and may block (for the agreement of other nodes, for a file).
    fn admit(&self, request: &JoinRequest) -> Result<Admission, String>;
}

impl<F: Fn(&JoinRequest) -> Result<Admission, String> + Send + Sync> JoinDesk for F {
    fn admit(&self, request: &JoinRequest) -> Result<Admission, String> {
        self(request)
    }
}
