//! Events: what happened, and in one sentence why.

use serde::{Deserialize, Serialize};

use crate::NodeName;

/// How much an event matters to a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Part of normal work.
    Info,
    /// Something is wrong and is being handled.
    Warning,
    /// Service or protection is lost until someone or something acts.
    Critical,
}

/// One line of the event log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Wall clock, microseconds since the Unix epoch, of the node that saw it.
    pub at_us: i64,
    /// The node that saw or did it.
    pub node: NodeName,
    /// How much it matters.
    pub severity: Severity,
    /// What it is about: `system`, `node/e1`, `database/orders`, `service/web`, `route/public`.
    pub subject: String,
    /// What happened, in a few words.
    pub what: String,
    /// Why, in one sentence with the evidence.
    pub because: String,
}
