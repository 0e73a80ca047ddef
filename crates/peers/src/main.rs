//! Patroni and pg_auto_failover on the lab's nodes, under the same faults and the same outside client as Mainstay.
//!
//! A development program behind `make bench-peers`, no part of the product. `peers bench` brings one system after another
//! up in network namespaces, measures every fault with the lab's own drills, and takes the system down again.
//!
//! Everything it makes lies below `/var/lib/mainstay/peers` (Mainstay's own lab where `mainstay up` puts it) and is removed at
//! the end, also when a signal ends it; `peers down` removes what a killed one left.
//!
//! What is the same for all:
//! - the machine, three nodes on one line, PostgreSQL of one version with one set of parameters ([`postgres`]);
//! - durability: any one of the two standbys confirms each commit ([`patroni`], [`autofailover`]);
//! - the faults ([`lab::drill::act`]) and the checks of lost and doubled writes;
//! - the client: a write every 10 ms on a connection that it keeps, 300 ms to connect, 1 s for an answer, then the next
//!   entry. It begins at a node that is not struck.
//!
//! What differs is what belongs to a system: who decides, and the way in. Patroni's clients come through HAProxy on each
//! node, Mainstay's through its route on each node, those of pg_auto_failover with a list of the members and
//! `target_session_attrs=read-write`, each as its own documentation says. Only Mainstay guards its members' port by the
//! kernel and has passwords of its own making; neither is in the path of a fault.
//!
//! "Tuned" is the shortest that a peer accepts or that still works here: Patroni raises a `ttl` below 20 s to 20 s.

mod autofailover;
mod bench;
mod cost;
mod field;
mod http;
mod layout;
mod mainstay;
mod patroni;
mod peer;
mod place;
mod postgres;
mod raise;
mod seen;
mod table;
mod unit;
mod variant;
mod versions;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use variant::{Fault, Subject};

/// A result whose error is a sentence for the one who runs the bench.
pub(crate) type Outcome<T> = Result<T, String>;

#[derive(Debug, Parser)]
#[command(name = "peers", about = "Measure Mainstay and its peers under the same faults")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure and write the table
    Bench(Bench),
    /// Take down what an interrupted bench left
    Down {
        /// The product's binary
        #[arg(long, default_value = "target/release/mainstay")]
        mainstay: PathBuf,
    },
    /// Keep the programs of a node running (started by the lab itself)
    #[command(hide = true)]
    Node {
        /// Which
        units: PathBuf,
    },
}

/// What is measured, and with what.
#[derive(Debug, clap::Args)]
pub(crate) struct Bench {
    /// How often each fault
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Systems, separated by commas; all when left out
    #[arg(long, value_delimiter = ',')]
    systems: Vec<Subject>,
    /// Faults, separated by commas; all when left out
    #[arg(long, value_delimiter = ',')]
    faults: Vec<Fault>,
    /// One system at a time, also those with default timers
    #[arg(long)]
    apart: bool,
    /// Where `scripts/setup-peers.sh` has put Patroni
    #[arg(long, value_name = "DIRECTORY", default_value = "target/peers/venv")]
    patroni: PathBuf,
    /// The product's binary
    #[arg(long, value_name = "FILE", default_value = "target/release/mainstay")]
    mainstay: PathBuf,
    /// Where the figures and the table go
    #[arg(long, value_name = "DIRECTORY", default_value = "target/bench")]
    out: PathBuf,
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    // Before anything else: the first process of a node must be alone when it makes its namespaces.
    if arguments.first().is_some_and(|word| word == "lab-node") {
        return lab::lab_node(&arguments[1..]);
    }
    let done = match Args::parse().command {
        Command::Bench(bench) => in_runtime(bench::run(bench)),
        Command::Down { mainstay } => in_runtime(async move { bench::down_all(&mainstay).await }),
        Command::Node { units } => unit::keep_running(&units),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("peers: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn in_runtime(work: impl Future<Output = Outcome<()>>) -> Outcome<()> {
    let runtime = tokio::runtime::Runtime::new().map_err(|e| format!("starting: {e}"))?;
    let done = runtime.block_on(work);
    // What was interrupted may still wait for a process of the lab.
    runtime.shutdown_background();
    done
}
