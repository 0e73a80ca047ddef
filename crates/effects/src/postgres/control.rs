//! The control file of a data directory, read by PostgreSQL's own `pg_controldata` in a child process.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use model::postgres::{Lsn, Timeline, WalPosition};
use serde::{Deserialize, Serialize};

use super::Member;
use super::settings::Floor;
use crate::process::{ToolError, run_tool};

/// What the tool calls the settings that a standby needs as much of as its primary.
const FLOOR: [(&str, &str); 5] = [
    ("max_connections setting", "max_connections"),
    ("max_worker_processes setting", "max_worker_processes"),
    ("max_wal_senders setting", "max_wal_senders"),
    ("max_prepared_xacts setting", "max_prepared_transactions"),
    ("max_locks_per_xact setting", "max_locks_per_transaction"),
];

/// What state a data directory was left in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ControlState {
    /// A server runs on it, or it crashed as a primary.
    InProduction,
    /// A server runs on it, or it crashed as a standby.
    InArchiveRecovery,
    /// Being recovered from a crash, or crashed meanwhile.
    InCrashRecovery,
    /// Starting, or crashed meanwhile.
    StartingUp,
    /// Writing the shutdown checkpoint.
    ShuttingDown,
    /// Shut down cleanly as a primary.
    ShutDown,
    /// Shut down cleanly as a standby.
    ShutDownInRecovery,
}

/// A data directory's control file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlData {
    /// What state it was left in.
    pub state: ControlState,
    /// PostgreSQL's identifier of the cluster.
    pub system_identifier: u64,
    /// The last checkpoint (of a cleanly stopped primary: the shutdown checkpoint) and its timeline.
    pub checkpoint: WalPosition,
    /// How far a standby must replay before it is consistent; zero on a primary.
    pub minimum_recovery_end: WalPosition,
    /// Whether data checksums are on.
    pub checksums: bool,
    /// What a hot standby needs at least: what the primary had when it wrote the log replayed last.
    pub floor: Floor,
}

/// Why the control file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The tool did not work.
    #[error(
        "cannot read the control file of {data}: {source}. Hint: nothing was touched; once {data} is moved away, the member is copied anew from another one"
    )]
    Tool {
        /// The data directory.
        data: String,
        /// What went wrong.
        source: ToolError,
    },
    /// The file is damaged.
    #[error(
        "the control file of {data} is corrupted: {reason}. Hint: nothing was touched; once {data} is moved away, the member is copied anew from another one"
    )]
    Corrupted {
        /// The data directory.
        data: String,
        /// What the tool warned of.
        reason: String,
    },
}

impl ControlState {
    /// Whether the directory was left cleanly.
    pub fn is_clean(self) -> bool {
        match self {
            Self::ShutDown | Self::ShutDownInRecovery => true,
            Self::InProduction
            | Self::InArchiveRecovery
            | Self::InCrashRecovery
            | Self::StartingUp
            | Self::ShuttingDown => false,
        }
    }

    /// As `pg_controldata` prints it with `LC_ALL=C`.
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "in production" => Self::InProduction,
            "in archive recovery" => Self::InArchiveRecovery,
            "in crash recovery" => Self::InCrashRecovery,
            "starting up" => Self::StartingUp,
            "shutting down" => Self::ShuttingDown,
            "shut down" => Self::ShutDown,
            "shut down in recovery" => Self::ShutDownInRecovery,
            _ => return None,
        })
    }
}

impl ControlData {
    fn parse(output: &str) -> Result<Self, String> {
        let lines: HashMap<&str, &str> = output
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim(), value.trim()))
            .collect();
        let field = |name: &str| lines.get(name).copied().ok_or_else(|| format!("it tells no `{name}`"));
        let wrong = |name: &str| format!("`{name}` is not understood");
        let lsn = |name: &str| field(name)?.parse::<Lsn>().map_err(|_| wrong(name));
        let number = |name: &str| field(name)?.parse::<u64>().map_err(|_| wrong(name));
        let timeline =
            |name: &str| Ok::<_, String>(Timeline(u32::try_from(number(name)?).map_err(|_| wrong(name))?));
        let state = "Database cluster state";
        Ok(Self {
            state: ControlState::parse(field(state)?).ok_or_else(|| wrong(state))?,
            system_identifier: number("Database system identifier")?,
            checkpoint: WalPosition {
                timeline: timeline("Latest checkpoint's TimeLineID")?,
                lsn: lsn("Latest checkpoint location")?,
            },
            minimum_recovery_end: WalPosition {
                timeline: timeline("Min recovery ending loc's timeline")?,
                lsn: lsn("Minimum recovery ending location")?,
            },
            checksums: number("Data page checksum version")? > 0,
            floor: FLOOR
                .iter()
                .filter_map(|(line, name)| Some(((*name).to_owned(), lines.get(line)?.parse().ok()?)))
                .collect(),
        })
    }
}

