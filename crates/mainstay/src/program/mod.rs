//! Which program a node's agent and proxy run: Mainstay's own upgrade, as far as it concerns one node.
//!
//! What the service manager starts is the installed program. Where `ROOT/state/program.json` has chosen another one, it
//! becomes that one at once (execve(2), the process stays the same). The chosen ones lie in `ROOT/programs/DIGEST/`, the one
//! before stays beside it, and nothing that a package has put anywhere is touched. A program that is put in the place of the
//! installed one on purpose counts again.
//!
//! A new program is on trial until it has worked for a moment. What is on trial when the installed program is started
//! again has ended before its time, and the former one runs again; one that hangs is ended by a guard of the former program.
//!
//! ```text
//! installed --begin--> chosen, on trial --proven--> chosen
//!                           |  ended early, hung, cannot do its part
//!                           +--taken back--> former
//! ```

mod choice;
mod launch;

use std::path::{Path, PathBuf};

use effects::artefact::Artefacts;
use model::release::Digest;
use serde::{Deserialize, Serialize};

pub use choice::Choice;
pub use launch::{become_chosen, guard};
pub(crate) use launch::{become_program, is_chosen};

/// The language between agents, and between agents and the command line. It is raised by whoever changes it so that an
/// older program would misunderstand a newer one.
const PROTOCOL: u32 = 1;

/// The oldest of these languages that this program still understands.
const OLDEST: u32 = 1;

/// The name of the file of a program.
const FILE: &str = "mainstay";

/// What a program says of itself (`mainstay program`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Its version.
    pub version: String,
    /// The language it speaks.
    pub protocol: u32,
    /// The oldest language it understands.
    pub oldest: u32,
}

impl Facts {
    /// Those of this program.
    pub fn own() -> Self {
        Self { version: env!("CARGO_PKG_VERSION").to_owned(), protocol: PROTOCOL, oldest: OLDEST }
    }

    /// Why a system that runs this program cannot be brought to `next` node by node.
    ///
    /// # Errors
    /// In one sentence.
    pub fn can_become(&self, next: &Self) -> Result<(), String> {
        if next.oldest > self.protocol {
            return Err(format!(
                "{} understands no language older than {}, and {} speaks {}: go to a version between them first",
                next.version, next.oldest, self.version, self.protocol
            ));
        }
        if next.protocol < self.oldest {
            return Err(format!(
                "{} speaks language {}, and {} understands none older than {}",
                next.version, next.protocol, self.version, self.oldest
            ));
        }
        Ok(())
    }
}

/// Looks whether this program could run the node: it reads what the agent would read at its start.
///
/// # Errors
/// What it cannot read, in one sentence.
pub fn reads_state(root: &Path) -> Result<(), String> {
    if root.join("state/system.json").exists() {
        crate::install::known_system(root).map_err(|error| error.to_string())?;
    }
    let routes = root.join("state/routes.json");
    match std::fs::read(&routes) {
        Ok(text) => {
            let table: Result<model::routes::RouteTable, _> = serde_json::from_slice(&text);
            table.map(|_| ()).map_err(|error| format!("{}: {error}", routes.display()))
        }
        // Nothing was kept yet.
        Err(_) => Ok(()),
    }
}

/// The programs of a node.
pub(crate) fn store(root: &Path) -> PathBuf {
    root.join("programs")
}

/// Where the program with this digest lies.
pub(crate) fn file(root: &Path, digest: &Digest) -> PathBuf {
    store(root).join(digest.as_str()).join("files").join(FILE)
}

/// All of it has been received: it may be run from now on.
pub(crate) fn complete(store: &Artefacts, digest: &Digest) -> Result<(), effects::artefact::ArtefactError> {
    store.finish_program(digest, FILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_understand_one_another_can_replace_one_another() {
        let facts = |protocol, oldest| Facts { version: format!("0.{protocol}"), protocol, oldest };
        assert_eq!(facts(1, 1).can_become(&facts(2, 1)), Ok(()));
        assert_eq!(facts(2, 1).can_become(&facts(1, 1)), Ok(()), "back again");
        assert!(facts(1, 1).can_become(&facts(3, 2)).unwrap_err().contains("a version between them"));
        assert!(facts(3, 2).can_become(&facts(1, 1)).is_err());
    }
}
