//! Another member as seen over the network: where to stream, clone and rewind from.

use std::net::IpAddr;
use std::time::Duration;

use model::NodeName;
use model::postgres::{Lsn, Timeline, WalPosition};
use serde::{Deserialize, Serialize};

use super::settings::conninfo_value;
use super::{Member, REPLICATION_ROLE, REWIND_ROLE, TimelineHistory};
use crate::process::{ToolError, ToolOutput, run_tool};

/// Another member to stream, clone or rewind from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Its node.
    pub node: NodeName,
    /// Its addresses, one for each line, the preferred first.
    pub addresses: Vec<IpAddr>,
    /// Its port.
    pub port: u16,
    /// Whether it must prove itself by a certificate of the system's authority.
    pub tls: bool,
}

/// What a source says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFacts {
    /// Whether it is a standby itself.
    pub in_recovery: bool,
    /// PostgreSQL's identifier of the cluster.
    pub system_identifier: u64,
    /// Where its log ends, on which timeline; on a standby the timeline is that of its last checkpoint.
    pub position: WalPosition,
    /// The timeline of its control file. A rewind from it is wrong until this is the present one.
    pub checkpoint_timeline: Timeline,
    /// The history of `position`'s timeline.
    pub history: TimelineHistory,
    /// From where on it has log in its own directory: a standby that needs older log cannot stream it.
    pub oldest: Option<Lsn>,
}

/// Why a source could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It cannot be reached, or refused.
    #[error("cannot ask {node} at {address}: {source}")]
    Ask {
        /// Its node.
        node: NodeName,
        /// The addresses tried.
        address: String,
        /// What `psql` said.
        source: ToolError,
    },
    /// It answered something else than expected.
    #[error("{node} answered something unexpected: {reason}")]
    Unexpected {
        /// Its node.
        node: NodeName,
        /// What.
        reason: String,
    },
}

/// `pg_read_file` is reserved to superusers; the rewind role has `pg_read_binary_file`.
const FACTS: &str = "
WITH me AS MATERIALIZED (
  SELECT r AS recovering, t AS checkpointed,
    CASE WHEN r THEN t ELSE ('x' || substr(pg_walfile_name(pg_current_wal_flush_lsn()), 1, 8))::bit(32)::int END AS timeline,
    CASE WHEN r THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) ELSE pg_current_wal_flush_lsn() END AS lsn
  FROM (SELECT pg_is_in_recovery() AS r) AS a, (SELECT timeline_id AS t FROM pg_control_checkpoint()) AS b)
SELECT json_build_object('recovering', recovering, 'checkpointed', checkpointed, 'timeline', timeline, 'lsn', lsn,
  'system', (SELECT system_identifier::text FROM pg_control_system()),
  'history', CASE WHEN timeline > 1 THEN
    convert_from(pg_read_binary_file('pg_wal/' || upper(lpad(to_hex(timeline), 8, '0')) || '.history'), 'UTF8')
    ELSE '' END,
  'oldest', (SELECT coalesce(min(substr(name, 9)), '') FROM pg_ls_dir('pg_wal', true, false) AS name WHERE name ~ '^[0-9A-F]{24}$'),
  'segment', pg_size_bytes(current_setting('wal_segment_size')))
FROM me";

#[derive(Deserialize)]
struct Answer {
    recovering: bool,
    checkpointed: Timeline,
    timeline: Timeline,
    lsn: Lsn,
    system: String,
    history: String,
    /// The name of the oldest segment of log without its timeline; empty when there is none.
    oldest: String,
    /// The size of a segment in bytes.
    segment: u64,
}

/// Where the log of a segment begins; nothing when `name` (16 hexadecimal digits) names none.
fn segment_begin(name: &str, segment: u64) -> Option<Lsn> {
    let (high, low) = name.split_at_checked(8)?;
    let high = u64::from_str_radix(high, 16).ok()?;
    let low = u64::from_str_radix(low, 16).ok()?;
    Some(Lsn((high << 32).checked_add(low.checked_mul(segment)?)?))
}

