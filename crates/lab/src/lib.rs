//! The lab: all nodes of a system file on one machine, with the same agent binary as on real ones.
//!
//! [`Lab::up`] makes the nodes, [`Lab::down`] removes every trace of them. As root each node has network, mount, process,
//! IPC and host name namespaces of its own, and the file's real addresses on its own lines; otherwise nodes share the
//! machine's loopback. Faults are methods of [`Lab`] (module [`fault`]); outside clients run in
//! [`Lab::client_runtime`] or as programs by [`Lab::spawn_as_client`].

mod adapt;
mod cgroup;
mod clocks;
mod containers;
mod deploy;
mod down;
pub mod drill;
mod error;
pub mod fault;
mod forward;
mod freezer;
mod home;
mod lab;
mod listeners;
mod loopback;
mod manifest;
mod namespace;
mod network;
mod node;
mod options;
mod preflight;
mod process;
mod programs;
mod role;
mod signals;
mod up;
mod volume;
pub mod workload;

pub use down::Data;
pub use effects::process::ProcessId;
pub use error::{LabError, Problem, Result};
pub use forward::Forward;
pub use home::standard_base;
pub use lab::{ClientRuntime, Lab, Summary};
pub use manifest::{Line, Manifest, Mode, Node, Phase};
pub use namespace::NetworkNamespace;
pub use options::{Check, Ground, Options, Prepare};
pub use role::lab_node;
