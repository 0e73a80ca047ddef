//! The checkers themselves are checked: they never accuse what a correct system did, and they catch what it never does.

// A test that cannot go on shall panic, in its helpers too.
#![allow(clippy::unwrap_used)]

mod brute;
mod file;
mod generate;
mod mutants;
mod mutate;
mod rng;
mod valid;
mod words;
