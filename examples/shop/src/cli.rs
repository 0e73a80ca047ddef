//! The command line.

use std::net::SocketAddr;

use clap::{Args, Parser, Subcommand};

/// A small ledger shop on PostgreSQL.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) serve: Serve,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What the program can do besides serving.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Place orders at a steady rate and check at the end that each acknowledged one was booked exactly once
    Load(Load),
}

/// Options of the shop itself.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Address and port to listen on
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8000")]
    pub(crate) listen: SocketAddr,
    /// Where reads and writes go
    #[arg(long, value_name = "URL", env = "DATABASE_URL", hide_env_values = true, default_value = "")]
    pub(crate) database_url: String,
    /// Where reads go that may be a little old; without it they go to the database as well
    #[arg(long, value_name = "URL", env = "REPLICA_URL", hide_env_values = true)]
    pub(crate) replica_url: Option<String>,
    /// Name of this instance, shown on the page
    #[arg(long, value_name = "NAME", env = "MAINSTAY_INSTANCE", default_value = "shop")]
    pub(crate) instance: String,
    /// Name of the machine, shown on the page
    #[arg(long, value_name = "NAME", env = "MAINSTAY_NODE", default_value = "this machine")]
    pub(crate) node: String,
}

/// Options of `shop load`.
#[derive(Debug, Args)]
pub(crate) struct Load {
    /// Address of the shop; may be given several times, then the next one is tried when one fails
    #[arg(long, value_name = "URL", required = true)]
    pub(crate) url: Vec<String>,
    /// Orders per second
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=5000))]
    pub(crate) rate: u32,
    /// How long to place new orders, in seconds
    #[arg(long = "for", value_name = "SECS", default_value_t = 10)]
    pub(crate) seconds: u64,
    /// How long to repeat an order that is not acknowledged, in seconds
    #[arg(long, value_name = "SECS", default_value_t = 30)]
    pub(crate) patience: u64,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}