impl Member {
    /// Reads the control file of the member's data directory.
    ///
    /// # Errors
    /// When it is missing or corrupted, or the disk does not answer within `deadline`.
    pub async fn control_data(&self, deadline: Duration) -> Result<ControlData, ControlError> {
        self.control_data_of(&self.paths().data, deadline).await
    }

    pub(super) async fn control_data_of(
        &self,
        data: &Path,
        deadline: Duration,
    ) -> Result<ControlData, ControlError> {
        let name = data.display().to_string();
        let tool = self.tool("pg_controldata", ["-D", &name], deadline);
        let output = match run_tool(tool).await.and_then(crate::process::ToolOutput::checked) {
            Ok(output) => output,
            Err(source) => return Err(ControlError::Tool { data: name, source }),
        };
        // A wrong checksum is only a warning of the tool, and its values "should not be trusted".
        if let Some(reason) = warning_in(&output.stdout).or_else(|| warning_in(&output.stderr)) {
            return Err(ControlError::Corrupted { data: name, reason });
        }
        ControlData::parse(&output.stdout).map_err(|reason| ControlError::Corrupted { data: name, reason })
    }
}

/// `WARNING: ...` on standard output up to PostgreSQL 16, `pg_controldata: warning: ...` on standard error since.
fn warning_in(output: &str) -> Option<String> {
    let text = |line: &str| {
        let at = line.to_ascii_lowercase().find("warning: ")?;
        Some(line[at + "warning: ".len()..].trim_end_matches('.').to_owned())
    };
    output.lines().find_map(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "pg_control version number:            1300
Database system identifier:           7575600000000000001
Database cluster state:               shut down in recovery
pg_control last modified:             Sun Nov 22 17:00:00 2026
Latest checkpoint location:           0/3000110
Latest checkpoint's REDO location:    0/30000D8
Latest checkpoint's TimeLineID:       2
Minimum recovery ending location:     0/3000198
Min recovery ending loc's timeline:   2
max_connections setting:              200
max_prepared_xacts setting:           0
Data page checksum version:           1
";

    #[test]
    fn the_tools_output_is_understood() {
        let data = ControlData::parse(OUTPUT).unwrap();
        assert_eq!(data.state, ControlState::ShutDownInRecovery);
        assert!(data.state.is_clean() && data.checksums);
        assert_eq!(data.system_identifier, 7_575_600_000_000_000_001);
        assert_eq!(data.checkpoint.to_string(), "0/3000110 on timeline 2");
        assert_eq!(data.minimum_recovery_end.lsn, Lsn(0x300_0198));
        assert_eq!((data.floor["max_connections"], data.floor["max_prepared_transactions"]), (200, 0));
    }

    #[test]
    fn the_warnings_of_all_versions_are_seen() {
        let old = "WARNING: Calculated CRC checksum does not match value stored in file.\nEither";
        assert_eq!(warning_in(old).unwrap(), "Calculated CRC checksum does not match value stored in file");
        let new =
            "pg_controldata: warning: calculated CRC checksum does not match value stored in control file";
        assert_eq!(
            warning_in(new).unwrap(),
            "calculated CRC checksum does not match value stored in control file"
        );
        assert_eq!(warning_in(OUTPUT), None);
    }

    #[test]
    fn what_is_missing_or_unknown_is_named() {
        let error = ControlData::parse(&OUTPUT.replace("shut down in recovery", "on holiday")).unwrap_err();
        assert_eq!(error, "`Database cluster state` is not understood");
        assert_eq!(ControlData::parse("").unwrap_err(), "it tells no `Database cluster state`");
    }
}
