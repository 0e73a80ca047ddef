//! Typed values over the byte-level trait.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{BoxFuture, Coordinator, Entry, Error, Revision, Txn, TxnOutcome};

/// JSON in, JSON out. Implemented for every [`Coordinator`], also behind `dyn`.
pub trait JsonCoordinator {
    /// Reads a key as `T`, with the revision to compare with when changing it.
    fn get_json<'a, T: DeserializeOwned + Send + 'a>(
        &'a self,
        key: &'a str,
        within: Duration,
    ) -> BoxFuture<'a, Result<Option<(T, Revision)>, Error>>;

    /// Writes a key whatever it held before; returns the revision.
    fn put_json<'a, T: Serialize + Sync + 'a>(
        &'a self,
        key: &'a str,
        value: &'a T,
        within: Duration,
    ) -> BoxFuture<'a, Result<Revision, Error>>;

    /// Writes a key only if it was last changed by `expected` (`Revision(0)`: only if it is absent).
    fn compare_and_set_json<'a, T: Serialize + Sync + 'a>(
        &'a self,
        key: &'a str,
        expected: Revision,
        value: &'a T,
        within: Duration,
    ) -> BoxFuture<'a, Result<TxnOutcome, Error>>;
}

impl Entry {
    /// The value as `T`.
    ///
    /// # Errors
    /// [`Error::Malformed`] with the key and what the parser said.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.value)
            .map_err(|error| Error::Malformed { key: self.key.clone(), problem: error.to_string() })
    }
}

impl<C: Coordinator + ?Sized> JsonCoordinator for C {
    fn get_json<'a, T: DeserializeOwned + Send + 'a>(
        &'a self,
        key: &'a str,
        within: Duration,
    ) -> BoxFuture<'a, Result<Option<(T, Revision)>, Error>> {
        Box::pin(async move {
            let Some(entry) = self.get(key, within).await? else { return Ok(None) };
            Ok(Some((entry.json()?, entry.modified)))
        })
    }

    fn put_json<'a, T: Serialize + Sync + 'a>(
        &'a self,
        key: &'a str,
        value: &'a T,
        within: Duration,
    ) -> BoxFuture<'a, Result<Revision, Error>> {
        Box::pin(async move {
            match self.txn(Txn::new().put(key, to_json(key, value)?), within).await? {
                TxnOutcome::Committed(revision) => Ok(revision),
                // No compare was given, so none can fail; should a store claim so, nothing was written.
                TxnOutcome::Conflict { .. } => Err(Error::Invalid("conflict without a compare".to_owned())),
            }
        })
    }

    fn compare_and_set_json<'a, T: Serialize + Sync + 'a>(
        &'a self,
        key: &'a str,
        expected: Revision,
        value: &'a T,
        within: Duration,
    ) -> BoxFuture<'a, Result<TxnOutcome, Error>> {
        Box::pin(async move {
            let txn = Txn::new().compare(key, expected).put(key, to_json(key, value)?);
            self.txn(txn, within).await
        })
    }
}

fn to_json<T: Serialize>(key: &str, value: &T) -> Result<Bytes, Error> {
    serde_json::to_vec(value)
        .map(Bytes::from)
        .map_err(|error| Error::Malformed { key: key.to_owned(), problem: error.to_string() })
}
