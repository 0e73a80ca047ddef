//! What makes a machine a node of a system before its agent runs: the founding of the first one, and the joining of others.
//!
//! The system's authority lies on the node that founded it and nowhere else (`state/authority`, mode 0700), with the book
//! of the tokens that it gave out. A node that joins has the authority's certificate, its own, and the system file.

mod desk;
mod unit;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use model::system::System;
use model::{NodeName, SystemName};
use transport::{Authority, AuthorityError, Identity, IdentityError, JoinError, JoinToken, Joined};

use crate::agent::SystemRecord;

pub(crate) use desk::Desk;
pub use unit::{UNIT, unit};

/// Where the system's authority lies below the directory of a lab, or below a node's `state`.
pub(crate) const AUTHORITY: &str = "authority";

/// How long a whole join may take.
const JOIN_LIMIT: Duration = Duration::from_secs(15);

/// Time between two attempts to join.
const JOIN_PAUSE: Duration = Duration::from_millis(500);

/// Why a machine did not become a node.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// It is a node already.
    #[error("{} is the directory of a node already", .0.display())]
    Occupied(PathBuf),
    /// No system was founded or joined here.
    #[error("{} is not the directory of a node", .0.display())]
    NoNode(PathBuf),
    /// The file does not have the node.
    #[error("the system file has no node `{node}`; it has {}", known.join(", "))]
    UnknownNode {
        /// The name.
        node: NodeName,
        /// Those that it has.
        known: Vec<String>,
    },
    /// The authority cannot be made, read or used.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The node's certificate cannot be stored.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The system did not let the node in.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The other node told something else than a system file.
    #[error(
        "{address} sent a system file that cannot be used: {reason}; use the same version of mainstay everywhere"
    )]
    SystemFile {
        /// Who was asked.
        address: SocketAddr,
        /// What is wrong with it.
        reason: String,
    },
    /// The authority belongs to another system than the node.
    #[error(
        "this authority is that of `{found}`, this node belongs to `{expected}`, or to another system of that name"
    )]
    OtherAuthority {
        /// The node's system.
        expected: SystemName,
        /// The authority's.
        found: SystemName,
    },
    /// A file.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        source: std::io::Error,
    },
    /// The machine has no random numbers.
    #[error("no token can be made: this machine has no random numbers")]
    NoRandom,
}

fn state(root: &Path, name: &str) -> PathBuf {
    root.join("state").join(name)
}

fn in_file(path: &Path) -> impl FnOnce(std::io::Error) -> InstallError {
    let path = path.to_owned();
    move |source| InstallError::File { path, source }
}

/// Gives a node its certificate, signed by the authority in `directory`, which is made when it is not there. A node that
/// has one keeps it while it is good and young.
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
    certify(&directory.join(AUTHORITY), system, node, addresses, root).map_err(|error| error.to_string())
}

fn certify(
    authority: &Path,
    system: &SystemName,
    node: &NodeName,
    addresses: &[IpAddr],
    root: &Path,
) -> Result<(), InstallError> {
    let identity = state(root, "identity");
    let is_young = |known: Identity| !known.renewal_due(SystemTime::now());
    if Identity::exists(&identity) && Identity::load(&identity, system).is_ok_and(is_young) {
        return Ok(());
    }
    let authority = match Authority::exists(authority) {
        true => Authority::load(authority)?,
        false => Authority::create(authority, system)?,
    };
    if authority.system() != system {
        let found = authority.system().clone();
        return Err(InstallError::OtherAuthority { expected: system.clone(), found });
    }
    Ok(authority.issue(node, addresses)?.write(&identity)?)
}

/// The system file that the node in `root` has seen in force last.
///
/// # Errors
/// When there is no node, or the file cannot be read.
pub fn known_system(root: &Path) -> Result<System, InstallError> {
    let path = state(root, "system.json");
    let bytes = match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(InstallError::NoNode(root.to_owned()));
        }
        read => read.map_err(in_file(&path))?,
    };
    let record: SystemRecord =
        serde_json::from_slice(&bytes).map_err(std::io::Error::other).map_err(in_file(&path))?;
    Ok(record.system)
}

fn keep_system(root: &Path, record: &SystemRecord) -> Result<(), InstallError> {
    let path = state(root, "system.json");
    let directory = state(root, "");
    std::fs::create_dir_all(&directory).map_err(in_file(&directory))?;
    let bytes = serde_json::to_vec_pretty(record).map_err(std::io::Error::other).map_err(in_file(&path))?;
    effects::files::write_atomic(&path, &bytes, 0o600).map_err(in_file(&path))
}

