//! What a member writes down before it acts on it: promises, the term it led. On the agent's volume, never the database's.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use decide::agent::Durable;
use model::DatabaseName;

use super::{Shared, tell_trouble};

fn path(shared: &Shared, database: &DatabaseName) -> PathBuf {
    shared.places.state("promises").join(format!("{database}.json"))
}

/// Reads what an earlier run wrote down. A file that cannot be understood is not taken for "nothing promised": the
/// member then does nothing until somebody looks.
pub(super) async fn load_for_ever(shared: &Shared, database: &DatabaseName) -> Durable {
    loop {
        match load(shared, database) {
            Ok(durable) => return durable,
            Err(because) => tell_trouble(shared, database, because),
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

fn load(shared: &Shared, database: &DatabaseName) -> Result<Durable, String> {
    let path = path(shared, database);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Durable::default()),
        Err(error) => return Err(format!("the promises in {} cannot be read: {error}", path.display())),
    };
    serde_json::from_slice(&bytes).map_err(|error| {
        format!(
            "the promises in {} are damaged ({error}); if this member's data may be thrown away, stop the agent, remove \
             that file and the data, and start the agent again",
            path.display()
        )
    })
}

/// The number of the newest write of each file. A write whose caller gave up may still run on its thread: it must not
/// come after a newer one.
static NEWEST: Mutex<BTreeMap<PathBuf, u64>> = Mutex::new(BTreeMap::new());

/// Counts writes in the order in which they were asked for.
static WRITES: AtomicU64 = AtomicU64::new(0);

/// Replaces the file, unless something newer is already there.
fn write_in_order(path: PathBuf, bytes: &[u8], number: u64) -> std::io::Result<()> {
    let mut newest = NEWEST.lock().unwrap_or_else(PoisonError::into_inner);
    if newest.get(&path).is_some_and(|newest| *newest > number) {
        return Ok(());
    }
    effects::files::write_atomic(&path, bytes, 0o600)?;
    newest.insert(path, number);
    Ok(())
}

/// Makes it durable; returns only then.
pub(super) async fn keep(shared: &Shared, database: &DatabaseName, durable: &Durable) -> Result<(), String> {
    let path = path(shared, database);
    let bytes = serde_json::to_vec_pretty(durable).map_err(|error| error.to_string())?;
    let shown = path.display().to_string();
    let number = WRITES.fetch_add(1, Ordering::SeqCst);
    let failed = |error: &dyn std::fmt::Display| format!("the promise cannot be written to {shown}: {error}");
    let written = effects::disposable::start("promise", move || write_in_order(path, &bytes, number));
    match written.map_err(|error| failed(&error))?.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(failed(&error)),
        Err(error) => Err(failed(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_abandoned_write_never_replaces_a_newer_promise() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("orders.json");
        write_in_order(path.clone(), b"promised 7", 2).unwrap();
        write_in_order(path.clone(), b"promised 6", 1).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"promised 7");
        write_in_order(path.clone(), b"promised 8", 3).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"promised 8");
    }
}
