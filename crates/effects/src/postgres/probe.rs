//! Questions to a server that only a healthy one answers: a new connection, and a write that reached the disk.
//!
//! An open connection proves nothing about new ones (a hung postmaster), a new one nothing about writes (a hung disk).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::session::{Session, SqlError, last_text};

/// How many probes may hang at the same time. Each hanging one holds a connection and a server process.
const MOST_HANGING: u32 = 4;

/// A transactional message in the log: it needs a transaction id, so its commit is flushed like any other; it touches no
/// table, so no lock, vacuum or full tablespace can be mistaken for a dead disk, and it needs no schema.
const WRITE: &str = "SELECT pg_logical_emit_message(true, 'mainstay', 'probe')";

/// Asks probe questions, each over a new connection.
#[derive(Clone)]
pub struct Prober {
    session: Arc<Session>,
    hanging: Arc<AtomicU32>,
}

/// A probe that was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probed {
    /// How long the answer took.
    pub took: Duration,
}

/// A probe that was not answered well.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// No answer in time. The question may still be answered; it is forgotten.
    #[error("no answer within {after:?} to a new connection{}", if *.write { " with a flushed write" } else { "" })]
    Deadline {
        /// How long it was waited for.
        after: Duration,
        /// Whether it was a write.
        write: bool,
    },
    /// Not asked, because several earlier questions still hang.
    #[error("{hanging} earlier probes still wait for an answer")]
    Backlog {
        /// How many.
        hanging: u32,
    },
    /// It said no.
    #[error(transparent)]
    Sql(#[from] SqlError),
}

impl Prober {
    /// A prober of a member's server.
    pub fn new(member: &super::Member) -> Self {
        Self { session: Arc::new(member.session("mainstay probe")), hanging: Arc::new(AtomicU32::new(0)) }
    }

    /// Connects anew and has a tiny write flushed to this server's own disk (not to standbys).
    ///
    /// # Errors
    /// See [`ProbeError`]; also when the server is a standby.
    pub async fn write(&self, deadline: Duration) -> Result<Probed, ProbeError> {
        self.ask(WRITE, true, deadline).await
    }

    /// Connects anew and has the simplest question answered.
    ///
    /// # Errors
    /// See [`ProbeError`].
    pub async fn answer(&self, deadline: Duration) -> Result<Probed, ProbeError> {
        self.ask("SELECT 1", false, deadline).await
    }

    async fn ask(&self, sql: &'static str, write: bool, deadline: Duration) -> Result<Probed, ProbeError> {
        let begin = Instant::now();
        let hanging = self.hanging.load(Ordering::Relaxed);
        if hanging >= MOST_HANGING {
            return Err(ProbeError::Backlog { hanging });
        }
        let (sender, receiver) = oneshot::channel();
        let (session, count) = (Arc::clone(&self.session), Hanging::new(&self.hanging));
        // The question goes on after the deadline, so that it is known how many hang. It ends when the server answers,
        // when the connection breaks, or at last when the server is gone.
        tokio::spawn(async move {
            let answer = ask_anew(&session, sql).await;
            drop(count);
            // The caller may have given up.
            let _ = sender.send(answer);
        });
        match tokio::time::timeout(deadline, receiver).await {
            Ok(Ok(answer)) => Ok(answer.map(|()| Probed { took: begin.elapsed() })?),
            Ok(Err(_)) | Err(_) => Err(ProbeError::Deadline { after: deadline, write }),
        }
    }
}

/// Counts one question for as long as it lives.
struct Hanging(Arc<AtomicU32>);

impl Hanging {
    fn new(count: &Arc<AtomicU32>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn ask_anew(session: &Session, sql: &str) -> Result<(), SqlError> {
    // Long enough to outlive any deadline; a hung postmaster never answers, and its socket must not be kept for ever.
    const FORGET_AFTER: Duration = Duration::from_secs(60);
    let asked = async {
        let client = session.new_connection(FORGET_AFTER).await?;
        let rows = client.simple_query(sql).await.map_err(|error| session.in_words(&error))?;
        if last_text(&rows).is_empty() { Err(SqlError::Unexpected("an empty answer".into())) } else { Ok(()) }
    };
    tokio::time::timeout(FORGET_AFTER, asked).await.unwrap_or(Err(SqlError::Deadline { after: FORGET_AFTER }))
}
