//! How agents agree on records.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What holds the records on which agents agree by compare-and-set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Coordination {
    /// The agents themselves: the nodes with [`voter`](super::Node::voter) hold the log.
    Embedded,
    /// An etcd cluster that exists already.
    Etcd(Etcd),
}

/// An etcd cluster, version 3.4 or newer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Etcd {
    /// Client URLs, `http://` or `https://`.
    pub endpoints: Vec<String>,
    /// Authorities that signed etcd's certificates (PEM). `None` only with `http://` endpoints.
    pub ca: Option<PathBuf>,
    /// The certificate shown to etcd (PEM); always together with `key`.
    pub certificate: Option<PathBuf>,
    /// The certificate's private key (PEM).
    pub key: Option<PathBuf>,
}
