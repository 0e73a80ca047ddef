//! PostgreSQL settings of the user, and those that are not the user's.

use std::collections::BTreeMap;
use std::ops::Range;

use super::super::Durability;
use super::super::problem::Code;
use super::super::read::quoted;
use super::super::read::tables::DatabaseTable;
use super::Check;

/// Settings that Mainstay itself controls, with the reason.
const OWNED: &[(&str, &str)] = &[
    ("allow_system_table_mods", "a change of system tables breaks replication in ways nothing can repair"),
    ("archive_cleanup_command", "the archive belongs to `[backups]`"),
    ("archive_command", "the archive belongs to `[backups]`"),
    ("archive_library", "the archive belongs to `[backups]`"),
    ("archive_mode", "the archive belongs to `[backups]`"),
    ("cluster_name", "standbys are told apart by it"),
    ("config_file", "the configuration is made from this file"),
    ("data_directory", "each node has one place for data"),
    ("default_transaction_read_only", "it keeps writers away from a primary that hands over"),
    ("external_pid_file", "the postmaster is followed by its process, not by a file"),
    ("hba_file", "who may connect is made from this file"),
    ("hot_standby", "standbys are judged by what they answer"),
    ("ident_file", "who may connect is made from this file"),
    ("include", "the configuration is made from this file alone"),
    ("include_dir", "the configuration is made from this file alone"),
    ("include_if_exists", "the configuration is made from this file alone"),
    ("listen_addresses", "members must reach each other, and the gate decides who reaches a member"),
    ("log_destination", "the log is captured: see `mainstay logs`"),
    ("logging_collector", "the log is captured: see `mainstay logs`"),
    ("port", "it is the key `port` of the database"),
    ("primary_conninfo", "it decides which primary a standby follows"),
    ("primary_slot_name", "each member has a slot of its own"),
    ("promote_trigger_file", "only a proven failover promotes"),
    ("recovery_end_command", "recovery is part of rejoining and restoring"),
    ("recovery_min_apply_delay", "a standby that waits on purpose cannot take over in time"),
    ("recovery_target", "recovery is part of rejoining and restoring"),
    ("recovery_target_action", "recovery is part of rejoining and restoring"),
    ("recovery_target_inclusive", "recovery is part of rejoining and restoring"),
    ("recovery_target_lsn", "recovery is part of rejoining and restoring"),
    ("recovery_target_name", "recovery is part of rejoining and restoring"),
    ("recovery_target_time", "recovery is part of rejoining and restoring"),
    ("recovery_target_timeline", "recovery is part of rejoining and restoring"),
    ("recovery_target_xid", "recovery is part of rejoining and restoring"),
    ("restart_after_crash", "the supervisor decides whether a crashed primary restarts or is replaced"),
    ("restore_command", "the archive belongs to `[backups]`"),
    ("ssl", "certificates come from the system's own authority"),
    ("ssl_ca_file", "certificates come from the system's own authority"),
    ("ssl_cert_file", "certificates come from the system's own authority"),
    ("ssl_key_file", "certificates come from the system's own authority"),
    ("superuser_reserved_connections", "agents need connections also when clients use all of theirs"),
    ("synchronous_standby_names", "it is the sync set: see `members` and `sync`"),
    ("unix_socket_directories", "agents reach their member through it"),
    ("update_process_title", "processes are told apart by their titles"),
    ("wal_log_hints", "a former primary could not be rewound without it"),
    ("wal_receiver_status_interval", "it bounds how soon a standby's progress is known"),
    ("wal_receiver_timeout", "it bounds how soon a dead primary is noticed"),
    ("wal_retrieve_retry_interval", "a promotion waits for it"),
    ("wal_sender_timeout", "it bounds how soon a dead standby is noticed"),
];

