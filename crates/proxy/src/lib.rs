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
//! - `office`: the life of the process: it begins or takes over, serves, hands over, ends.
//! - `succession`: what one process passes to the next.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

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
mod office;
mod plane;
mod preamble;
mod service;
mod socket;
mod splice;
mod succession;

pub use office::run;
pub use succession::leaving_at;

/// Where one proxy has its files.
#[derive(Clone, Debug)]
pub struct ProxyOptions {
    /// The unix socket on which the agent connects (created with mode 0600).
    pub socket: PathBuf,
    /// The file that keeps the last table for a restart.
    pub state_file: PathBuf,
    /// The directory of the access log.
    pub log: PathBuf,
    /// Take the place of the proxy that answers on the socket, which lets connections go on for so long at most. `None`:
    /// there must be no such proxy.
    pub succeeds: Option<Duration>,
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
    /// The proxy that runs does not hand over.
    #[error(
        "cannot take the place of the proxy on {socket}: {source}; hint: it goes on serving; one that is too old to hand over has to be stopped first"
    )]
    Succession {
        /// The control socket.
        socket: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}
