//! A watch that survives its connection.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, Event, EventType, WatchOptions, WatchResponse, WatchStream};

use super::convert;
use crate::watch::WatchSender;
use crate::{Change, Changes, Error, Revision, WatchError};

/// How long opening the stream may take.
const OPEN: Duration = Duration::from_secs(3);
/// The pause before opening it again.
const PAUSE: Duration = Duration::from_millis(50);

/// What to watch, and how far it was delivered.
struct Cursor {
    system: Arc<str>,
    prefix: String,
    next: Revision,
}

/// Delivers every revision from `from` on until the reader is gone or etcd has compacted what is wanted.
pub(super) async fn feed(
    client: Client,
    system: Arc<str>,
    prefix: String,
    from: Revision,
    sender: WatchSender,
) {
    // etcd takes revision 0 for "from now on".
    let mut cursor = Cursor { system, prefix, next: from.max(Revision(1)) };
    tokio::select! {
        () = sender.closed() => {}
        error = cursor.run(client, &sender) => {
            // The reader may have gone at the same moment.
            let _ = sender.send(Err(error)).await;
        }
    }
}

impl Cursor {
    async fn run(&mut self, client: Client, sender: &WatchSender) -> WatchError {
        loop {
            match self.open(&client).await {
                Ok(mut stream) => {
                    if let Some(error) = self.deliver(&mut stream, sender).await {
                        return error;
                    }
                }
                Err(problem) => tracing::debug!(%problem, "watch not opened"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn open(&self, client: &Client) -> Result<WatchStream, String> {
        let options =
            WatchOptions::new().with_prefix().with_start_revision(convert::revision_to_etcd(self.next));
        let key = format!("{}{}", self.system, self.prefix);
        let opened =
            tokio::time::timeout(OPEN, async { client.watch_client().watch(key, Some(options)).await }).await;
        opened.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())
    }

    /// Until the stream breaks (nothing) or ends for good (why).
    async fn deliver(&mut self, stream: &mut WatchStream, sender: &WatchSender) -> Option<WatchError> {
        loop {
            let response = match stream.message().await {
                Ok(Some(response)) => response,
                Ok(None) => return None,
                Err(error) => {
                    tracing::debug!(%error, "watch broken");
                    return None;
                }
            };
            if response.compact_revision() > 0 {
                return Some(WatchError::Compacted {
                    oldest: convert::revision_of(response.compact_revision()),
                });
            }
            if response.canceled() {
                return None;
            }
            match self.changes(&response) {
                Ok(all) => {
                    for changes in all {
                        self.next = changes.revision.next();
                        if sender.send(Ok(changes)).await.is_err() {
                            return Some(WatchError::Closed);
                        }
                    }
                }
                Err(error) => {
                    // Only a key that somebody else wrote under our prefix; it must not stop the watch.
                    tracing::warn!(%error, "change left out");
                    self.next = convert::revision(response.header()).next();
                }
            }
        }
    }

    /// One item for each revision in the response.
    fn changes(&self, response: &WatchResponse) -> Result<Vec<Changes>, Error> {
        let mut all: Vec<Changes> = Vec::new();
        for event in response.events() {
            let Some((revision, change)) = self.change(event)? else { continue };
            match all.last_mut() {
                Some(last) if last.revision == revision => last.changes.push(change),
                Some(_) | None => all.push(Changes { revision, changes: vec![change] }),
            }
        }
        Ok(all)
    }

    fn change(&self, event: &Event) -> Result<Option<(Revision, Change)>, Error> {
        let Some(found) = event.kv() else { return Ok(None) };
        let change = match event.event_type() {
            EventType::Put => Change::Put(convert::entry(&self.system, found)?),
            EventType::Delete => Change::Deleted { key: convert::key(&self.system, found)? },
        };
        Ok(Some((convert::revision_of(found.mod_revision()), change)))
    }
}