/// Settings of PostgreSQL 13 to 18 that only take effect when the server starts (context `postmaster` in pg_settings).
const RESTART: &[&str] = &[
    "autovacuum_freeze_max_age",
    "autovacuum_max_workers",
    "autovacuum_multixact_freeze_max_age",
    "autovacuum_worker_slots",
    "bonjour",
    "bonjour_name",
    "commit_timestamp_buffers",
    "data_sync_retry",
    "dynamic_shared_memory_type",
    "event_source",
    "huge_page_size",
    "huge_pages",
    "io_max_combine_limit",
    "io_max_concurrency",
    "io_method",
    "jit_provider",
    "max_active_replication_origins",
    "max_connections",
    "max_files_per_process",
    "max_locks_per_transaction",
    "max_logical_replication_workers",
    "max_notify_queue_pages",
    "max_pred_locks_per_transaction",
    "max_prepared_transactions",
    "max_replication_slots",
    "max_wal_senders",
    "max_worker_processes",
    "min_dynamic_shared_memory",
    "multixact_member_buffers",
    "multixact_offset_buffers",
    "notify_buffers",
    "old_snapshot_threshold",
    "reserved_connections",
    "serializable_buffers",
    "shared_buffers",
    "shared_memory_type",
    "shared_preload_libraries",
    "subtransaction_buffers",
    "track_activity_query_size",
    "track_commit_timestamp",
    "transaction_buffers",
    "unix_socket_group",
    "unix_socket_permissions",
    "wal_buffers",
    "wal_decode_buffer_size",
    "wal_level",
];

/// Fewer WAL senders or slots than this leave no room for a copy being made while all standbys stream.
const FEWEST_SENDERS: u32 = 10;

/// Why the user may not set `name`; `None` if the user may.
pub fn owned_parameter(name: &str) -> Option<&'static str> {
    OWNED.iter().find(|(owned, _)| *owned == name).map(|(_, why)| *why)
}

/// Whether a change of the setting `name` takes effect only when PostgreSQL starts. Settings of extensions are not
/// known here; PostgreSQL itself says of them `pending_restart`.
pub fn needs_restart(name: &str) -> bool {
    RESTART.contains(&name)
}

impl Check<'_, '_> {
    pub(super) fn parameters(
        &mut self,
        database: &str,
        table: &DatabaseTable,
        durability: Durability,
    ) -> BTreeMap<String, String> {
        let mut parameters = BTreeMap::new();
        for entry in table.parameters.given().into_iter().flat_map(|section| &section.value.0) {
            let name = entry.name.to_ascii_lowercase();
            self.check_parameter_name(&name, &entry.span, database);
            let Some(value) = &entry.body else {
                continue;
            };
            self.check_parameter_value(&name, &value.0, &entry.span, durability);
            if parameters.insert(name.clone(), value.0.clone()).is_some() {
                self.error(
                    Code::DuplicateName,
                    &entry.span,
                    format!("the setting `{name}` stands in the file twice"),
                )
                .why("PostgreSQL does not tell upper from lower case in the names of settings")
                .hint("remove one of them");
            }
        }
        parameters
    }

    fn check_parameter_name(&mut self, name: &str, span: &Range<usize>, database: &str) {
        if let Some(why) = owned_parameter(name) {
            self.error(
                Code::OwnedParameter,
                span,
                format!("Mainstay itself controls `{name}` of `{database}`"),
            )
            .why(why)
            .hint("remove it");
        } else if !is_parameter(name) {
            self.error(Code::InvalidParameter, span, format!("{} is not the name of a setting", quoted(name)))
                .why("names of settings are letters, digits and `_`; those of an extension have its name and a dot in front")
                .hint("`SHOW ALL` in psql lists every setting");
        }
    }

    fn check_parameter_value(
        &mut self,
        name: &str,
        value: &str,
        span: &Range<usize>,
        durability: Durability,
    ) {
        if value.chars().any(char::is_control) {
            self.error(
                Code::InvalidParameter,
                span,
                format!("the value of `{name}` has a line break or control character"),
            )
            .why("a value stands on one line of the configuration")
            .hint("write it on one line");
        }
        let Some(why) = unsafe_value(name, value, durability) else {
            return;
        };
        let hint = match name {
            "synchronous_commit" => {
                "remove it; one transaction may still choose less with `SET LOCAL synchronous_commit`"
            }
            _ => "remove it",
        };
        self.error(Code::UnsafeParameter, span, format!("`{name} = {value}` breaks the promised durability"))
            .why(why)
            .hint(hint);
    }
}

