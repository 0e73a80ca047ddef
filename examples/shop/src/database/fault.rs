//! What went wrong, and whether trying again can help.

use std::error::Error as _;

use tokio_postgres::error::SqlState;

/// A statement without a result.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The database could not be reached, or did not answer, until the deadline. The statement may have been carried out.
    #[error("the database does not answer: {0}")]
    Unavailable(String),
    /// The database refused the statement; it was not carried out.
    #[error("the database refused: {0}")]
    Refused(String),
    /// The tables are not there.
    #[error("the tables are missing: {0}")]
    NoTables(String),
}

impl Fault {
    /// Sorts an error of one attempt; `Unavailable` is worth another.
    pub(super) fn of(error: &tokio_postgres::Error) -> Self {
        let reason = in_words(error);
        match error.code() {
            None => Self::Unavailable(reason),
            Some(code) if *code == SqlState::UNDEFINED_TABLE || *code == SqlState::INVALID_SCHEMA_NAME => {
                Self::NoTables(reason)
            }
            Some(code) if passes(code) => Self::Unavailable(reason),
            Some(_) => Self::Refused(reason),
        }
    }
}

/// Whether the condition goes away by itself: another server takes over, a transaction ends, a connection is freed.
fn passes(code: &SqlState) -> bool {
    let classes = ["08", "53", "57", "58"];
    let others = [
        SqlState::READ_ONLY_SQL_TRANSACTION,
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
    ];
    classes.iter().any(|class| code.code().starts_with(class)) || others.contains(code)
}

/// tokio-postgres says only "db error" or "error connecting to server" and keeps the reason in the source.
fn in_words(error: &tokio_postgres::Error) -> String {
    if let Some(db) = error.as_db_error() {
        return format!("{} ({})", db.message(), db.code().code());
    }
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
