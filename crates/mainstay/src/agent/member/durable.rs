//! What a member writes down before it acts on it: promises, the term it led. On the agent's volume, never the database's.

use std::path::PathBuf;
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

/// Makes it durable; returns only then.
pub(super) async fn keep(shared: &Shared, database: &DatabaseName, durable: &Durable) -> Result<(), String> {
    let path = path(shared, database);
    let bytes = serde_json::to_vec_pretty(durable).map_err(|error| error.to_string())?;
    let shown = path.display().to_string();
    let written =
        tokio::task::spawn_blocking(move || effects::files::write_atomic(&path, &bytes, 0o600)).await;
    match written {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("the promise cannot be written to {shown}: {error}")),
        Err(error) => Err(error.to_string()),
    }
}
