//! The binary's parts: the agent and what can be asked of it. `main.rs` and `cli` are the command line around them.

pub mod agent;
pub mod api;
pub mod install;
pub mod program;
