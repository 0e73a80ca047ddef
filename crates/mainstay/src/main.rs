//! Mainstay: one binary and one file that make an application system highly available.
//!
//! `cli` holds the command line, a file for each command. The long-running roles (`agent`, `proxy`, `lab-node`) are hidden
//! commands of the same binary.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    transport::install_crypto_provider();
    cli::main()
}
