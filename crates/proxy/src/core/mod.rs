//! Every decision of the data plane, apart from sockets, clocks and tasks.
//!
//! Given the table, what is open now and an input, these types say what to do. They hold no socket, read no clock
//! and draw no random number: moments and draws are inputs, so that a simulator can run them unchanged.

pub mod database;
pub mod listen;
pub mod proxy_header;
pub mod service;
