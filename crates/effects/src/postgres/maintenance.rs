//! Small commands to a running server.

use std::io;
use std::time::Duration;

use model::status::PendingSetting;

use super::control::ControlError;
use super::settings::{Settings, hold};
use super::volume::FileError;
use super::{Postmaster, SUPERUSER, SqlError};
use crate::process::{ToolError, run_tool};

/// How many connections the application's role leaves free for other members, which ask and rewind over ordinary ones:
/// clients whose commits wait for a standby would else keep out the standby that they wait for.
const ROOM: u32 = 5;

/// Why changed settings were not taken over.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The files could not be written.
    #[error(transparent)]
    Files(#[from] FileError),
    /// The server refused to be told, because it is gone.
    #[error("cannot signal PostgreSQL: {0}")]
    Signal(#[from] io::Error),
    /// It could not be asked whether it took them over.
    #[error(transparent)]
    Sql(#[from] SqlError),
    /// Its control file could not be read.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// It did not accept some of them.
    #[error("PostgreSQL does not accept these settings: {}", .0.join("; "))]
    NotAccepted(Vec<String>),
}

impl Postmaster {
    /// Writes a checkpoint: makes a following fast stop short, and on a new primary makes it a correct source for
    /// rewinds.
    ///
    /// # Errors
    /// See [`SqlError`].
    pub async fn checkpoint(&self, deadline: Duration) -> Result<(), SqlError> {
        // A session of its own: a checkpoint may take minutes.
        let session = self.member.session("mainstay checkpoint");
        session.text("SET statement_timeout = 0; CHECKPOINT", deadline).await.map(drop)
    }

    /// Limits the application's role to what leaves room for other members; of a primary only.
    ///
    /// # Errors
    /// See [`SqlError`].
    pub async fn keep_room(&self, role: &str, deadline: Duration) -> Result<(), SqlError> {
        let wanted = format!(
            "greatest(1, current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int - {ROOM})"
        );
        // The name is an identifier (checked where it is read), so quoting is plain.
        let sql = format!(
            "SELECT format('ALTER ROLE %I CONNECTION LIMIT %s', rolname, {wanted}) FROM pg_roles \
             WHERE rolname = '{role}' AND rolconnlimit <> {wanted}"
        );
        let change = self.member.control().text(&sql, deadline).await?;
        if change.is_empty() {
            return Ok(());
        }
        self.member.control().text(&change, deadline).await.map(drop)
    }

    /// Whether a primary has written a checkpoint on its own timeline, so that others can be rewound to it.
    ///
    /// # Errors
    /// See [`SqlError`]; also on a standby.
    pub async fn has_own_checkpoint(&self, deadline: Duration) -> Result<bool, SqlError> {
        let sql = "SELECT timeline_id = ('x' || substr(pg_walfile_name(pg_current_wal_flush_lsn()), 1, 8))::bit(32)::int \
                   FROM pg_control_checkpoint()";
        Ok(self.member.control().text(sql, deadline).await? == "t")
    }

    /// Ends the connections of all clients except the agent's own; returns how many. Clients learn that the outcome of
    /// what they had sent is unknown. Never done by cancelling; see the module's description.
    ///
    /// # Errors
    /// See [`SqlError`].
    pub async fn terminate_clients(&self, deadline: Duration) -> Result<u32, SqlError> {
        let sql = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
             WHERE backend_type = 'client backend' AND usename IS DISTINCT FROM '{SUPERUSER}'"
        );
        let count = self.member.control().text(&sql, deadline).await?;
        count.parse().map_err(|_| SqlError::Unexpected(count))
    }

    /// Makes transactions read-only (or not) unless they say otherwise: the first, polite step of a handover.
    ///
    /// # Errors
    /// When the setting cannot be written.
    pub async fn set_read_only(&self, read_only: bool) -> Result<(), FileError> {
        self.change(move |dynamic| dynamic.read_only = read_only).await
    }

    /// Writes changed settings and has the server take over those that need no restart. Returns those that do
    /// ([`super::Session::pending_restart`]), what a standby must not lower yet marked as held.
    ///
    /// # Errors
    /// When the server does not accept some; those keep their old values.
    pub async fn reload_settings(
        &self,
        settings: &Settings,
        deadline: Duration,
    ) -> Result<Vec<PendingSetting>, ReloadError> {
        self.member.write_settings(settings).await?;
        self.reload()?;
        // Only the postmaster knows about errors and pending restarts for certain; a new connection inherits from it.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let session = self.member.session("mainstay settings");
        let errors = session.settings_errors(deadline).await?;
        if !errors.is_empty() {
            return Err(ReloadError::NotAccepted(errors));
        }
        self.with_held(session.pending_restart(deadline).await?, deadline).await
    }

    /// Takes back what somebody has set with `ALTER SYSTEM`, and says which parameters that were. It overrides what the
    /// agent writes, the sync set too.
    ///
    /// # Errors
    /// When the server cannot be asked or told.
    pub async fn undo_alterations(&self, deadline: Duration) -> Result<String, ReloadError> {
        let names = "SELECT string_agg(DISTINCT name, ', ') FROM pg_file_settings \
                     WHERE sourcefile LIKE '%/postgresql.auto.conf'";
        let names = self.member.control().text(names, deadline).await?;
        self.member.control().text("ALTER SYSTEM RESET ALL", deadline).await?;
        self.reload()?;
        Ok(names)
    }

    /// Marks what a standby must not lower yet, because its primary has more.
    ///
    /// # Errors
    /// When the server, or its control file, cannot be asked.
    pub async fn with_held(
        &self,
        mut pending: Vec<PendingSetting>,
        deadline: Duration,
    ) -> Result<Vec<PendingSetting>, ReloadError> {
        if pending.iter().any(|setting| setting.lowers)
            && self.member.control().text("SELECT pg_is_in_recovery()", deadline).await? == "t"
        {
            hold(&mut pending, &self.member.control_data(deadline).await?.floor);
        }
        Ok(pending)
    }
}

impl super::Member {
    /// Has PostgreSQL check a configuration without starting a server or touching the data. Written settings only.
    ///
    /// # Errors
    /// With what the server says about the first parameter it does not accept.
    pub async fn check_settings(&self, deadline: Duration) -> Result<(), ToolError> {
        let data = self.paths().data.display().to_string();
        let config = format!("config_file={}", self.paths().postgresql_conf().display());
        let tool = self.tool("postgres", ["-D", &data, "-c", &config, "-C", "max_connections"], deadline);
        run_tool(tool).await?.checked().map(drop)
    }
}
