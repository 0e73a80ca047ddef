//! The only code that touches the world: processes, PostgreSQL, services, the kernel gate, files and clocks.
//!
//! Effects carry out what was decided and report facts; they decide nothing. Whatever may hang (a disk, a tool, a
//! program's start) runs on a thread or in a process that can be abandoned, never on a worker of the async runtime.

#![deny(unsafe_code)]

pub mod artefact;
pub mod clock;
pub mod disposable;
pub mod files;
pub mod job;
pub mod network;
pub mod node;
pub mod postgres;
pub mod process;
pub mod service;

mod sys;
