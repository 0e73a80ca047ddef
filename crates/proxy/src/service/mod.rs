//! Service routes: HTTP requests, balanced over instances at layer 7.

mod route;

pub(crate) use route::ServiceRoute;
