//! The words of the domain: the system file, the records that agents agree on, what they tell each other, and events.
//!
//! Nothing here decides and nothing here touches the world. Every type that crosses a process or is stored
//! serialises to readable JSON.

pub mod event;
pub mod jobs;
pub mod leadership;
pub mod name;
pub mod postgres;
pub mod release;
pub mod routes;
pub mod script;
pub mod status;
pub mod system;
pub mod time;
pub mod upkeep;

pub use name::{DatabaseName, JobName, LineName, NodeName, RouteName, ServiceName, SiteName, SystemName};
