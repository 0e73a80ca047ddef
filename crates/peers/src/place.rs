//! Where what belongs to one node lies.

use std::net::Ipv4Addr;
use std::path::Path;

/// A node as the peers' configuration needs it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// The node's name.
    pub(crate) name: &'a str,
    /// Its address.
    pub(crate) address: Ipv4Addr,
    /// A directory of the node's own for configuration and small data.
    pub(crate) directory: &'a Path,
    /// The data directory of PostgreSQL.
    pub(crate) data: &'a Path,
    /// PostgreSQL's programs.
    pub(crate) bin: &'a Path,
}
