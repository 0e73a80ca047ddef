//! Database routes: PostgreSQL connections, carried at layer 4.
//!
//! The life of a connection: `visit` reads the client's first message, waits for a member that may take it, greets
//! the member and, if that fails before the member's first byte, goes back to waiting. `carry` then passes bytes
//! until either side ends or the table asks the session to leave. `cancel` serves cancel requests.

mod cancel;
mod carry;
mod pump;
mod route;
mod stalled;
mod visit;

pub(crate) use route::DatabaseRoute;
