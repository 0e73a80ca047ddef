//! The coordination: a linearizable store that is there while a majority of nodes can reach its leader.

use std::time::Duration;

use decide::agent::{Input, Stored, Value};
use model::DatabaseName;
use model::leadership::Leadership;
use model::time::Moment;

use decide::placement::Placement;

/// How long a majority needs for a new leader after the old one fell silent.
pub(crate) const ELECTION: Duration = Duration::from_millis(370);

/// What is agreed on.
#[derive(Debug)]
pub(crate) struct Store {
    revision: u64,
    pub(crate) leadership: Option<Stored<Leadership>>,
    pub(crate) placement: Stored<Placement>,
    /// Why an operator has paused the automation, if one has.
    pub(crate) paused: Option<String>,
    pub(crate) leader: Option<usize>,
    /// Whether no leader can be elected, although a majority is there.
    pub(crate) cannot_elect: bool,
    /// Since when the leader has been without a majority.
    pub(crate) unled_since: Option<Moment>,
}

impl Store {
    pub(crate) fn new() -> Self {
        Self {
            revision: 0,
            leadership: None,
            placement: Stored { revision: 0, value: Placement::new() },
            paused: None,
            leader: None,
            cannot_elect: false,
            unled_since: None,
        }
    }

    /// Compare-and-set. Returns the new revision.
    pub(crate) fn commit(&mut self, expected: u64, value: &Value) -> Option<u64> {
        let current = match value {
            Value::Leadership(..) => self.leadership.as_ref().map_or(0, |stored| stored.revision),
            Value::Placement(_) => self.placement.revision,
            Value::Releases(_) => return None,
        };
        if current != expected {
            return None;
        }
        self.revision += 1;
        match value {
            Value::Leadership(_, record) => {
                self.leadership = Some(Stored { revision: self.revision, value: (**record).clone() });
            }
            Value::Placement(placement) => {
                self.placement = Stored { revision: self.revision, value: placement.clone() };
            }
            // No simulated system has releases.
            Value::Releases(_) => {}
        }
        Some(self.revision)
    }

    /// What a node is told that reads everything.
    pub(crate) fn inputs(&self, database: &DatabaseName) -> Vec<Input> {
        let mut inputs = vec![];
        if let Some(stored) = &self.leadership {
            inputs.push(Input::Record { database: database.clone(), stored: stored.clone() });
        }
        if self.placement.revision > 0 {
            inputs.push(Input::Placement(self.placement.clone()));
        }
        inputs
    }
}
