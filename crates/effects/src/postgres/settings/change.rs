//! Which settings take effect only when the server starts, and which of them wait for that.

use std::collections::BTreeMap;

use model::postgres::STANDBY_NEEDS_AS_MUCH;
use model::status::PendingSetting;
use serde::{Deserialize, Serialize};

use super::Settings;

/// When PostgreSQL takes over a new value of a parameter (`pg_settings.context`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Context {
    /// Never: it is compiled in.
    Internal,
    /// When the server starts.
    Postmaster,
    /// At a reload, or in a new connection.
    Reload,
}

/// The context of every parameter that a server knows.
pub type Contexts = BTreeMap<String, Context>;

/// What a standby needs at least of each of [`STANDBY_NEEDS_AS_MUCH`], by what its control file says of its primary.
pub type Floor = BTreeMap<String, i64>;

impl Settings {
    /// These settings with nothing below `floor`: a hot standby does not start with less than its primary has.
    #[must_use]
    pub fn not_below(&self, floor: &Floor, effective: &BTreeMap<String, String>) -> Self {
        let mut raised = self.clone();
        for (name, least) in floor {
            if effective.get(name).and_then(|value| number(value)).is_some_and(|value| value < *least) {
                raised.parameters.insert(name.clone(), least.to_string());
            }
        }
        raised
    }
}

/// Whether the new value of a setting is less of something that standbys must have as much of as their primary.
pub(in super::super) fn lowers(setting: &PendingSetting) -> bool {
    let wanted = setting.wanted.as_deref().and_then(number);
    STANDBY_NEEDS_AS_MUCH.contains(&setting.name.as_str())
        && matches!((wanted, number(&setting.runs)), (Some(wanted), Some(runs)) if wanted < runs)
}

/// Marks what a standby must not lower yet.
pub(in super::super) fn hold(pending: &mut [PendingSetting], floor: &Floor) {
    for setting in pending.iter_mut().filter(|setting| setting.lowers) {
        let wanted = setting.wanted.as_deref().and_then(number);
        setting.held =
            matches!((wanted, floor.get(&setting.name)), (Some(wanted), Some(least)) if wanted < *least);
    }
}

fn number(value: &str) -> Option<i64> {
    value.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(name: &str, runs: &str, wanted: Option<&str>) -> PendingSetting {
        let wanted = wanted.map(str::to_owned);
        PendingSetting { name: name.into(), runs: runs.into(), wanted, held: false, lowers: false }
    }

    #[test]
    fn only_less_of_what_standbys_need_is_lowering() {
        assert!(lowers(&setting("max_connections", "200", Some("100"))));
        assert!(!lowers(&setting("max_connections", "100", Some("200"))));
        assert!(!lowers(&setting("max_connections", "100", None)));
        assert!(!lowers(&setting("max_files_per_process", "1000", Some("500"))));
    }

    #[test]
    fn a_standby_keeps_what_its_primary_has() {
        let floor = Floor::from([("max_connections".to_owned(), 200), ("max_wal_senders".to_owned(), 10)]);
        let wanted = BTreeMap::from([("max_connections".to_owned(), "100".to_owned())]);
        let settings = Settings { parameters: wanted.clone(), ..Settings::default() };
        assert_eq!(settings.not_below(&floor, &wanted).parameters["max_connections"], "200");
        let floor = Floor::from([("max_connections".to_owned(), 100)]);
        assert_eq!(settings.not_below(&floor, &wanted), settings);
    }

    #[test]
    fn what_is_held_is_let_go_when_the_primary_has_less() {
        let mut pending = [PendingSetting { lowers: true, ..setting("max_connections", "200", Some("100")) }];
        hold(&mut pending, &Floor::from([("max_connections".to_owned(), 200)]));
        assert!(pending[0].held);
        hold(&mut pending, &Floor::from([("max_connections".to_owned(), 100)]));
        assert!(!pending[0].held);
    }
}
