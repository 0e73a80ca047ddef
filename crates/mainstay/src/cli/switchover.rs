//! `mainstay switchover`: a planned change of the primary.

use std::time::Duration;

use mainstay::api::Request;
use model::NodeName;

use super::connect::Connection;
use super::error::CliError;
use super::exit::Exit;
use super::output::Output;
use super::progress::Progress;
use super::takeover::Before;
use super::target::Target;

/// How long the request may take: the primary writes a checkpoint first, so that its shutdown is quick.
const REQUEST_LIMIT: Duration = Duration::from_secs(90);

/// Make another member the primary, in an orderly way and without losing a write
///
/// Writes wait for a moment and go on under the new primary; clients of a route notice a pause, not an error.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mainstay switchover orders
  mainstay switchover orders --to w1")]
pub(crate) struct Args {
    /// The database
    #[arg(value_name = "DATABASE")]
    database: String,
    /// The member to take over; without it the best one is chosen
    #[arg(long, value_name = "NODE")]
    to: Option<String>,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(args: Args, output: Output) -> Result<Exit, CliError> {
    let mut connection = Connection::open(&args.target)?;
    let mut progress = Progress::begin(output);
    switch(&mut connection, &mut progress, &args.database, args.to.map(NodeName::new), output).await?;
    Ok(Exit::Done)
}

/// Changes the primary and waits until all is as redundant as before.
pub(super) async fn switch(
    connection: &mut Connection,
    progress: &mut Progress,
    database: &str,
    to: Option<NodeName>,
    output: Output,
) -> Result<(), CliError> {
    let view = connection.view().await?;
    let before = Before::of(&view, database)?;
    progress.say("the primary writes a checkpoint, so that it can shut down at once");
    let request = Request::Switchover { database: before.database.clone(), to };
    let sentence = connection.done(&view.overview.node, &request, REQUEST_LIMIT).await?;
    let agreed = progress.elapsed();
    progress.say(&sentence);
    let primary = before.next_primary(connection, progress).await?;
    let paused = (progress.elapsed() - agreed).as_millis();
    progress.say(&format!("{primary} accepts writes, every route leads to it"));
    output
        .print(&format!("{primary} is the primary of {database}; writes paused for at most {paused} ms\n"))?;
    match before.redundancy(connection, progress).await? {
        None => {
            progress.say("every member follows it and confirms writes: as protected as before");
            Ok(())
        }
        Some(missing) => Err(CliError::with(
            Exit::Degraded,
            format!("{database} has its new primary, but is not as protected as before: {missing}"),
        )
        .hint("`mainstay status` shows what is being done about it")),
    }
}
