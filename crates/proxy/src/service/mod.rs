//! Service routes: HTTP requests, balanced over instances at layer 7.
//!
//! The life of a request: it comes through an `entrance`, which several routes may share; `server` reads it through
//! `guarded` (and `tls`), `core::service::head` checks its head, `core::service::directory` finds its route, `errand`
//! sends it to instances until one answers (`attempt`, over a connection of `upstream`, its body as it is `arriving`),
//! and `carried` passes the answer's body on. An upgraded connection becomes a `tunnel`.
//! An instance that fails live traffic is asked by `probe` whether it works again. A connection to a service that
//! speaks neither version of HTTP goes to `stream` instead.

mod answer;
mod arriving;
mod attempt;
mod carried;
mod entrance;
mod errand;
mod furnishing;
mod guarded;
mod line;
mod probe;
mod route;
mod server;
mod severed;
mod stream;
mod tls;
mod trust;
mod tunnel;
mod upstream;

pub(crate) use entrance::{Entrance, House};
pub(crate) use route::ServiceRoute;
