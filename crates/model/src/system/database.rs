//! Databases.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::duration;
use crate::NodeName;

/// A PostgreSQL cluster of one primary and its standbys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// What runs.
    pub engine: Engine,
    /// The nodes with a copy, in the order of the file: the first one founds the database. Never empty, never a node of
    /// a witness site.
    pub members: Vec<NodeName>,
    /// PostgreSQL's own port on every member. Clients use routes, not this port.
    pub port: u16,
    /// What an acknowledged write is worth.
    pub durability: Durability,
    /// How many standbys must have flushed a commit before the client hears of it (`k` of the sync set). At least 1 and
    /// lower than the number of members under [`Durability::ZeroLoss`]; 0 under [`Durability::Async`].
    pub sync: u32,
    /// The file says that all copies may stand in one site although there are several.
    pub allow_same_site: bool,
    /// PostgreSQL settings of the user, by name; values as they go into `postgresql.conf`, unquoted. None of them is a
    /// setting that Mainstay owns.
    pub parameters: BTreeMap<String, String>,
    /// The directory of `postgres`, `initdb`, `pg_rewind` and the rest; `None`: the newest installed one is found.
    pub bin_dir: Option<PathBuf>,
    /// The operating system user PostgreSQL runs as when the agent is root.
    pub os_user: String,
    /// The application's database inside PostgreSQL.
    pub dbname: String,
    /// The role that owns `dbname` and that routes' connection strings use.
    pub owner: String,
}

/// The database engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// PostgreSQL 13 to 18.
    Postgres,
}

/// What an acknowledged write is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Durability {
    /// An acknowledged write survives any failover: writes wait rather than be at risk.
    ZeroLoss,
    /// Writes wait for nobody; a failover may lose the newest ones.
    Async {
        /// A standby that is further behind than this is not promoted without an operator's word.
        #[serde(with = "duration")]
        max_loss: Duration,
    },
}
