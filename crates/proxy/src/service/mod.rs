//! Service routes: HTTP requests, balanced over instances at layer 7.
//!
//! The life of a request: `server` reads it through `guarded`, `core::service::head` checks its head, `errand` sends it to instances
//! until one answers (`attempt`, over a connection of `upstream`), and `carried` passes the answer's body on. An upgraded
//! connection becomes a `tunnel`. An instance that fails live traffic is asked by `probe` whether it works again.

mod answer;
mod attempt;
mod carried;
mod errand;
mod guarded;
mod probe;
mod route;
mod server;
mod tunnel;
mod upstream;

pub(crate) use route::ServiceRoute;
