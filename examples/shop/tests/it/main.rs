//! The shop as its customers see it: the real program on a real PostgreSQL.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod load;
mod postgres;
mod serving;
mod shop;
