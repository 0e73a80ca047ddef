//! Making the tables, as often and as long as it takes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::{Fault, Pool};

const SCRIPT: &str = include_str!("schema.sql");
/// How long one attempt may take; the database may be waiting for its first standby.
const ATTEMPT: Duration = Duration::from_secs(5);
/// Pause between attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// Whether the tables are there.
pub(crate) struct Schema {
    missing_because: Mutex<Option<String>>,
    wanted: Notify,
}

impl Schema {
    /// Starts to make the tables in the background.
    pub(crate) fn make(pool: Arc<Pool>) -> Arc<Self> {
        let first = Mutex::new(Some("the tables are being made".to_owned()));
        let schema = Arc::new(Self { missing_because: first, wanted: Notify::new() });
        tokio::spawn(schema.clone().keep_making(pool));
        schema
    }

    /// Why the tables are not there yet, or nothing when they are.
    pub(crate) fn missing_because(&self) -> Option<String> {
        self.missing_because.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has the tables made again when `fault` says that they are gone (somebody put an empty database in place).
    pub(crate) fn consider(&self, fault: &Fault) {
        match fault {
            Fault::NoTables(reason) => {
                self.set(Some(reason.clone()));
                self.wanted.notify_one();
            }
            Fault::Unavailable(_) | Fault::Refused(_) => {}
        }
    }

    async fn keep_making(self: Arc<Self>, pool: Arc<Pool>) {
        loop {
            match pool.script(SCRIPT, Instant::now() + ATTEMPT).await {
                Ok(()) => {
                    self.set(None);
                    self.wanted.notified().await;
                }
                Err(fault) => {
                    self.set(Some(fault.to_string()));
                    sleep(PAUSE).await;
                }
            }
        }
    }

    fn set(&self, reason: Option<String>) {
        *self.missing_because.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }
}
