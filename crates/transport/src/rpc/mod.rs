//! Requests and answers, many at once over one connection.
//!
//! Each frame is a tag, an id and a payload. Requests are answered in any order; pings are answered at once by the
//! reading side, so that a slow request is told from a dead connection.

mod client;
mod pool;
mod server;
mod wire;

pub use client::{RpcClient, RpcError, RpcTarget};
pub use pool::RpcPool;
pub use server::{MAX_REQUESTS_IN_WORK, serve_rpc};
