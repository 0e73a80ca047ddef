//! `mainstay proxy`: the data plane of one node.

use std::path::PathBuf;
use std::time::Duration;

use proxy::ProxyOptions;

use super::agent::{log_to_stderr, told_to_end};
use super::error::CliError;
use super::exit::Exit;
use super::output::Output;

/// The data plane of one node (started by the agent)
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where everything of this node lies
    #[arg(long, value_name = "DIRECTORY")]
    root: PathBuf,
    /// Take the place of the proxy that runs, without a client's noticing
    #[arg(long)]
    succeed: bool,
    /// How long connections may stay with that one, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    drain: u64,
}

pub(crate) async fn run(args: Args, _output: Output) -> Result<Exit, CliError> {
    log_to_stderr();
    let options = ProxyOptions {
        socket: args.root.join("run/proxy.sock"),
        state_file: args.root.join("state/routes.json"),
        log: args.root.join("log"),
        succeeds: args.succeed.then(|| Duration::from_secs(args.drain)),
    };
    tokio::select! {
        ended = proxy::run(options) => {
            ended.map_err(|error| CliError::failed("the proxy cannot run").because(&error))?;
        }
        () = told_to_end() => {}
    }
    Ok(Exit::Done)
}
