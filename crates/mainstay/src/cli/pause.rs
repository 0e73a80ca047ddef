//! `mainstay pause`: no automatic repair for a while.

use std::time::Duration;

use mainstay::api::Request;

use super::connect::Connection;
use super::error::CliError;
use super::exit::Exit;
use super::output::Output;
use super::progress::Progress;
use super::target::Target;

/// How long the request, and its way to all agents, may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Let Mainstay watch but not act, for maintenance
///
/// Nothing fails over, restarts or moves by itself until `mainstay resume`. Facts and events are still collected.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mainstay pause --reason \"new switch in rack 4\"")]
pub(crate) struct Args {
    /// Why; it is shown to everyone who asks for the status
    #[arg(long, value_name = "WORDS")]
    reason: Option<String>,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(args: Args, output: Output) -> Result<Exit, CliError> {
    let reason = args.reason.unwrap_or_else(|| "an operator paused it".to_owned());
    set(&args.target, &Request::Pause { reason: reason.clone() }, Some(&reason), output).await
}

/// Pauses or resumes, and waits until the agent that knows best says so.
pub(super) async fn set(
    target: &Target,
    request: &Request,
    paused: Option<&str>,
    output: Output,
) -> Result<Exit, CliError> {
    let mut connection = Connection::open(target)?;
    let view = connection.view().await?;
    let mut progress = Progress::begin(output);
    let sentence = connection.done(&view.overview.node, request, LIMIT).await?;
    let missing = progress.until(&mut connection, LIMIT, |view| {
        (view.overview.paused.as_deref() != paused).then(|| format!("waiting for {}", view.overview.node))
    });
    if let Some(missing) = missing.await? {
        return Err(CliError::failed(format!(
            "it is agreed on, but not every agent knows it yet: {missing}"
        )));
    }
    output.print(&format!("{sentence} (after {} ms)\n", progress.elapsed().as_millis()))?;
    Ok(Exit::Done)
}
