//! The network as this node sees it: the kernel gate before a member's port, and probes of what others offer.

pub mod gate;
pub mod probe;
