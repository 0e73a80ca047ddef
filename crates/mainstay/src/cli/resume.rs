//! `mainstay resume`: automatic repair again.

use mainstay::api::Request;

use super::error::CliError;
use super::exit::Exit;
use super::output::Output;
use super::pause;
use super::target::Target;

/// Let Mainstay act again after a pause
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mainstay resume")]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(args: Args, output: Output) -> Result<Exit, CliError> {
    pause::set(&args.target, &Request::Resume, None, output).await
}
