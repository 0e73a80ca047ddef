//! Facts about this node: its disks, memory, load, kernel, and what we may do on it.

mod disk;
mod machine;
mod priority;

pub use disk::{Disk, DiskWatch};
pub use machine::{Cgroups, Load, Memory, NodeFacts};
pub use priority::go_first;