impl Source {
    /// The connection string of a standby's WAL receiver. No password stands in it: settings are shown to many.
    pub(super) fn receiver_conninfo(&self, member: &Member) -> String {
        let passfile = member.paths().receiver_passfile().display().to_string();
        self.conninfo(member, REPLICATION_ROLE, &passfile, member.node().as_str())
    }

    /// The connection string of a tool.
    pub(super) fn tool_conninfo(&self, member: &Member, role: &str, name: &str) -> String {
        let passfile = member.paths().tool_passfile().display().to_string();
        self.conninfo(member, role, &passfile, name)
    }

    /// A connection that is broken off soon when the other side falls silent: connecting within 2 s (libpq's least) for
    /// each address, unanswered data within 3 s.
    fn conninfo(&self, member: &Member, role: &str, passfile: &str, name: &str) -> String {
        let mut pairs = vec![
            ("host", self.address_list()),
            ("port", self.port.to_string()),
            ("user", role.to_owned()),
            ("application_name", name.to_owned()),
            ("passfile", passfile.to_owned()),
            ("connect_timeout", "2".to_owned()),
            ("keepalives_idle", "1".to_owned()),
            ("keepalives_interval", "1".to_owned()),
            ("keepalives_count", "3".to_owned()),
            ("tcp_user_timeout", "3000".to_owned()),
            ("gssencmode", "disable".to_owned()),
        ];
        if self.tls {
            pairs.push(("sslmode", "verify-ca".to_owned()));
            pairs.push(("sslrootcert", member.paths().conf.join("authority.pem").display().to_string()));
        } else {
            pairs.push(("sslmode", "disable".to_owned()));
        }
        let pairs: Vec<String> =
            pairs.iter().map(|(name, value)| format!("{name}={}", conninfo_value(value))).collect();
        pairs.join(" ")
    }

    fn address_list(&self) -> String {
        let addresses: Vec<String> = self.addresses.iter().map(IpAddr::to_string).collect();
        addresses.join(",")
    }
}

impl Member {
    /// Asks another member about itself, over the network as the rewind role.
    ///
    /// # Errors
    /// When it does not answer within `deadline`.
    pub async fn ask_source(&self, source: &Source, deadline: Duration) -> Result<SourceFacts, SourceError> {
        let conninfo = source.tool_conninfo(self, REWIND_ROLE, "mainstay rewind") + " dbname=postgres";
        let arguments = ["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d", &conninfo, "-c", FACTS];
        let tool = self.tool("psql", arguments, deadline);
        let ask = |error| SourceError::Ask {
            node: source.node.clone(),
            address: format!("{} port {}", source.address_list(), source.port),
            source: error,
        };
        let output = run_tool(tool).await.and_then(ToolOutput::checked).map_err(ask)?;
        let unexpected = |reason: String| SourceError::Unexpected { node: source.node.clone(), reason };
        let answer: Answer =
            serde_json::from_str(output.stdout.trim()).map_err(|error| unexpected(error.to_string()))?;
        let history = TimelineHistory::parse(answer.timeline, &answer.history);
        Ok(SourceFacts {
            in_recovery: answer.recovering,
            system_identifier: answer.system.parse().map_err(|_| unexpected(answer.system.clone()))?,
            position: WalPosition { timeline: answer.timeline, lsn: answer.lsn },
            checkpoint_timeline: answer.checkpointed,
            history: history.map_err(|error| unexpected(error.to_string()))?,
            oldest: segment_begin(&answer.oldest, answer.segment),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segments_name_tells_where_it_begins() {
        assert_eq!(segment_begin("0000000200000003", 16 << 20), Some(Lsn(0x2_0300_0000)));
        assert_eq!(segment_begin("0000000000000001", 1 << 30), Some(Lsn(1 << 30)));
        for nonsense in ["", "00000001", "zzzzzzzz00000001", "FFFFFFFFFFFFFFFF", "\u{e9}00000000000001"] {
            assert_eq!(segment_begin(nonsense, u64::MAX), None, "{nonsense}");
        }
    }
}
