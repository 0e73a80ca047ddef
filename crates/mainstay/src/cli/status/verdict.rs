//! How is the system? Computed from what its agents say and nothing else.

mod certificates;
mod external;
mod programs;
mod protection;
mod supervision;
mod troubles;
mod writes;

use std::collections::BTreeMap;

use model::DatabaseName;
use serde::Serialize;

use super::view::View;
pub(crate) use programs::PROGRAMS;
pub(crate) use protection::Protection;
pub(crate) use writes::Writes;

/// How much works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Level {
    /// Everything, with all the protection the file asks for.
    Healthy,
    /// Everything a client needs, but with less protection or less of it than the file asks for.
    Degraded,
    /// A client of a database or service is not served.
    Down,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Verdict {
    /// In one word.
    pub(crate) level: Level,
    /// In one sentence, the most important thing first.
    pub(crate) sentence: String,
    /// What is wrong, the worst first.
    pub(crate) troubles: Vec<Trouble>,
    /// What else may fail.
    pub(crate) protection: Protection,
    /// Whether writes flow.
    pub(crate) writes: BTreeMap<DatabaseName, Writes>,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Trouble {
    /// How bad it is.
    pub(crate) level: Level,
    /// What it is about: `system`, `node/e1`, `database/orders`, `service/web`.
    pub(crate) subject: String,
    /// What is wrong.
    pub(crate) what: String,
    /// What is being done about it, or why nothing is.
    pub(crate) doing: Option<String>,
    /// What a person can do.
    pub(crate) unblock: Option<String>,
}

impl Verdict {
    /// Judges what is known.
    pub(crate) fn of(view: &View) -> Self {
        let names = view.system.databases.keys();
        let writes: BTreeMap<_, _> = names.map(|name| (name.clone(), Writes::of(view, name))).collect();
        let troubles = troubles::all(view, &writes);
        let protection = Protection::of(view, &writes);
        let level = troubles.iter().map(|trouble| trouble.level).max().unwrap_or(Level::Healthy);
        let sentence = match troubles.as_slice() {
            [] => protection.all_works(),
            [one] => one.what.clone(),
            [first, rest @ ..] => format!("{} (and {} more)", first.what, rest.len()),
        };
        Self { level, sentence, troubles, protection, writes }
    }
}

impl Level {
    /// The word for it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Down => "down",
        }
    }
}

#[cfg(test)]
mod tests;
