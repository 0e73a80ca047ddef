//! Following changes in the order of their revisions.

use tokio::sync::mpsc;

use crate::{Entry, Revision};

/// One key's change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The key was written.
    Put(Entry),
    /// The key was deleted, or its lease ended.
    Deleted {
        /// The key.
        key: String,
    },
}

/// All that one revision changed under the watched prefix: a transaction is never seen in halves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// The revision.
    pub revision: Revision,
    /// At least one change.
    pub changes: Vec<Change>,
}

/// Why a watch ended. In both cases: list the prefix again, then watch from the revision after the listing's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// The changes between the last one delivered and `oldest` are no longer kept (the reader was too slow, the
    /// node came back from a snapshot, or `from` was too old).
    #[error("changes before revision {oldest} are no longer kept: list again and watch from there")]
    Compacted {
        /// The oldest revision that can still be watched from.
        oldest: Revision,
    },
    /// The store behind it was closed.
    #[error("the store was closed")]
    Closed,
}

/// A running watch. Dropping it ends it.
///
/// It lives through changes of leader and lost connections without a gap; while the store cannot be reached it is
/// merely silent. After an error it yields nothing more.
#[derive(Debug)]
pub struct Watch {
    receiver: mpsc::Receiver<Result<Changes, WatchError>>,
    ended: Option<WatchError>,
}

/// How many revisions may wait for a slow reader before the back end stops reading ahead.
const BUFFER: usize = 64;

/// Where a back end puts what its watch sees.
pub(crate) type WatchSender = mpsc::Sender<Result<Changes, WatchError>>;

impl Watch {
    /// A watch and the end that feeds it.
    pub(crate) fn channel() -> (WatchSender, Self) {
        let (sender, receiver) = mpsc::channel(BUFFER);
        (sender, Self { receiver, ended: None })
    }

    /// Waits for the next revision that changes something. Cancel safe: usable in `select!`.
    ///
    /// # Errors
    /// [`WatchError`] once the watch has ended, then again at every further call.
    pub async fn next(&mut self) -> Result<Changes, WatchError> {
        if let Some(error) = self.ended {
            return Err(error);
        }
        let item = self.receiver.recv().await.unwrap_or(Err(WatchError::Closed));
        if let Err(error) = item {
            self.ended = Some(error);
        }
        item
    }
}

impl Change {
    /// The key that changed.
    pub fn key(&self) -> &str {
        match self {
            Self::Put(entry) => &entry.key,
            Self::Deleted { key } => key,
        }
    }
}
