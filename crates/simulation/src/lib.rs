//! A whole system in virtual time: the production decisions of every agent, with the network, the coordination, the
//! kernel gates and PostgreSQL modelled, driven by a seed.
//!
//! A run has a safety phase, in which anything may fail, and a liveness phase, in which a quorum is healed and writes
//! must flow again. After every step the invariants hold; a violation names the seed, and the same seed fails the same
//! way every time.
//!
//! What the model makes worse than the world, on purpose: a changed sync set is in force and not in force at the same
//! time until it is proved; messages and actions take random times; a crashed server keeps log that nobody acknowledged.

mod client;
pub mod clock;
mod faults;
mod invariants;
mod network;
mod postgres;
mod random;
mod script;
mod shrink;
mod store;
mod sweep;
mod system;
mod world;

pub use script::script;
pub use shrink::shrink;
pub use sweep::{Total, sweep};
pub use world::{Report, Told, Violation, World};

/// Runs one seed to its end.
///
/// # Errors
/// The first violation.
pub fn run(seed: u64) -> Result<Report, Violation> {
    World::new(&script(seed)).run()
}
