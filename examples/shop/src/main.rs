//! A small shop with a double-entry ledger: what someone's application could look like that Mainstay keeps available.
//!
//! It knows nothing of Mainstay but two connection strings (`DATABASE_URL` for reads and writes, `REPLICA_URL` for reads
//! that may be a little old). Every order carries a key of the client's choice, so that a repeated order is booked once;
//! an order is answered only after its commit.

mod cli;
mod database;
mod ledger;
mod load;
mod web;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start: {error}")),
    };
    let result = match cli.command {
        Some(Command::Load(options)) => runtime.block_on(load::run(options)),
        None => runtime.block_on(web::run(cli.serve)).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|reason| fail(&reason))
}

fn fail(reason: &str) -> ExitCode {
    eprintln!("shop: {reason}");
    ExitCode::FAILURE
}
