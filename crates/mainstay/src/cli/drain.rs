//! `mainstay drain` and `mainstay undrain`: a node is emptied for maintenance, and used again.

use std::time::Duration;

use mainstay::api::Request;
use model::NodeName;
use model::upkeep::UpkeepChange;
use serde::Serialize;

use super::columns::listed;
use super::connect::Connection;
use super::error::CliError;
use super::exit::Exit;
use super::output::Output;
use super::progress::Progress;
use super::status::view::View;
use super::target::Target;

/// How long the request may take: a primary there writes a checkpoint first, so that its shutdown is quick.
const REQUEST_LIMIT: Duration = Duration::from_secs(90);

/// How long a node may take to become empty until the command gives up watching it.
const EMPTY_LIMIT: Duration = Duration::from_secs(300);

/// How long all agents may take to know that a node is used again.
const KNOWN_LIMIT: Duration = Duration::from_secs(10);

/// Empty a node for maintenance: its instances move, its primaries are handed over
///
/// An instance elsewhere is ready before one here stops, and this one stops when no proxy gives it requests any more. The
/// node's standbys, its proxy and its vote stay. It stays drained, also over restarts, until `mainstay undrain`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mainstay drain e1 --reason \"new disk\"
  mainstay drain e1 --json")]
pub(crate) struct Args {
    /// The node
    #[arg(value_name = "NODE")]
    node: String,
    /// Why; it is shown to everyone who asks for the status
    #[arg(long, value_name = "WORDS", default_value = "an operator drained it", hide_default_value = true)]
    reason: String,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// Use a drained node again
///
/// Instances come back when they are placed anew; what runs elsewhere stays where it is.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mainstay undrain e1")]
pub(crate) struct UndrainArgs {
    /// The node
    #[arg(value_name = "NODE")]
    node: String,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'r> {
    node: &'r NodeName,
    drained: bool,
    took_ms: u128,
}

pub(crate) async fn run(args: Args, output: Output) -> Result<Exit, CliError> {
    let node = NodeName::new(args.node);
    let change = UpkeepChange::Drain { node: node.clone(), reason: args.reason };
    let (mut connection, mut progress) = asked(&args.target, change, output).await?;
    let missing = progress.until(&mut connection, EMPTY_LIMIT, |view| left_on(view, &node)).await?;
    if let Some(missing) = missing {
        let message = format!("{node} is not empty after {} s: {missing}", EMPTY_LIMIT.as_secs());
        return Err(CliError::with(Exit::Degraded, message).hint(format!(
            "it goes on; `mainstay status --watch` shows how far it is, `mainstay undrain {node}` takes it back"
        )));
    }
    let took = progress.elapsed().as_millis();
    match args.json {
        true => output.print_json(&Report { node: &node, drained: true, took_ms: took })?,
        false => output.print(&format!("{node} is empty and can be switched off (after {took} ms)\n"))?,
    }
    Ok(Exit::Done)
}

pub(crate) async fn run_undrain(args: UndrainArgs, output: Output) -> Result<Exit, CliError> {
    let node = NodeName::new(args.node);
    let change = UpkeepChange::Undrain { node: node.clone() };
    let (mut connection, mut progress) = asked(&args.target, change, output).await?;
    let drained = |view: &View| {
        view.overview.upkeep.is_drained(&node).then(|| format!("waiting for {}", view.overview.node))
    };
    if let Some(missing) = progress.until(&mut connection, KNOWN_LIMIT, drained).await? {
        return Err(CliError::failed(format!(
            "it is agreed on, but not every agent knows it yet: {missing}"
        )));
    }
    match args.json {
        true => {
            let took_ms = progress.elapsed().as_millis();
            output.print_json(&Report { node: &node, drained: false, took_ms })?;
        }
        false => output.print(&format!("{node} is used again\n"))?,
    }
    Ok(Exit::Done)
}

/// Asks for the change and says what was agreed on.
pub(super) async fn asked(
    target: &Target,
    change: UpkeepChange,
    output: Output,
) -> Result<(Connection, Progress), CliError> {
    let mut connection = Connection::open(target)?;
    let view = connection.view().await?;
    let mut progress = Progress::begin(output);
    let sentence = connection.done(&view.overview.node, &Request::Upkeep { change }, REQUEST_LIMIT).await?;
    progress.say(&sentence);
    Ok((connection, progress))
}

/// What still keeps a drained node busy.
fn left_on(view: &View, node: &NodeName) -> Option<String> {
    if !view.overview.upkeep.is_drained(node) {
        return Some(format!("waiting for {}", view.overview.node));
    }
    if let Some(reason) = &view.overview.paused {
        return Some(format!("nothing moves while the automation is paused: {reason}"));
    }
    let instances = view.overview.nodes.get(node).map(|summary| summary.instances.as_slice());
    let ids: Vec<&str> = instances.unwrap_or_default().iter().map(|instance| instance.id.as_str()).collect();
    if !ids.is_empty() && view.is_here(node) {
        let (serve, their) = if ids.len() == 1 { ("serves", "its") } else { ("serve", "their") };
        return Some(format!("{} {serve} until {their} work is done elsewhere", listed(ids)));
    }
    let led = view.overview.databases.iter().find(|(_, record)| record.primary() == Some(node));
    if let Some((database, _)) = led {
        return Some(format!("{node} is still the primary of {database}"));
    }
    // Until every new primary serves, the node's own log may still be needed.
    let waiting = view.overview.databases.keys().find(|database| view.serving(database).is_none());
    waiting.map(|database| format!("{database} is changing its primary"))
}

#[cfg(test)]
mod tests {
    use super::super::testkit::{healthy, seen, shop};
    use super::*;

    #[test]
    fn a_node_is_empty_without_instances_and_primaries() {
        let mut overview = healthy(&shop(), "w1");
        let node = NodeName::from("e1");
        let left = |overview: &decide::agent::Overview| left_on(&seen(shop(), overview.clone()), &node);
        assert_eq!(left(&overview), Some("waiting for w1".to_owned()));
        overview.upkeep.drained.insert(node.clone(), "new disk".to_owned());
        assert!(left(&overview).unwrap().starts_with("web-1@e1 serves until"), "{:?}", left(&overview));
        overview.nodes.get_mut("e1").unwrap().instances.clear();
        assert_eq!(left(&overview), Some("e1 is still the primary of orders".to_owned()));
        let other = NodeName::from("w1");
        overview.upkeep.drained.insert(other.clone(), String::new());
        overview.nodes.get_mut("w1").unwrap().instances.clear();
        assert_eq!(left_on(&seen(shop(), overview), &other), None);
    }
}
