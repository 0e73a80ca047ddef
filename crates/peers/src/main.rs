//! Patroni and pg_auto_failover on the lab's nodes, under the same faults and the same outside client as Mainstay.
//!
//! A development program behind `make bench-peers`, no part of the product. `peers bench` brings one system after another
//! up in network namespaces, measures every fault with the lab's own drills, and takes the system down again.
//!
//! What is the same for all: the machine, three nodes with PostgreSQL of one version and one set of parameters
//! ([`postgres`]), the faults ([`lab::drill::act`]), the client (a write every 10 ms, 300 ms to connect, 1 s for an
//! answer, then the next entry), the checks of lost and doubled writes. What differs is what belongs to a system: who
//! decides, and the way in. Patroni's clients come through HAProxy on each node, Mainstay's through its route on each
//! node, and in both cases the client begins at a node that is not struck.

mod field;
mod http;
mod layout;
mod patroni;
mod postgres;
mod unit;
mod variant;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use variant::Subject;

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
    Down,
    /// Keep the programs of a node running (started by the lab itself)
    #[command(hide = true)]
    Node { units: PathBuf },
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
    faults: Vec<String>,
    /// Where `scripts/setup-peers.sh` has put Patroni
    #[arg(long, default_value = "target/peers/venv")]
    patroni: PathBuf,
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    // Before anything else: the first process of a node must be alone when it makes its namespaces.
    if arguments.first().is_some_and(|word| word == "lab-node") {
        return lab::lab_node(&arguments[1..]);
    }
    let done = match Args::parse().command {
        Command::Bench(bench) => in_runtime(bench),
        Command::Down => field::down_all(),
        Command::Node { units } => unit::keep_running(Path::new(&units)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("peers: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn in_runtime(bench: Bench) -> Outcome<()> {
    let runtime = tokio::runtime::Runtime::new().map_err(|e| e.to_string())?;
    runtime.block_on(async {
        let field = field::Field::up(bench.systems[0], &bench.patroni).await?;
        eprintln!("whole");
        let run = field.measure(bench.faults[0].parse().map_err(|e| format!("{e}"))?).await;
        eprintln!("{run:#?}");
        field.down().await
    })
}