/// Whether `synchronous_commit = value` lets a commit be acknowledged before a standby has flushed it.
pub fn acknowledges_early(value: &str) -> bool {
    !is_on(value) && !value.trim().eq_ignore_ascii_case("remote_apply")
}

/// Why `name = value` cannot keep what the durability promises.
fn unsafe_value(name: &str, value: &str, durability: Durability) -> Option<&'static str> {
    let few = value.parse::<u32>().is_ok_and(|count| count < FEWEST_SENDERS);
    match name {
        "fsync" if !is_on(value) => Some("a power loss would destroy the copy"),
        "full_page_writes" if !is_on(value) => {
            Some("a power loss would damage pages, and a former primary could not be rewound")
        }
        "data_sync_retry" if is_on(value) => {
            Some("after a failed flush the data may be gone although the next flush succeeds")
        }
        "synchronous_commit" if acknowledges_early(value) && durability == Durability::ZeroLoss => Some(
            "a write would be acknowledged before a standby has flushed it, and a failover could lose it",
        ),
        "wal_level" if !matches!(value, "replica" | "logical") => Some("standbys need at least `replica`"),
        "max_wal_senders" | "max_replication_slots" if few => {
            Some("every member needs one, and so does every copy being made; 10 is the least")
        }
        _ => None,
    }
}

/// Whether PostgreSQL reads `value` as true: it takes any beginning of the words that no other word shares.
fn is_on(value: &str) -> bool {
    let value = value.trim().to_ascii_lowercase();
    value == "1" || ["true", "yes", "on"].iter().any(|word| starts_word(word, &value))
}

/// Whether `value` is a beginning of `word` that no other word of a boolean shares.
fn starts_word(word: &str, value: &str) -> bool {
    !value.is_empty() && value != "o" && word.starts_with(value)
}

fn is_parameter(name: &str) -> bool {
    let part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '$')
    };
    name.len() <= 63 && name.split('.').count() <= 2 && name.split('.').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_are_read_as_postgres_reads_them() {
        for on in ["on", "ON", "true", "t", "yes", "y", "1"] {
            assert!(is_on(on), "{on}");
        }
        for not_on in ["", "o", "off", "of", "false", "f", "no", "n", "0", "remote_write", "2"] {
            assert!(!is_on(not_on), "{not_on}");
        }
    }

    #[test]
    fn values_that_break_a_promise_are_known() {
        for (name, value) in [
            ("fsync", "off"),
            ("full_page_writes", "false"),
            ("data_sync_retry", "on"),
            ("synchronous_commit", "local"),
            ("wal_level", "minimal"),
            ("max_wal_senders", "3"),
        ] {
            assert!(unsafe_value(name, value, Durability::ZeroLoss).is_some(), "{name} = {value}");
        }
        for (name, value) in [
            ("fsync", "on"),
            ("synchronous_commit", "remote_apply"),
            ("wal_level", "logical"),
            ("max_wal_senders", "20"),
            ("work_mem", "64MB"),
        ] {
            assert!(unsafe_value(name, value, Durability::ZeroLoss).is_none(), "{name} = {value}");
        }
        let lossy = Durability::Async { max_loss: std::time::Duration::from_secs(1) };
        assert!(unsafe_value("synchronous_commit", "off", lossy).is_none());
    }

    #[test]
    fn settings_are_either_owned_or_the_users() {
        assert!(owned_parameter("synchronous_standby_names").is_some());
        assert!(owned_parameter("work_mem").is_none());
        assert!(RESTART.iter().all(|name| owned_parameter(name).is_none()));
        assert!(OWNED.is_sorted() && RESTART.is_sorted());
    }
}
