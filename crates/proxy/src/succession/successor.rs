//! The side that takes over.

use std::io;
use std::os::unix::net::UnixStream as Blocking;
use std::path::Path;
use std::time::Duration;

use model::routes::RouteTable;
use tokio::task::spawn_blocking;

use super::message::{FORMAT, FromPredecessor, FromSuccessor, Legacy};
use super::{Estate, PATIENCE, claims_at, descriptors, message};

/// The connection to the predecessor. As long as it is kept, the predecessor leaves clients to this process.
#[derive(Debug)]
pub(crate) struct Claim(Blocking);

/// Asks the proxy with this control socket for its place.
///
/// # Errors
/// When there is none, or it is too old to hand over.
pub(crate) async fn claim(control: &Path) -> io::Result<(Claim, Estate)> {
    let at = claims_at(control);
    spawn_blocking(move || {
        let stream = Blocking::connect(&at)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let legacy: Legacy = message::read(&stream)?;
        if legacy.format != FORMAT {
            let text = format!("the proxy hands over in format {}, this one takes {FORMAT}", legacy.format);
            return Err(io::Error::other(text));
        }
        let open = descriptors::receive(&stream, legacy.listeners.len())?;
        let listeners = legacy.listeners.into_iter().zip(open).collect();
        Ok((Claim(stream), Estate { table: legacy.table, cookies: legacy.cookies, listeners }))
    })
    .await
    .map_err(io::Error::other)?
}

impl Claim {
    /// Says that all is prepared and waits for the predecessor to leave; with the routes in force by then.
    pub(crate) async fn ready(self, drain: Duration) -> io::Result<(Self, RouteTable)> {
        let drain_ms = u64::try_from(drain.as_millis()).unwrap_or(u64::MAX);
        spawn_blocking(move || {
            message::write(&self.0, &FromSuccessor::Ready { drain_ms })?;
            let FromPredecessor::Yours { table } = message::read(&self.0)?;
            Ok((self, table))
        })
        .await
        .map_err(io::Error::other)?
    }

    /// Lets the predecessor know that this process is not the one to be missed any more.
    pub(crate) fn release(&self) {
        if let Err(error) = message::write(&self.0, &FromSuccessor::Released) {
            tracing::debug!(%error, "the predecessor has ended already");
        }
    }
}
