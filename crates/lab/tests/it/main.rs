//! The lab with real namespaces, links and processes. Root is needed; what a node runs is a stand-in that answers.

#![allow(clippy::unwrap_used, reason = "what tests share fails as tests do")]

mod adapt;
mod clocks;
mod disks;
mod faults;
mod leftovers;
mod limits;
mod links;
mod loopback;
mod network;
mod postgres;
mod support;
mod twice;
