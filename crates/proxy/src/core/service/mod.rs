//! Service routes: which instance answers a request, what is repeated, and who is left out.

mod balancer;
mod budget;
pub mod head;
mod health;
mod latency;
pub mod scan;

pub use balancer::{Balancer, Counters, Key, Pick};
pub use budget::Budget;
pub use health::{Failure, Health};
pub use latency::Latency;
