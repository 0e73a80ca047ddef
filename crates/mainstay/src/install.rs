//! What an installer does on each node before its agent is started: the node's certificate.

use std::net::IpAddr;
use std::path::Path;

use model::{NodeName, SystemName};
use transport::{Authority, Identity};

/// Where the system's authority lies below the directory of a lab.
const AUTHORITY: &str = "authority";

/// Gives a node its certificate, signed by the authority in `directory`, which is made when it is not there. A node that
/// has one keeps it.
///
/// # Errors
/// In words, when files cannot be read or written.
pub fn identity(
    directory: &Path,
    system: &SystemName,
    node: &NodeName,
    addresses: &[IpAddr],
    root: &Path,
) -> Result<(), String> {
    let (authority, identity) = (directory.join(AUTHORITY), root.join("state/identity"));
    if Identity::exists(&identity) {
        return Ok(());
    }
    let authority = match Authority::exists(&authority) {
        true => Authority::load(&authority),
        false => Authority::create(&authority, system),
    };
    let credentials = authority
        .and_then(|authority| authority.issue(node, addresses))
        .map_err(|error| error.to_string())?;
    credentials.write(&identity).map_err(|error| error.to_string())
}
