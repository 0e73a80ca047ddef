//! How fast the group notices a dead leader, where the network is fast: elsewhere all of this lasts longer (`pace.rs`).

use std::time::Duration;

/// Heartbeat and election times.
///
/// The real delay until a new leader is `election_max` (the followers' lease) plus a random time between `election_min`
/// and `election_max` after the last heartbeat, plus the vote: the default here (100, 200, 400 ms) means 600-800 ms. The
/// failure of a primary does not wait for that, because the leader sits beside none where it can. Half of it was tried:
/// busy machines then changed their leader for nothing, and openraft, which looks at its clock five times a heartbeat,
/// took as much of an idle processor as all the rest of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
    /// How often the leader shows itself. A linearizable read needs an answer from a quorum within this time.
    pub heartbeat: Duration,
    /// The shortest random wait before an election.
    pub election_min: Duration,
    /// The longest random wait, and how long followers trust a silent leader before that.
    pub election_max: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        let heartbeat = Duration::from_millis(100);
        Self { heartbeat, election_min: 2 * heartbeat, election_max: 4 * heartbeat }
    }
}

impl Timings {
    /// How long one message of replication may take before it is sent again: generous, because it may carry a
    /// megabyte and waits for the receiver's fsync; heartbeats travel apart from it.
    pub(crate) fn replication(&self) -> Duration {
        5 * self.election_max
    }

    /// How long one attempt of a forwarded read may take before another leader is looked for.
    pub(crate) fn read_attempt(&self) -> Duration {
        3 * self.election_max
    }

    /// Raft's settings.
    pub(crate) fn to_raft(self) -> Result<openraft::Config, openraft::ConfigError> {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let config = openraft::Config {
            cluster_name: "mainstay".to_owned(),
            heartbeat_interval: millis(self.heartbeat),
            election_timeout_min: millis(self.election_min),
            election_timeout_max: millis(self.election_max),
            // Without it half of all returning nodes depose a healthy leader.
            enable_pre_vote: Some(true),
            // The applied state is rebuilt from snapshot and log at start: a restarted leader may be behind what it
            // had already answered, so it must be elected anew.
            enable_leader_restore: Some(false),
            snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(2_000),
            max_in_snapshot_log_to_keep: 500,
            max_payload_entries: 64,
            install_snapshot_timeout: 10_000,
            backoff: "10ms 20ms 40ms ...200ms".to_owned(),
            ..openraft::Config::default()
        };
        config.validate()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_refused() {
        let zero = Timings { election_max: Duration::ZERO, ..Timings::default() };
        assert!(zero.to_raft().is_err());
    }
}
