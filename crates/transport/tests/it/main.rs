//! The crate as its users see it: real sockets on loopback, real certificates.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod hostile;
mod identity;
mod joining;
mod rpc;
mod streams;
mod support;
