//! `mainstay authority`: a copy of the system's authority, and its return.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use mainstay::install;

use super::connect::STANDARD_ROOT;
use super::error::CliError;
use super::exit::Exit;
use super::join::install_error;
use super::output::Output;

/// Save or bring back the authority that lets nodes join
///
/// It lies on the node that founded the system. Running nodes do not need it; without it no further node can join and no
/// certificate can be made anew. Whoever holds its file can make any node: keep the copy as you keep a root password.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mainstay authority export /media/safe/shop-authority.pem
  mainstay authority import /media/safe/shop-authority.pem")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Write the authority with its private key into a new file that only you can read
    Export(Place),
    /// Let this node give out tokens, with an authority that was exported
    Import(Place),
}

#[derive(Debug, clap::Args)]
struct Place {
    /// The file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The node's directory
    #[arg(long, value_name = "DIRECTORY", default_value = STANDARD_ROOT)]
    root: PathBuf,
}

pub(crate) async fn run(args: Args, output: Output) -> Result<Exit, CliError> {
    let failed = |error| install_error(&error);
    match args.command {
        Command::Export(Place { file, root }) => {
            let text = install::export_authority(&root).map_err(failed)?;
            write_new(&file, &text).map_err(|error| {
                CliError::failed(format!("{} cannot be written", file.display())).because(&error)
            })?;
            output.print(&format!(
                "the authority is in {}; whoever reads it can make any node\n",
                file.display()
            ))?;
        }
        Command::Import(Place { file, root }) => {
            let text = std::fs::read_to_string(&file).map_err(|error| {
                CliError::with(Exit::Invalid, format!("{} cannot be read", file.display())).because(&error)
            })?;
            install::import_authority(&root, &text).map_err(failed)?;
            output.print("this node can let others in now: mainstay token\n")?;
        }
    }
    Ok(Exit::Done)
}

/// Writes a secret durably into a file that did not exist.
fn write_new(file: &Path, text: &str) -> std::io::Result<()> {
    let mut opened = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    opened.write_all(text.as_bytes())?;
    opened.sync_all()
}
