//! The proxy with real sockets, real PostgreSQL servers and real HTTP instances on loopback.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail loudly, as the tests themselves may")]

mod agent;
mod carriage;
mod choice;
mod client;
mod database;
mod drain;
mod external;
mod faults;
mod frames;
mod hardening;
mod http;
mod http2;
mod instance_tls;
mod listen;
mod peer;
mod postgres;
mod rest;
mod succession;
mod tcp;
mod tls;
