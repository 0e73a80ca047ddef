//! What one look at a running server tells, in one round trip.

use std::time::Duration;

use model::postgres::{Lsn, Timeline, WalPosition};
use serde::{Deserialize, Serialize};

use super::{Session, SqlError};

/// What a running server says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Whether it is a standby (or still recovering).
    pub in_recovery: bool,
    /// PostgreSQL's identifier of the cluster, the same on all members. Text, because it does not fit a JSON number.
    pub system_identifier: String,
    /// What it holds on disk. Primary: written and flushed. Standby: received and flushed, or replayed if that is more
    /// (after a restart nothing is received yet); its timeline is the one it received last.
    pub position: WalPosition,
    /// What a standby has replayed; `None` on a primary.
    pub replayed: Option<Lsn>,
    /// Whether a standby has received anything since its server was started. It begins to receive when it has replayed
    /// all the log it has.
    pub received_since_start: bool,
    /// What a standby's startup process waits for (`pg_stat_activity.wait_event`): `RecoveryWalStream` and
    /// `RecoveryRetrieveRetryInterval` mean that all the log it has is replayed.
    pub startup_waits_for: Option<String>,
    /// The WAL receiver, when one runs.
    pub receiver: Option<ReceiverFacts>,
    /// The WAL senders, one for each standby (or tool) that streams from here.
    pub senders: Vec<SenderFacts>,
    /// The physical replication slots.
    pub slots: Vec<SlotFacts>,
    /// How many commits wait for the confirmation of standbys.
    pub sync_waiting: u32,
    /// Client connections in use, the agent's own among them.
    pub clients: u32,
    /// When the server was started, in microseconds since the Unix epoch.
    pub started_us: i64,
    /// Whether somebody has changed settings with `ALTER SYSTEM`: they override what the agent writes.
    #[serde(default)]
    pub altered: bool,
}

/// A standby's WAL receiver (`pg_stat_wal_receiver`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiverFacts {
    /// Its process.
    pub pid: i32,
    /// `starting`, `streaming`, `waiting`, `restarting`, `stopping`.
    pub status: String,
    /// The host it streams from.
    pub host: Option<String>,
    /// The port it streams from.
    pub port: Option<u16>,
    /// The timeline it receives.
    pub timeline: Option<Timeline>,
    /// The end of the log at the sender, as last heard.
    pub latest_end: Option<Lsn>,
    /// Since when nothing was heard from the sender, in milliseconds.
    pub silent_ms: Option<u64>,
}

/// A standby's part in the sync set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SyncState {
    /// Not in the set.
    Async,
    /// Would take over (lists by priority only; not ours).
    Potential,
    /// Its confirmations are needed (lists by priority only; not ours).
    Sync,
    /// In the set.
    Quorum,
}

/// A WAL sender (`pg_stat_replication`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SenderFacts {
    /// Its process.
    pub pid: i32,
    /// The standby's node, or the name of a tool (`pg_basebackup`).
    pub name: String,
    /// `startup`, `catchup`, `streaming`, `backup`, `stopping`.
    pub state: String,
    /// Its part in the sync set.
    pub sync_state: SyncState,
    /// Zero when its confirmations do not count.
    pub sync_priority: i32,
    /// Sent so far.
    pub sent: Option<Lsn>,
    /// Confirmed as written last. Not the highest: a standby that connects anew gets the log file it is in from its beginning.
    pub written: Option<Lsn>,
    /// Confirmed as flushed.
    pub flushed: Option<Lsn>,
    /// Confirmed as replayed.
    pub replayed: Option<Lsn>,
    /// When the standby sent its last reply, by the standby's clock, microseconds since 2000-01-01.
    pub reply_us: Option<i64>,
}

/// How safe the log is that a slot holds back (`pg_replication_slots.wal_status`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WalStatus {
    /// Within `max_wal_size`.
    Reserved,
    /// Beyond `max_wal_size`, held back by the slot.
    Extended,
    /// About to be removed: the slot's limit is exceeded.
    Unreserved,
    /// Removed: whoever used the slot must be cloned.
    Lost,
}

/// A physical replication slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotFacts {
    /// Its name.
    pub name: String,
    /// Whether a standby streams through it now.
    pub active: bool,
    /// The oldest log it holds back; `None` when it was never used.
    pub restart: Option<Lsn>,
    /// Whether that log is safe; `None` when it was never used.
    pub wal_status: Option<WalStatus>,
}

