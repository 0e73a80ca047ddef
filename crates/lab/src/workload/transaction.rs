//! Statements and transactions with an exact account of what may have happened.

use std::time::Duration;

use tokio_postgres::SimpleQueryRow;

use crate::drill::session::{Refusal, Session};
use crate::drill::table::TIMELINE;

/// How something ended that was not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Surely not done; the connection is as good as before.
    Refused,
    /// Surely not done; the connection is no good.
    Failed,
    /// Done or not; the connection is no good.
    Unknown,
    /// The connection had been closed while it was idle: nothing was sent.
    NotSent,
}

/// One connection with the deadline of its statements.
#[derive(Clone, Copy)]
pub(super) struct Wire<'s> {
    pub(super) session: &'s Session,
    pub(super) deadline: Duration,
}

impl Wire<'_> {
    /// A statement that changes nothing: without an answer it is as if it had never been.
    pub(super) async fn read(self, sql: &str) -> Result<Vec<SimpleQueryRow>, End> {
        match self.session.run(sql, self.deadline).await {
            Ok(done) => Ok(done.rows),
            Err(Refusal::NotSent) => Err(End::NotSent),
            Err(Refusal::Conflict(_)) => Err(End::Refused),
            Err(Refusal::Refused(_) | Refusal::Uncertain(_)) => Err(End::Failed),
        }
    }

    /// A statement that is a transaction of its own.
    pub(super) async fn write(self, sql: &str) -> Result<Vec<SimpleQueryRow>, End> {
        match self.session.run(sql, self.deadline).await {
            Ok(done) if done.warned => Err(End::Unknown),
            Ok(done) => Ok(done.rows),
            Err(Refusal::NotSent) => Err(End::NotSent),
            Err(Refusal::Conflict(_)) => Err(End::Refused),
            Err(Refusal::Refused(_)) => Err(End::Failed),
            Err(Refusal::Uncertain(_)) => Err(End::Unknown),
        }
    }

    /// Begins a transaction; the row says on which timeline.
    pub(super) async fn begin(self, level: &str) -> Result<Vec<SimpleQueryRow>, End> {
        let sql = format!("begin isolation level {level}; select {TIMELINE}");
        self.read(&sql).await
    }

    /// A statement of a transaction that has not been asked to commit: whatever goes wrong, nothing of it stays.
    pub(super) async fn step(self, sql: &str) -> Result<Vec<SimpleQueryRow>, End> {
        match self.read(sql).await {
            Ok(rows) => Ok(rows),
            Err(End::Refused) => Err(self.roll_back().await),
            // When the server has ended the connection, the transaction has ended with it.
            Err(End::NotSent | End::Failed | End::Unknown) => Err(End::Failed),
        }
    }

    /// Asks to commit.
    pub(super) async fn commit(self) -> Result<(), End> {
        match self.write("commit").await {
            Ok(_) => Ok(()),
            // The server had ended the connection, and with it the transaction.
            Err(End::NotSent) => Err(End::Failed),
            Err(end) => Err(end),
        }
    }

    /// Gives the transaction up.
    pub(super) async fn roll_back(self) -> End {
        match self.session.run("rollback", self.deadline).await {
            Ok(_) => End::Refused,
            Err(_) => End::Failed,
        }
    }
}

/// The number in a row, if there is one.
pub(super) fn number<T: std::str::FromStr>(row: &SimpleQueryRow, at: usize) -> Option<T> {
    row.try_get(at).ok()??.parse().ok()
}
