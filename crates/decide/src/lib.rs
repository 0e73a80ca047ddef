//! Every decision, one file per question. Pure functions: no clock, no randomness, no I/O, no async, no logging.
//!
//! A decision is given what is known (with the age of the evidence) and the time, and answers with what to do and one
//! sentence that says why. The same code runs in the agent and in the simulator.

pub mod agent;
pub mod jobs;
pub mod leadership;
pub mod lease;
pub mod member;
pub mod patience;
pub mod placement;
pub mod release;
pub mod route;
pub mod scale;
pub mod silence;
pub mod start_order;
pub mod story;
pub mod view;

#[cfg(test)]
mod testkit;
