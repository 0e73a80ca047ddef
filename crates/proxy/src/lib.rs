//! The data plane of one node: what `mainstay proxy` runs.
//!
//! It listens for clients of the system's routes and passes their connections and requests on. It decides nothing
//! about the system: the local agent sends immutable route tables over a unix socket, each with a generation, and the
//! proxy answers when a table is in force for every connection. Without an agent it serves the last table, which it
//! also keeps in a file for its own restart.
//!
//! - [`core`]: every decision, without sockets and clocks.
//! - `plane`: the routes in force; takes tables, knows when one is in force for everybody.
//! - `control`: the unix socket of the agent, and the file with the last table.
//! - `listeners`: opens, supervises and closes listening sockets.
//! - `database`: layer 4 for PostgreSQL: waiting, greeting, carrying, draining.
//! - `service`: layer 7 for HTTP: choosing, repeating, ejecting, tunnelling; and layer 4 for what is not HTTP.
//! - `journal`: the access log.

use std::io;
use std::path::PathBuf;

use thiserror::Error;
use tokio::net::UnixListener;

mod clock;
mod control;
pub mod core;
mod crowd;
mod database;
mod dice;
mod farewell;
mod files;
mod journal;
mod listeners;
mod plane;
mod preamble;
mod service;
mod socket;
mod splice;

use control::state_file::StateFile;
use journal::Journal;
use plane::Plane;

/// Where one proxy has its files.
#[derive(Clone, Debug)]
pub struct ProxyOptions {
    /// The unix socket on which the agent connects (created with mode 0600).
    pub socket: PathBuf,
    /// The file that keeps the last table for a restart.
    pub state_file: PathBuf,
    /// The directory of the access log.
    pub log: PathBuf,
}

/// Why a proxy cannot run.
#[derive(Debug, Error)]
pub enum ProxyError {
    /// Another proxy of this node answers on the control socket.
    #[error(
        "another proxy already answers on {socket}; hint: stop it first, or give this one its own --root"
    )]
    AlreadyRunning {
        /// The control socket.
        socket: PathBuf,
    },
    /// The control socket cannot be made.
    #[error(
        "cannot listen on the control socket {socket}: {source}; hint: its directory must exist and be writable"
    )]
    Control {
        /// The control socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Runs a proxy until its future is dropped; it returns only if it cannot start.
///
/// Serves the table of the state file at once, then whatever agents send. Its connections live in tasks of the tokio
/// runtime that polls it and end with that runtime.
///
/// # Errors
/// When the control socket cannot be made or another proxy answers on it.
pub async fn run(options: ProxyOptions) -> Result<(), ProxyError> {
    let listener = control::listen(&options.socket).await?;
    let room = socket::raise_file_limit();
    let (state_file, last) = StateFile::open(options.state_file).await;
    let plane = Plane::new(room, state_file, Journal::open(&options.log));
    if let Some(table) = last {
        tracing::info!(
            generation = table.generation,
            "serving the table of the last run until an agent comes"
        );
        plane.restore(table);
    }
    serve_agents(listener, plane).await
}

async fn serve_agents(listener: UnixListener, plane: std::sync::Arc<Plane>) -> Result<(), ProxyError> {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(control::serve(stream, plane.clone()))),
            Err(error) => {
                tracing::warn!(%error, "cannot accept an agent's connection");
                tokio::time::sleep(listeners::ACCEPT_PAUSE).await;
            }
        }
    }
}
