//! What a change of parameters demands: nothing, a reload, or restarts in a certain order.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

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

/// In which order members restart, so that no standby has less than its primary (it would stop replaying): PostgreSQL
/// documentation, "Hot Standby", administrator's overview.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartOrder {
    /// Standbys first, one after the other, then the primary (or a switchover). Also when the order does not matter.
    StandbysFirst,
    /// The primary first: something is lowered that standbys must have at least as much of.
    PrimaryFirst,
    /// Something is raised and something lowered: restart everything twice, first with the raised values only.
    RaiseThenLower,
}

/// What a change of parameters demands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "demands")]
pub enum SettingsChange {
    /// Nothing has changed.
    Nothing,
    /// A reload on every member.
    Reload,
    /// A restart of every member.
    Restart {
        /// In this order.
        order: RestartOrder,
        /// Because of these parameters.
        because: BTreeSet<String>,
    },
}

/// What a standby must have at least as much of as its primary.
const STANDBY_NEEDS_AS_MUCH: [&str; 5] = [
    "max_connections",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
    "max_worker_processes",
];

/// What the step from `old` to `new` (both from [`super::Settings::effective`]) demands of a server with `contexts`. A
/// parameter that the server does not know (an extension's, not loaded) is taken to be reloadable.
pub fn settings_change(
    old: &BTreeMap<String, String>,
    new: &BTreeMap<String, String>,
    contexts: &Contexts,
) -> SettingsChange {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let changed: Vec<&String> = names.into_iter().filter(|name| old.get(*name) != new.get(*name)).collect();
    if changed.is_empty() {
        return SettingsChange::Nothing;
    }
    let at_start = |name: &&&String| contexts.get(**name) == Some(&Context::Postmaster);
    let because: BTreeSet<String> = changed.iter().filter(at_start).map(|name| (*name).clone()).collect();
    if because.is_empty() {
        return SettingsChange::Reload;
    }
    SettingsChange::Restart { order: order(old, new), because }
}

fn order(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> RestartOrder {
    let number = |values: &BTreeMap<String, String>, name: &str| values.get(name)?.trim().parse::<i64>().ok();
    let steps =
        STANDBY_NEEDS_AS_MUCH.iter().filter_map(|name| Some((number(old, name)?, number(new, name)?)));
    let (mut raised, mut lowered) = (false, false);
    for (before, after) in steps {
        raised |= after > before;
        lowered |= after < before;
    }
    match (raised, lowered) {
        (true, true) => RestartOrder::RaiseThenLower,
        (false, true) => RestartOrder::PrimaryFirst,
        (true | false, false) => RestartOrder::StandbysFirst,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn demand(old: &[(&str, &str)], new: &[(&str, &str)]) -> SettingsChange {
        let start = ["max_connections", "max_wal_senders", "shared_buffers"];
        let mut contexts: Contexts =
            start.iter().map(|name| ((*name).to_owned(), Context::Postmaster)).collect();
        contexts.insert("work_mem".into(), Context::Reload);
        settings_change(&values(old), &values(new), &contexts)
    }

    fn restart(order: RestartOrder, because: &[&str]) -> SettingsChange {
        SettingsChange::Restart { order, because: because.iter().map(|name| (*name).to_owned()).collect() }
    }

    #[test]
    fn a_reload_where_a_reload_suffices() {
        assert_eq!(demand(&[("work_mem", "4MB")], &[("work_mem", "4MB")]), SettingsChange::Nothing);
        assert_eq!(demand(&[("work_mem", "4MB")], &[]), SettingsChange::Reload);
        assert_eq!(demand(&[], &[("some_extension.limit", "4")]), SettingsChange::Reload);
    }

    #[test]
    fn no_standby_ever_has_less_than_its_primary() {
        let (low, high) = ([("max_connections", "100")], [("max_connections", "200")]);
        assert_eq!(demand(&low, &high), restart(RestartOrder::StandbysFirst, &["max_connections"]));
        assert_eq!(demand(&high, &low), restart(RestartOrder::PrimaryFirst, &["max_connections"]));
        let before = [("max_connections", "100"), ("max_wal_senders", "20")];
        let after = [("max_connections", "200"), ("max_wal_senders", "10")];
        let both = &["max_connections", "max_wal_senders"];
        assert_eq!(demand(&before, &after), restart(RestartOrder::RaiseThenLower, both));
        let buffers = demand(&[("shared_buffers", "1GB")], &[("shared_buffers", "128MB")]);
        assert_eq!(buffers, restart(RestartOrder::StandbysFirst, &["shared_buffers"]));
    }
}
