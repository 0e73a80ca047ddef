//! Who may talk to whom, and how messages travel: the system's own authority, mutual TLS, frames, requests.
//!
//! ```text
//! Authority --issues--> Credentials --loaded as--> Identity
//! Identity + Listener::bind  -> Accepted { peer, kind, connection }      (mutual TLS, both sides proved)
//! Identity + dial            -> Connection -> FrameSender, FrameReceiver
//! Connection + serve_rpc     <- RpcClient                                (requests multiplexed by id)
//! JoinToken + join           -> Joined -> Identity                       (TLS, server proved by fingerprint)
//! ```
//!
//! Nothing is parsed from a peer before its certificate is verified; the one exception is the join request, which is
//! bounded to [`join::MAX_JOIN_FRAME`] bytes and rate-limited. Every length, wait and queue has a bound.

pub mod authority;
pub mod certificate;
pub mod dial;
pub mod files;
pub mod frame;
mod hex;
pub mod identity;
pub mod join;
pub mod listener;
pub mod rpc;
mod socket;
pub mod stream;
mod tls;

pub use authority::{Authority, AuthorityError};
pub use certificate::{Fingerprint, NodeCertificate};
pub use dial::{DialError, dial};
pub use frame::{Connection, FrameError, FrameReceiver, FrameSender};
pub use identity::{Credentials, Identity, IdentityError};
pub use join::{Admission, JoinDesk, JoinError, JoinRequest, JoinToken, Joined, TokenBook, join};
pub use listener::{Accepted, ListenError, Listener};
pub use rpc::{RpcClient, RpcError, RpcPool, RpcTarget, serve_rpc};
pub use stream::StreamKind;
pub use tls::PeerFault;

/// Makes aws-lc-rs the process's cryptography; call it on the first line of `main`.
///
/// This crate names its provider everywhere and works without it. Other libraries ask rustls for the process default,
/// and rustls panics when two providers are compiled in and none was installed.
pub fn install_crypto_provider() {
    // An Err says that some provider is installed already: a second call changes nothing.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
