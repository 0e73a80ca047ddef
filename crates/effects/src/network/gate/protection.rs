//! What protects a member's port on this machine, in words.

use std::fmt;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::netlink::Netlink;
use crate::process::find_program;

/// Whether the kernel gate can be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "protection")]
pub enum Protection {
    /// The kernel closes a member's port when its agent stops renewing.
    Full,
    /// It does not: a frozen agent beside a living server goes on answering reads until it wakes up.
    Missing {
        /// What is missing.
        because: String,
        /// What to do about it.
        hint: String,
    },
}

impl Protection {
    fn missing(because: impl Into<String>, hint: &str) -> Self {
        Self::Missing { because: because.into(), hint: hint.to_owned() }
    }
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => {
                f.write_str("the kernel closes the database's port when the agent stops renewing its lease")
            }
            Self::Missing { because, hint } => {
                write!(f, "no kernel gate before the database's port: {because}; {hint}")
            }
        }
    }
}

/// Asks the kernel for the ruleset's generation, which needs the same rights and modules as the gate does.
pub(super) fn probe() -> Protection {
    match Netlink::open().and_then(|mut netlink| netlink.generation()) {
        Ok(_) if find_program("nft").is_none() => Protection::missing(
            "the program nft is not installed",
            "install nftables (on Debian: apt-get install nftables)",
        ),
        Ok(_) => Protection::Full,
        Err(Errno::PERM | Errno::ACCESS) => Protection::missing(
            "the agent has no right to change packet filter rules",
            "run it as root or give it CAP_NET_ADMIN (systemd: AmbientCapabilities=CAP_NET_ADMIN)",
        ),
        Err(error) => Protection::missing(
            format!("the kernel has no nf_tables ({error})"),
            "load the module (modprobe nf_tables) or use a kernel with CONFIG_NF_TABLES_INET",
        ),
    }
}
