//! The outside client: an ordinary application that writes a row every 10 ms through the route, and keeps account.
//!
//! It behaves as a careful application would: it connects to one node's route, stays there while it works, turns to the
//! next node when that one fails, and never repeats a write silently. What it cannot know, it calls unknown.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use effects::clock;
use model::time::Moment;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_postgres::Config;

use super::connector::Connector;
use super::history::{Outcome, Write, WriteId, Writer};
use super::session::{Deadlines, Refusal, Session};
use super::table::{self, RunName};

/// How often the client of a drill writes.
pub const WRITE_EVERY: Duration = Duration::from_millis(10);

/// What a client needs to begin.
#[derive(Clone, Debug)]
pub struct Target {
    /// The route's address on every node, in the order in which they are tried.
    pub entries: Vec<SocketAddr>,
    /// Who logs in to which database; addresses in it are not used, `target_session_attrs` is.
    pub login: Config,
    /// The name of this run's rows.
    pub run: RunName,
    /// How long each step may take.
    pub deadlines: Deadlines,
    /// From the beginning of one write to the beginning of the next; see [`WRITE_EVERY`].
    pub every: Duration,
    /// Whether every write makes a connection of its own.
    pub anew: bool,
}

/// Gives each write of a run its number, whoever writes.
#[derive(Clone, Debug, Default)]
pub struct Ids(Arc<AtomicU64>);

/// The client at work.
#[derive(Debug)]
pub struct Client {
    shared: Arc<Shared>,
    task: JoinHandle<Vec<Write>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    acknowledged: AtomicU64,
    last_us: AtomicU64,
    connections: AtomicU64,
}

impl Ids {
    /// A number that nobody else gets.
    pub fn next(&self) -> WriteId {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

impl Client {
    /// Begins to write, on a runtime whose threads are where the client stands.
    pub fn start(runtime: &Handle, target: Target, ids: Ids) -> Self {
        let shared = Arc::new(Shared::default());
        let connector = Connector::new(target.entries.clone(), 0, target.login.clone(), target.deadlines);
        let worker = Worker { target, ids, shared: Arc::clone(&shared), connector };
        Self { shared, task: runtime.spawn(worker.work()) }
    }

    /// How many writes were acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::SeqCst)
    }

    /// How many connections it has made so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// When the last acknowledgement came; the beginning of time when none did.
    pub fn last_acknowledged(&self) -> Moment {
        Moment::from_micros(self.shared.last_us.load(Ordering::SeqCst))
    }

    /// Ends after the write under way and hands over the account.
    pub async fn stop(self) -> Result<Vec<Write>, String> {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.task.await.map_err(|e| format!("the client broke down: {e}"))
    }
}

struct Worker {
    target: Target,
    ids: Ids,
    shared: Arc<Shared>,
    connector: Connector,
}

/// How often one write may find its connection closed before it was sent.
const IDLE_LOSSES: u32 = 3;

impl Worker {
    async fn work(mut self) -> Vec<Write> {
        let mut writes = Vec::new();
        while !self.shared.stop.load(Ordering::SeqCst) {
            let next = Instant::now() + self.target.every;
            let write = self.write().await;
            if write.server().is_some() {
                self.shared.last_us.store(write.ended.as_micros(), Ordering::SeqCst);
                self.shared.acknowledged.fetch_add(1, Ordering::SeqCst);
            }
            writes.push(write);
            sleep_until(next).await;
        }
        writes
    }

    /// One write, of which not one byte is sent twice.
    async fn write(&mut self) -> Write {
        let id = self.ids.next();
        for _ in 0..IDLE_LOSSES {
            let begun = clock::now();
            let session = match self.session().await {
                Ok(session) => session,
                Err(reason) => return ended(id, begun, Outcome::Failed(reason)),
            };
            // Waiting for a connection is part of an outage, but in that time this statement was not under way.
            let sent = clock::now();
            let deadline = self.target.deadlines.statement;
            let outcome = match table::insert(&session, &self.target.run, id, deadline).await {
                Ok((server, false)) => Outcome::Acknowledged(server),
                Ok((server, true)) => Outcome::Unknown(format!("{server} acknowledged with a warning")),
                // Closed while idle: connecting again repeats nothing.
                Err(Refusal::NotSent) => continue,
                Err(Refusal::Refused(reason) | Refusal::Conflict(reason)) => Outcome::Failed(reason),
                Err(Refusal::Uncertain(reason)) => Outcome::Unknown(reason),
            };
            self.settle(session, &outcome);
            return ended(id, sent, outcome);
        }
        ended(
            id,
            clock::now(),
            Outcome::Failed(format!("the connection was closed {IDLE_LOSSES} times before use")),
        )
    }

    /// Keeps what works.
    fn settle(&mut self, session: Session, outcome: &Outcome) {
        match outcome {
            Outcome::Acknowledged(_) => self.connector.worked((!self.target.anew).then_some(session)),
            Outcome::Failed(_) | Outcome::Unknown(_) => self.connector.failed(&session),
        }
    }

    async fn session(&mut self) -> Result<Session, String> {
        let session = self.connector.session().await;
        self.shared.connections.store(self.connector.opened(), Ordering::SeqCst);
        session
    }
}

fn ended(id: WriteId, sent: Moment, outcome: Outcome) -> Write {
    Write { id, by: Writer::Client, sent, ended: clock::now(), outcome }
}
