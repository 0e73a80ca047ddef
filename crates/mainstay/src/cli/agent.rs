//! `mainstay agent`: the agent of one node.

use std::path::PathBuf;

use mainstay::agent::{self, Options};
use mainstay::install;
use model::NodeName;
use tracing_subscriber::EnvFilter;

use super::error::CliError;
use super::exit::Exit;
use super::join::install_error;
use super::load::load;
use super::output::Output;

/// The agent of one node (started by the service manager or the lab)
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// This node's name in the system file
    #[arg(long, value_name = "NAME")]
    node: String,
    /// Where everything of this node lies
    #[arg(long, value_name = "DIRECTORY")]
    root: PathBuf,
    /// The system file to begin with, where none was kept by `init`, `join` or an earlier run
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

pub(crate) async fn run(args: Args, _output: Output) -> Result<Exit, CliError> {
    log_to_stderr();
    mainstay::program::become_chosen(&args.root);
    end_with_any_part();
    let system = match &args.file {
        Some(file) => load(file, None)?.valid()?.0.system,
        None => install::known_system(&args.root).map_err(|error| install_error(&error))?,
    };
    let options = Options { node: NodeName::new(args.node), root: args.root, system };
    tokio::select! {
        ended = agent::run(options) => {
            ended.map_err(|error| CliError::failed("the agent cannot run").because(&error))?;
        }
        () = told_to_end() => {}
    }
    Ok(Exit::Done)
}

/// Ends the process when any of its tasks or threads panics: an agent without one of its parts would look well and do nothing,
/// and whoever started it starts it anew.
fn end_with_any_part() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        std::process::abort();
    }));
}

/// Waits for SIGTERM or SIGINT. What the agent supervises goes on without it.
pub(crate) async fn told_to_end() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Messages of the long-running roles go to stderr, which whoever started them keeps; `MAINSTAY_LOG` chooses which.
///
/// The coordination warns at every heartbeat to a node that is not there, fifteen times a second; that the node is not there
/// is said once, by others.
pub(crate) fn log_to_stderr() {
    let filter =
        EnvFilter::try_from_env("MAINSTAY_LOG").unwrap_or_else(|_| EnvFilter::new("info,openraft=error"));
    // An Err means that somebody installed one already, in a test.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .try_init();
}
