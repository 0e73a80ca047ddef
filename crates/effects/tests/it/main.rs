//! Effects against the real world: real processes, real nftables in real network namespaces.

mod postgres;
mod processes;
