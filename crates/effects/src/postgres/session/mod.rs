//! A connection of the agent's own over the unix socket: kept open, opened again when lost, every statement with a
//! deadline.

mod observe;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::status::PendingSetting;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage, Statement};

pub use observe::{Facts, ReceiverFacts, SenderFacts, SlotFacts, SyncState, WalStatus};

use super::SUPERUSER;
use super::settings::{Context, Contexts, lowers};

/// Set for every session of the agent: its own writes never wait for a standby, no user's default may make it
/// read-only, slow or noisy, and its statements end by themselves when the agent has given up on them.
const OPTIONS: &str = "-c synchronous_commit=local -c default_transaction_read_only=off -c search_path=pg_catalog \
    -c statement_timeout=60s -c lock_timeout=0 -c log_statement=none \
    -c log_min_duration_statement=-1 -c client_min_messages=error";

/// Why a statement gave no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SqlError {
    /// Nobody listens on the socket.
    #[error("PostgreSQL does not listen on {}: {reason}", socket.display())]
    NotListening {
        /// The directory of the socket.
        socket: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// It is starting, recovering or shutting down and takes no connections (SQLSTATE 57P03).
    #[error("PostgreSQL takes no connections: {0}")]
    NotReady(String),
    /// No answer in time. The connection was given up; what it had asked for may still happen.
    #[error("PostgreSQL did not answer within {after:?}")]
    Deadline {
        /// How long it was waited for.
        after: Duration,
    },
    /// The connection was lost.
    #[error("the connection to PostgreSQL was lost: {0}")]
    Lost(String),
    /// The server refused the statement.
    #[error("PostgreSQL refused: {message} (SQLSTATE {code})")]
    Refused {
        /// SQLSTATE.
        code: String,
        /// The server's message.
        message: String,
    },
    /// The server answered something else than expected.
    #[error("unexpected answer from PostgreSQL: {0}")]
    Unexpected(String),
}

/// A connection of the agent's own, as superuser, to the database `postgres`.
pub struct Session {
    socket: PathBuf,
    port: u16,
    name: &'static str,
    open: Mutex<Option<Open>>,
}

struct Open {
    client: Client,
    prepared: Vec<(&'static str, Statement)>,
}

impl Session {
    pub(super) fn new(socket: &Path, port: u16, name: &'static str) -> Self {
        Self { socket: socket.to_owned(), port, name, open: Mutex::new(None) }
    }

    /// Runs statements (separated by `;`) and returns the first column of the last row; empty when there is none.
    ///
    /// # Errors
    /// See [`SqlError`]; after any but [`SqlError::Refused`] the next call connects anew.
    pub async fn text(&self, sql: &str, deadline: Duration) -> Result<String, SqlError> {
        let query = async {
            let mut open = self.connected().await?;
            let Some(connection) = open.as_mut() else { return Err(never_connected()) };
            let result = connection.client.simple_query(sql).await.map_err(|error| self.in_words(&error));
            forget_if_lost(&mut open, &result);
            result.map(|messages| last_text(&messages))
        };
        self.within(deadline, query).await
    }

    /// Runs one statement that is prepared once per connection; it must return one row with one column of type `text`.
    ///
    /// # Errors
    /// As [`Session::text`].
    pub async fn prepared_text(&self, sql: &'static str, deadline: Duration) -> Result<String, SqlError> {
        let query = async {
            let mut open = self.connected().await?;
            let Some(connection) = open.as_mut() else { return Err(never_connected()) };
            let result = connection.run_prepared(sql).await.map_err(|error| self.in_words(&error));
            forget_if_lost(&mut open, &result);
            result
        };
        self.within(deadline, query).await
    }

    /// Closes the connection; the next statement opens a new one.
    pub async fn close(&self) {
        *self.open.lock().await = None;
    }

    /// When PostgreSQL takes over which parameter.
    ///
    /// # Errors
    /// See [`SqlError`].
    pub async fn contexts(&self, deadline: Duration) -> Result<Contexts, SqlError> {
        let sql = "SELECT json_object_agg(lower(name), CASE context WHEN 'internal' THEN 'internal' \
                   WHEN 'postmaster' THEN 'postmaster' ELSE 'reload' END)::text FROM pg_settings";
        let parsed: Result<BTreeMap<String, Context>, _> =
            serde_json::from_str(&self.text(sql, deadline).await?);
        parsed.map_err(|error| SqlError::Unexpected(error.to_string()))
    }

    /// The parameters whose new value waits for a restart (`pg_settings.pending_restart`).
    ///
    /// # Errors
    /// See [`SqlError`].
    pub async fn pending_restart(&self, deadline: Duration) -> Result<Vec<PendingSetting>, SqlError> {
        let sql = "SELECT coalesce(json_agg(json_build_object('name', lower(s.name), 'runs', current_setting(s.name), \
                   'wanted', (SELECT f.setting FROM pg_file_settings f WHERE lower(f.name) = lower(s.name) \
                   ORDER BY f.seqno DESC LIMIT 1)) ORDER BY s.name), '[]')::text \
                   FROM pg_settings s WHERE s.pending_restart";
        let parsed = serde_json::from_str(&self.text(sql, deadline).await?);
        let mut pending: Vec<PendingSetting> =
            parsed.map_err(|error| SqlError::Unexpected(error.to_string()))?;
        for setting in &mut pending {
            setting.lowers = lowers(setting);
        }
        Ok(pending)
    }

