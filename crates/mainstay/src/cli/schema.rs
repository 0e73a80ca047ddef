//! `mainstay schema`: the JSON schema of the system file.

use super::error::CliError;
use super::exit::Exit;
use super::output::Output;

/// Print the JSON schema of the system file, for editors
///
/// Editors with TOML support complete and explain the keys when the file begins with a line that names the schema.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mainstay schema > mainstay.schema.json
  sed -i '1i #:schema ./mainstay.schema.json' mainstay.toml")]
pub(crate) struct Args {}

pub(crate) async fn run(_: Args, output: Output) -> Result<Exit, CliError> {
    output.print_json(&model::system::schema())?;
    Ok(Exit::Done)
}
