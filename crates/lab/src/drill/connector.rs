//! How a careful client keeps its connection: it stays at one node's route while that works, and turns to the next node
//! when it fails.

use std::net::SocketAddr;

use tokio_postgres::Config;

use super::session::{Deadlines, Session};

/// The way into the system.
#[derive(Debug)]
pub(crate) struct Connector {
    entries: Vec<SocketAddr>,
    login: Config,
    deadlines: Deadlines,
    /// The entry in use, counted on without end.
    entry: usize,
    /// Failures in a row at this entry.
    failures: u32,
    session: Option<Session>,
    opened: u64,
}

impl Connector {
    /// Connects to `entries`, beginning with the one at place `first`.
    pub(crate) fn new(entries: Vec<SocketAddr>, first: usize, login: Config, deadlines: Deadlines) -> Self {
        Self { entries, login, deadlines, entry: first, failures: 0, session: None, opened: 0 }
    }

    /// How many connections it has made.
    pub(crate) fn opened(&self) -> u64 {
        self.opened
    }

    /// The session in use if it is still open, else a new one at the first entry that takes us.
    pub(crate) async fn session(&mut self) -> Result<Session, String> {
        if let Some(session) = self.session.take().filter(|session| !session.is_closed()) {
            return Ok(session);
        }
        let mut reasons = Vec::new();
        for _ in 0..self.entries.len() {
            let entry = self.entries[self.entry % self.entries.len()];
            match Session::open_route(entry, &self.login, self.deadlines).await {
                Ok(session) => {
                    self.opened += 1;
                    return Ok(session);
                }
                Err(reason) => reasons.push(reason),
            }
            self.next_entry();
        }
        Err(reasons.join("; "))
    }

    /// Takes back a session that works; without one, the next statement makes a connection of its own.
    pub(crate) fn worked(&mut self, session: Option<Session>) {
        self.failures = 0;
        self.session = session;
    }

    /// Gives up a session that failed. After a lost connection the same entry is tried once more, because its node may
    /// know the new primary at once; an entry that answers late or refuses is left.
    pub(crate) fn failed(&mut self, session: &Session) {
        self.failures += 1;
        if !session.is_closed() || self.failures > 1 {
            self.next_entry();
        }
    }

    fn next_entry(&mut self) {
        self.entry += 1;
        self.failures = 0;
    }
}