    /// What the server could not take over from its configuration files, in words; empty when all is well.
    ///
    /// # Errors
    /// See [`SqlError`].
    pub async fn settings_errors(&self, deadline: Duration) -> Result<Vec<String>, SqlError> {
        let sql = "SELECT coalesce(json_agg(format('%s: %s', coalesce(name, 'line ' || sourceline), error)), '[]')::text \
                   FROM pg_file_settings WHERE error IS NOT NULL AND error <> 'setting could not be applied' \
                   OR error IS NOT NULL AND NOT EXISTS \
                   (SELECT FROM pg_settings s WHERE s.name = pg_file_settings.name AND s.pending_restart)";
        let parsed = serde_json::from_str(&self.text(sql, deadline).await?);
        parsed.map_err(|error| SqlError::Unexpected(error.to_string()))
    }

    /// A connection of its own that nobody else uses, within `deadline`.
    pub(super) async fn new_connection(&self, deadline: Duration) -> Result<Client, SqlError> {
        match tokio::time::timeout(deadline, self.connect()).await {
            Ok(connected) => connected,
            Err(_) => Err(SqlError::Deadline { after: deadline }),
        }
    }

    /// Runs `query`; a connection that did not answer in time is given up.
    async fn within<T>(
        &self,
        deadline: Duration,
        query: impl Future<Output = Result<T, SqlError>>,
    ) -> Result<T, SqlError> {
        match tokio::time::timeout(deadline, query).await {
            Ok(result) => result,
            Err(_) => {
                // Whoever holds the lock now gives its own verdict.
                if let Ok(mut open) = self.open.try_lock() {
                    *open = None;
                }
                Err(SqlError::Deadline { after: deadline })
            }
        }
    }

    async fn connected(&self) -> Result<tokio::sync::MutexGuard<'_, Option<Open>>, SqlError> {
        let mut open = self.open.lock().await;
        if open.as_ref().is_none_or(|connection| connection.client.is_closed()) {
            *open = None;
            *open = Some(Open { client: self.connect().await?, prepared: Vec::new() });
        }
        Ok(open)
    }

    async fn connect(&self) -> Result<Client, SqlError> {
        let mut config = tokio_postgres::Config::new();
        config.host_path(&self.socket).port(self.port).user(SUPERUSER).dbname("postgres");
        config.application_name(self.name).options(OPTIONS);
        let (client, connection) = config.connect(NoTls).await.map_err(|error| self.in_words(&error))?;
        // Ends when the client is dropped or the server closes; errors reach whoever uses the client.
        tokio::spawn(connection);
        Ok(client)
    }

    pub(super) fn in_words(&self, error: &tokio_postgres::Error) -> SqlError {
        use std::error::Error;
        if let Some(refused) = error.as_db_error() {
            let message = refused.message().to_owned();
            let code = refused.code();
            if *code == SqlState::CANNOT_CONNECT_NOW {
                return SqlError::NotReady(message);
            }
            if [&SqlState::ADMIN_SHUTDOWN, &SqlState::CRASH_SHUTDOWN].contains(&code) {
                return SqlError::Lost(message);
            }
            return SqlError::Refused { code: code.code().to_owned(), message };
        }
        let reason = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        let io = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
        match io.map(std::io::Error::kind) {
            Some(std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused) => {
                SqlError::NotListening { socket: self.socket.clone(), reason }
            }
            Some(_) | None => SqlError::Lost(reason),
        }
    }
}

impl Open {
    async fn run_prepared(&mut self, sql: &'static str) -> Result<String, tokio_postgres::Error> {
        let known =
            self.prepared.iter().find(|(text, _)| *text == sql).map(|(_, statement)| statement.clone());
        let statement = match known {
            Some(statement) => statement,
            None => {
                let statement = self.client.prepare(sql).await?;
                self.prepared.push((sql, statement.clone()));
                statement
            }
        };
        self.client.query_one(&statement, &[]).await?.try_get(0)
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({}, {})", self.name, self.socket.display())
    }
}

/// How much of `deadline`, which began at `begin`, is left.
pub(super) fn left(begin: Instant, deadline: Duration) -> Duration {
    deadline.saturating_sub(begin.elapsed())
}

fn forget_if_lost<T>(open: &mut Option<Open>, result: &Result<T, SqlError>) {
    let lost = match result {
        Ok(_) | Err(SqlError::Refused { .. }) => false,
        Err(
            SqlError::NotListening { .. }
            | SqlError::NotReady(_)
            | SqlError::Deadline { .. }
            | SqlError::Lost(_)
            | SqlError::Unexpected(_),
        ) => true,
    };
    if lost {
        *open = None;
    }
}

fn never_connected() -> SqlError {
    SqlError::Lost("it was closed while it was being used".to_owned())
}

pub(super) fn last_text(messages: &[SimpleQueryMessage]) -> String {
    let text = |message: &SimpleQueryMessage| {
        if let SimpleQueryMessage::Row(row) = message { row.get(0).map(str::to_owned) } else { None }
    };
    messages.iter().rev().find_map(text).unwrap_or_default()
}
