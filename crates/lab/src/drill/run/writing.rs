//! The client of a drill without a drill: somebody else says what happens meanwhile.

use std::time::Duration;

use effects::clock;

use super::super::client::{Client, Ids, Target, WRITE_EVERY};
use super::super::history::WriteId;
use super::super::session::Deadlines;
use super::super::table::RunName;
use super::{DrillError, Options, SETTLE, SystemView, readers, whole};

/// How long an acknowledgement is waited for at the beginning.
const FIRST: Duration = Duration::from_secs(5);

/// A client that writes through the route and keeps account.
#[derive(Debug)]
pub struct Writing {
    /// The system when it began.
    pub before: SystemView,
    name: RunName,
    client: Client,
}

/// What became of the writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// How many were acknowledged.
    pub acknowledged: usize,
    /// How many of those are not there.
    pub lost: usize,
    /// How many are there more than once.
    pub doubled: usize,
}

impl Writing {
    /// Begins to write once nothing is missing from full redundancy, and returns when the first write was acknowledged.
    ///
    /// # Errors
    /// When the system is not redundant, or nothing can be written.
    pub async fn start(
        options: &Options,
        view: impl AsyncFn() -> Result<SystemView, String>,
    ) -> Result<Self, DrillError> {
        let before = whole(&view, SETTLE).await?;
        readers::create_table(options, &before).await.map_err(DrillError::NoLoad)?;
        let name = RunName::new();
        let target = Target {
            entries: before.routes.iter().map(|entry| entry.address).collect(),
            login: options.login.clone(),
            run: name.clone(),
            deadlines: Deadlines::default(),
            every: WRITE_EVERY,
            anew: false,
        };
        let writing = Self { before, name, client: Client::start(&options.runtime, target, Ids::default()) };
        let begun = clock::now();
        while writing.client.acknowledged() == 0 && clock::now().since(begun) < FIRST {
            tokio::time::sleep(WRITE_EVERY).await;
        }
        Ok(writing)
    }

    /// Whether a write was acknowledged within this time.
    pub fn flows(&self, within: Duration) -> bool {
        clock::now().since(self.client.last_acknowledged()) < within
    }

    /// Ends, looks for every acknowledged write through the route, and removes the table.
    ///
    /// # Errors
    /// Why it cannot be told.
    pub async fn stop(self, options: &Options) -> Result<Account, DrillError> {
        let writes = self.client.stop().await.map_err(DrillError::NoLoad)?;
        let acknowledged: Vec<WriteId> =
            writes.iter().filter(|write| write.server().is_some()).map(|write| write.id).collect();
        let rows =
            readers::read_route(options, &self.before, &self.name).await.map_err(DrillError::NoLoad)?;
        readers::remove_table(options, &self.before).await.map_err(DrillError::NoLoad)?;
        Ok(Account {
            acknowledged: acknowledged.len(),
            lost: acknowledged.iter().filter(|id| !rows.contains_key(*id)).count(),
            doubled: rows.values().filter(|times| **times > 1).count(),
        })
    }
}
