//! `mainstay scale`: another number of instances than the file says.

use std::time::Duration;

use model::ServiceName;
use model::upkeep::UpkeepChange;
use serde::Serialize;

use super::drain;
use super::error::CliError;
use super::exit::Exit;
use super::output::Output;
use super::status::view::View;
use super::target::Target;

/// How long it may take until so many instances are ready.
const READY_LIMIT: Duration = Duration::from_secs(180);

/// Run another number of instances of a service
///
/// It stands until `--undo`, whatever file is applied meanwhile. An instance that is too many gets no new requests and ends
/// when it has answered those that it has.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mainstay scale web 6
  mainstay scale web --undo")]
pub(crate) struct Args {
    /// The service
    #[arg(value_name = "SERVICE")]
    service: String,
    /// How many instances
    #[arg(value_name = "INSTANCES", required_unless_present = "undo", conflicts_with = "undo")]
    instances: Option<u32>,
    /// As many as the file says, or as the load needs where the file wants that
    #[arg(long)]
    undo: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'r> {
    service: &'r ServiceName,
    instances: usize,
    took_ms: u128,
}

pub(crate) async fn run(args: Args, output: Output) -> Result<Exit, CliError> {
    let service = ServiceName::new(args.service);
    let change = UpkeepChange::Scale { service: service.clone(), instances: args.instances };
    let (mut connection, mut progress) = drain::asked(&args.target, change, output).await?;
    let wanted = |view: &View| args.instances.unwrap_or_else(|| view.wanted(&service));
    let mut count = 0;
    let missing = progress.until(&mut connection, READY_LIMIT, |view| {
        if args.undo && view.overview.upkeep.scaled.contains_key(&service) {
            return Some(format!("waiting for {}", view.overview.node));
        }
        count = usize::try_from(wanted(view)).unwrap_or(usize::MAX);
        missing(view, &service, count)
    });
    if let Some(missing) = missing.await? {
        let message = format!("{service} is not scaled after {} s: {missing}", READY_LIMIT.as_secs());
        return Err(CliError::with(Exit::Degraded, message)
            .hint("it goes on; `mainstay status --watch` shows how far it is"));
    }
    let took = progress.elapsed().as_millis();
    match args.json {
        true => output.print_json(&Report { service: &service, instances: count, took_ms: took })?,
        false => output.print(&format!("{count} instances of {service} serve (after {took} ms)\n"))?,
    }
    Ok(Exit::Done)
}

/// What is still to happen.
fn missing(view: &View, service: &ServiceName, wanted: usize) -> Option<String> {
    if let Some(reason) = &view.overview.paused {
        return Some(format!("nothing is placed while the automation is paused: {reason}"));
    }
    let (all, ready) = (view.instances(service).len(), view.ready(service).len());
    if ready < wanted {
        return Some(format!("{ready} of {wanted} are ready"));
    }
    (all > wanted).then(|| format!("{} too many: ending", all - wanted))
}
