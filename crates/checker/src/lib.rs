//! What clients saw, and what it proves.
//!
//! A history is a list of operations, each with the moment it began and with its end: acknowledged, surely failed, or
//! unknown. A checker says [`Verdict::Valid`], [`Verdict::Violated`] with the evidence in words, or
//! [`Verdict::Undecided`] with the reason: never "valid" because it gave up or because nobody looked.
//!
//! - [`set`]: unique values are added and read at the end: lost, doubled, revived.
//! - [`bank`]: money moves between accounts in transactions: the sum stays, and every read is explained.
//! - [`append`]: transactions over lists: which dependencies between them form a cycle that the isolation level forbids
//!   (after Kingsbury and Alvaro, "Elle: Inferring Isolation Anomalies from Experimental Observations").
//! - [`register`]: linearizability of registers with compare-and-set (after Wing and Gong, and Lowe, "Testing for
//!   linearizability").
//!
//! [`file`](mod@file) keeps histories as text, so that a verdict can be had again by somebody else. Pure: no clock, no
//! I/O, no randomness; bounds are counted in steps.

pub mod append;
pub mod bank;
pub mod file;
pub mod register;
pub mod set;

mod history;
mod verdict;

pub use history::{Operation, Outcome};
pub use verdict::{Anomaly, Verdict, Violation};
