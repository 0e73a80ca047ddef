//! PostgreSQL's settings that are the same for all, so that what differs comes from who manages it.

/// What Mainstay gives its members, where it bears on failovers and on the cost of a write. A peer's own default is better
/// in none of these; `wal_retrieve_retry_interval` for one may cost a promotion 5 s when it is left alone.
pub(crate) const PARAMETERS: [(&str, &str); 17] = [
    ("max_connections", "100"),
    ("max_wal_senders", "16"),
    ("max_replication_slots", "16"),
    ("wal_level", "replica"),
    ("wal_keep_size", "512MB"),
    ("wal_log_hints", "on"),
    ("hot_standby", "on"),
    ("hot_standby_feedback", "on"),
    ("fsync", "on"),
    ("full_page_writes", "on"),
    ("synchronous_commit", "on"),
    ("wal_retrieve_retry_interval", "50ms"),
    ("wal_receiver_status_interval", "1s"),
    ("wal_receiver_timeout", "5s"),
    ("wal_sender_timeout", "5s"),
    ("recovery_init_sync_method", "syncfs"),
    ("password_encryption", "scram-sha-256"),
];