/// Founds `system` on its first node: makes the authority, the node's certificate, and keeps the system file. What an
/// interrupted run began is completed.
///
/// # Errors
/// See [`InstallError`].
pub fn found(root: &Path, system: &System, node: &NodeName) -> Result<(), InstallError> {
    if Identity::exists(&state(root, "identity")) {
        return Err(InstallError::Occupied(root.to_owned()));
    }
    let Some(described) = system.nodes.get(node) else {
        let known = system.nodes.keys().map(ToString::to_string).collect();
        return Err(InstallError::UnknownNode { node: node.clone(), known });
    };
    keep_system(root, &SystemRecord { generation: 0, system: system.clone() })?;
    let addresses: Vec<IpAddr> = described.lines.values().copied().collect();
    certify(&state(root, AUTHORITY), &system.name, node, &addresses, root)
}

/// Gives out a token that lets one node in, for `lifetime`.
///
/// # Errors
/// When this node does not hold the authority, or the book of tokens cannot be changed.
pub fn token(
    root: &Path,
    only_for: Option<&NodeName>,
    lifetime: Duration,
) -> Result<JoinToken, InstallError> {
    let system = known_system(root)?;
    if let Some(node) = only_for.filter(|node| !system.nodes.contains_key(*node)) {
        let known = system.nodes.keys().map(ToString::to_string).collect();
        return Err(InstallError::UnknownNode { node: node.clone(), known });
    }
    let authority = Authority::load(&state(root, AUTHORITY))?.fingerprint();
    desk::change_book(&state(root, AUTHORITY), |book| {
        book.issue(authority, only_for.cloned(), lifetime, SystemTime::now()).ok_or(InstallError::NoRandom)
    })
}

/// Lets this machine become `node` of the system of `token`, by asking the node at `address`.
///
/// # Errors
/// See [`InstallError`]; the machine is then no node, and the same token may be tried again until it was used.
pub async fn join(
    root: &Path,
    token: &JoinToken,
    node: &NodeName,
    address: SocketAddr,
) -> Result<System, InstallError> {
    let identity = state(root, "identity");
    if Identity::exists(&identity) {
        return Err(InstallError::Occupied(root.to_owned()));
    }
    let joined = ask_to_join(address, token, node, &identity).await?;
    let unusable = |reason: String| InstallError::SystemFile { address, reason };
    let record: SystemRecord =
        serde_json::from_str(&joined.system).map_err(|error| unusable(error.to_string()))?;
    if record.system.name != joined.identity.system() || !record.system.nodes.contains_key(node) {
        return Err(unusable(format!("it does not describe {node} of {}", joined.identity.system())));
    }
    keep_system(root, &record)?;
    joined.keep()?;
    Ok(record.system)
}

/// Asks, and asks again while only the connection failed: the other machine may be too busy to answer in time. The same
/// request may be repeated.
async fn ask_to_join(
    address: SocketAddr,
    token: &JoinToken,
    node: &NodeName,
    identity: &Path,
) -> Result<Joined, JoinError> {
    let end = tokio::time::Instant::now() + JOIN_LIMIT;
    loop {
        match transport::join(address, token, node, identity, JOIN_LIMIT).await {
            Err(JoinError::Handshake { .. } | JoinError::Broken { .. })
                if tokio::time::Instant::now() < end =>
            {
                tokio::time::sleep(JOIN_PAUSE).await;
            }
            decided => return decided,
        }
    }
}

/// The authority with its private key, for a backup.
///
/// # Errors
/// When this node does not hold it.
pub fn export_authority(root: &Path) -> Result<String, InstallError> {
    Ok(Authority::export(&state(root, AUTHORITY))?)
}

/// Lets this node give out tokens too, or again, with an authority that was exported.
///
/// # Errors
/// When it is not the authority of this node's system, or this node has one.
pub fn import_authority(root: &Path, text: &str) -> Result<(), InstallError> {
    let expected = known_system(root)?.name;
    let identity = Identity::load(&state(root, "identity"), &expected)?;
    // Looked at elsewhere first: a wrong one must not stay.
    let trial = state(root, "authority-import");
    drop(std::fs::remove_dir_all(&trial));
    let authority = Authority::import(&trial, text);
    drop(std::fs::remove_dir_all(&trial));
    let authority = authority?;
    if authority.fingerprint() != identity.authority() {
        return Err(InstallError::OtherAuthority { expected, found: authority.system().clone() });
    }
    Authority::import(&state(root, AUTHORITY), text)?;
    Ok(())
}

#[cfg(test)]
mod tests;
