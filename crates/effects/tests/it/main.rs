//! Effects against the real world: real processes, real nftables in real network namespaces.
// Helpers of tests may unwrap as the tests themselves do.
#![allow(clippy::unwrap_used)]

mod containers;
mod gate;
mod jobs;
mod namespace;
mod node;
mod postgres;
mod processes;
mod roles;
mod services;
mod supervision;
