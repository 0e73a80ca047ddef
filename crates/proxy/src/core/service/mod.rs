//! Service routes: which instance answers a request, what is repeated, and who is left out.

mod asked;
mod balancer;
mod budget;
pub mod directory;
mod endpoint;
pub mod forwarded;
pub mod head;
mod health;
mod latency;
mod queue;
pub mod scan;
mod share;
pub mod sticky;

pub use balancer::{Balancer, Choice, Counters, Key, Pick, Wish};
pub use budget::Budget;
pub use endpoint::Endpoint;
pub use health::{Failure, Health};
pub use latency::Latency;
