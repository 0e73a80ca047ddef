//! A few connections to one route, opened when needed, thrown away when in doubt.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, NoTls, Row};

use super::Fault;

/// Connections at once, so that several instances fit into PostgreSQL's default of 100.
const CONNECTIONS: usize = 16;
/// Pause before the second attempt; it doubles up to [`LONGEST_PAUSE`].
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Data unacknowledged for so long means that the other side is gone.
const UNACKNOWLEDGED: Duration = Duration::from_secs(2);

/// A parameter of a statement with its type.
pub(super) type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// The connections of one route.
pub(crate) struct Pool {
    config: Config,
    idle: Mutex<Vec<Client>>,
    slots: Semaphore,
}

/// A connection in use; dropped, it is closed, because nobody knows in what state it is.
struct Session<'p> {
    client: Client,
    pool: &'p Pool,
    _slot: SemaphorePermit<'p>,
}

/// The attempts of one statement.
struct Retry {
    deadline: Instant,
    pause: Duration,
    /// Why the last attempt failed.
    last: String,
}

impl Pool {
    /// Connections to `url`, known to the database as `application`.
    pub(crate) fn new(url: &str, application: &str) -> Result<Self, String> {
        let mut config: Config =
            url.parse().map_err(|error| format!("the connection string is not valid: {error}"))?;
        config.application_name(application).tcp_user_timeout(UNACKNOWLEDGED);
        Ok(Self { config, idle: Mutex::default(), slots: Semaphore::new(CONNECTIONS) })
    }

    /// Runs one statement and answers its rows when the server has finished it, so after the commit of a write.
    ///
    /// It is repeated on a new connection until `deadline` while the database is unavailable: the statement must not do
    /// harm when it is carried out twice.
    pub(crate) async fn query(
        &self,
        sql: &str,
        params: &[Param<'_>],
        deadline: Instant,
    ) -> Result<Vec<Row>, Fault> {
        let mut retry = Retry::until(deadline);
        loop {
            if let Some(result) = retry.judge(timeout_at(deadline, self.query_once(sql, params)).await).await
            {
                return result;
            }
        }
    }

    /// Runs a script without results, once.
    pub(crate) async fn script(&self, sql: &str, deadline: Instant) -> Result<(), Fault> {
        match timeout_at(deadline, self.script_once(sql)).await {
            Ok(done) => done.map_err(|error| Fault::of(&error)),
            Err(_) => Err(Fault::Unavailable("no answer in time".to_owned())),
        }
    }

    async fn script_once(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        let session = self.session().await?;
        session.client.batch_execute(sql).await?;
        session.keep();
        Ok(())
    }

    async fn query_once(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, tokio_postgres::Error> {
        let session = self.session().await?;
        // Parse, bind, execute and commit in one round trip; the rows are complete when ReadyForQuery has come.
        let rows = session.client.query_typed(sql, params).await?;
        session.keep();
        Ok(rows)
    }

    async fn session(&self) -> Result<Session<'_>, tokio_postgres::Error> {
        // The semaphore is never closed, and a closed one would only mean no limit.
        let Ok(slot) = self.slots.acquire().await else { std::future::pending().await };
        while let Some(client) = self.take_idle() {
            if !client.is_closed() {
                return Ok(Session { client, pool: self, _slot: slot });
            }
        }
        let (client, connection) = self.config.connect(NoTls).await?;
        // Ends when the client is dropped or the server closes; the statement under way gets the error.
        tokio::spawn(connection);
        Ok(Session { client, pool: self, _slot: slot })
    }

    fn take_idle(&self) -> Option<Client> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }
}

impl Retry {
    fn until(deadline: Instant) -> Self {
        Self { deadline, pause: SHORTEST_PAUSE, last: "no answer in time".to_owned() }
    }

    /// The result, if the attempt was the last one; otherwise pauses before the next.
    async fn judge<T>(
        &mut self,
        attempt: Result<Result<T, tokio_postgres::Error>, Elapsed>,
    ) -> Option<Result<T, Fault>> {
        match attempt {
            Err(_) => return Some(Err(Fault::Unavailable(self.last.clone()))),
            Ok(Ok(result)) => return Some(Ok(result)),
            Ok(Err(error)) => match Fault::of(&error) {
                Fault::Unavailable(reason) => self.last = reason,
                fault @ (Fault::Refused(_) | Fault::NoTables(_)) => return Some(Err(fault)),
            },
        }
        if timeout_at(self.deadline, sleep(self.pause)).await.is_err() {
            return Some(Err(Fault::Unavailable(self.last.clone())));
        }
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        None
    }
}

impl Session<'_> {
    /// The statement was finished: the connection may be used again.
    fn keep(self) {
        self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner).push(self.client);
    }
}