/// `pg_control_checkpoint()` is stale after a promotion, and a standby's own timeline is told by no function while its
/// receiver is away: the newest timeline that has a log file containing the last byte received is it.
const OBSERVE: &str = "
WITH me AS MATERIALIZED (
  SELECT r AS recovering,
    CASE WHEN r THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn(), '0/0')
         ELSE pg_current_wal_flush_lsn() END AS lsn,
    pg_size_bytes(current_setting('wal_segment_size')) AS segment
  FROM (SELECT pg_is_in_recovery() AS r) AS s
), number AS MATERIALIZED (
  SELECT div(greatest(lsn - '0/0' - 1, 0), segment)::bigint AS n, (4294967296 / segment)::bigint AS per FROM me
), receiver AS MATERIALIZED (
  SELECT pid, status, sender_host AS host, sender_port AS port, received_tli AS timeline, latest_end_lsn AS latest_end,
    (extract(epoch FROM clock_timestamp() - last_msg_receipt_time) * 1000)::bigint AS silent_ms
  FROM pg_stat_wal_receiver
), activity AS MATERIALIZED (
  SELECT backend_type, wait_event FROM pg_stat_activity
)
SELECT json_build_object(
  'in_recovery', recovering,
  'system_identifier', (SELECT system_identifier::text FROM pg_control_system()),
  'position', json_build_object('lsn', lsn, 'timeline', CASE
    WHEN NOT recovering THEN ('x' || substr(pg_walfile_name(lsn), 1, 8))::bit(32)::int
    ELSE coalesce(
      (SELECT timeline FROM receiver),
      (SELECT ('x' || max(substr(name, 1, 8)))::bit(32)::int FROM pg_ls_waldir(), number
        WHERE name ~ '^[0-9A-F]{24}$'
          AND substr(name, 9) = upper(lpad(to_hex(n / per), 8, '0') || lpad(to_hex(n % per), 8, '0'))),
      (SELECT timeline_id FROM pg_control_checkpoint())) END),
  'replayed', CASE WHEN recovering THEN pg_last_wal_replay_lsn() END,
  'received_since_start', recovering AND pg_last_wal_receive_lsn() IS NOT NULL,
  'startup_waits_for', (SELECT wait_event FROM activity WHERE backend_type = 'startup'),
  'receiver', (SELECT row_to_json(receiver) FROM receiver),
  'senders', (SELECT coalesce(json_agg(s), '[]') FROM (
    SELECT pid, coalesce(application_name, '') AS name, state, sync_state, sync_priority, sent_lsn AS sent,
      write_lsn AS written, flush_lsn AS flushed, replay_lsn AS replayed,
      (extract(epoch FROM reply_time - '2000-01-01 00:00:00+00') * 1000000)::bigint AS reply_us
    FROM pg_stat_replication WHERE state IS NOT NULL) AS s),
  'slots', (SELECT coalesce(json_agg(s), '[]') FROM (
    SELECT slot_name AS name, active, restart_lsn AS restart, wal_status
    FROM pg_replication_slots WHERE slot_type = 'physical' AND NOT temporary) AS s),
  'sync_waiting', (SELECT count(*) FROM activity WHERE wait_event = 'SyncRep'),
  'clients', (SELECT count(*) FROM activity WHERE backend_type = 'client backend'),
  'started_us', (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint,
  'altered', coalesce(pg_read_file('postgresql.auto.conf', 0, 8192, true) ~ '(?n)^[^# ]', false)
)::text FROM me";

impl Session {
    /// Looks at the server once.
    ///
    /// # Errors
    /// See [`SqlError`].
    pub async fn observe(&self, deadline: Duration) -> Result<Facts, SqlError> {
        let text = self.prepared_text(OBSERVE, deadline).await?;
        serde_json::from_str(&text).map_err(|error| SqlError::Unexpected(format!("{error} in {text}")))
    }
}

impl Facts {
    /// Whether a standby has replayed all the log it has.
    pub fn replays_no_more(&self) -> bool {
        matches!(
            self.startup_waits_for.as_deref(),
            Some("RecoveryWalStream" | "RecoveryRetrieveRetryInterval")
        )
    }

    /// PostgreSQL's identifier of the cluster as a number; zero when the server said something else.
    pub fn system_number(&self) -> u64 {
        self.system_identifier.parse().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_the_server_is_understood() {
        let text = r#"{"in_recovery" : true, "system_identifier" : "7444444444444444444",
            "position" : {"lsn" : "0/3000148", "timeline" : 2}, "replayed" : "0/3000148",
            "received_since_start" : true, "startup_waits_for" : "RecoveryWalStream",
            "receiver" : {"pid":7,"status":"streaming","host":"10.0.0.1","port":5432,"timeline":2,
                "latest_end":"0/3000148","silent_ms":12},
            "senders" : [], "slots" : [{"name":"mainstay_e2","active":false,"restart":null,"wal_status":null}],
            "sync_waiting" : 0, "clients" : 2, "started_us" : 1763800000000000}"#;
        let facts: Facts = serde_json::from_str(text).unwrap();
        assert_eq!(facts.position, WalPosition { timeline: Timeline(2), lsn: Lsn(0x300_0148) });
        assert_eq!(facts.system_number(), 7_444_444_444_444_444_444);
        assert_eq!(facts.slots[0].wal_status, None);
    }
}
