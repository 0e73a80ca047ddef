//! The kinds of workloads.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// A kind of workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Rows that must be there once: what the drill's own client writes.
    Set,
    /// Money that moves between accounts.
    Bank,
    /// Transactions over lists.
    Append,
    /// Registers with compare-and-set.
    Register,
}

/// A name that is no workload's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is none of {names}", names = Kind::ALL.map(Kind::name).join(", "))]
pub struct UnknownKind(String);

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Set, Self::Bank, Self::Append, Self::Register];

    /// Its name on the command line and in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Bank => "bank",
            Self::Append => "append",
            Self::Register => "register",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(name: &str) -> Result<Self, UnknownKind> {
        let found = Self::ALL.into_iter().find(|kind| kind.name() == name);
        found.ok_or_else(|| UnknownKind(name.to_owned()))
    }
}
