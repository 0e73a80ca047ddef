//! `mainstay failover`: a promotion that may lose writes, on an operator's word.

use std::time::Duration;

use mainstay::api::Request;
use model::status::{PrimaryFacts, Server};
use model::{DatabaseName, NodeName};

use super::connect::Connection;
use super::error::CliError;
use super::exit::Exit;
use super::output::{Look, Output, note};
use super::progress::Progress;
use super::status::verdict::{Verdict, Writes};
use super::status::view::View;
use super::takeover::Before;
use super::target::Target;

/// How long the leader may take to answer.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);

/// Promote a member although acknowledged writes may be lost
///
/// Only needed when too few members are left to prove that nothing is lost: Mainstay repairs everything else by itself.
/// Without need it is refused (exit code 3).
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mainstay failover orders --to w1 --accept-loss \"the building with e1 and e2 burned down\"")]
pub(crate) struct Args {
    /// The database
    #[arg(value_name = "DATABASE")]
    database: String,
    /// The member to promote
    #[arg(long, value_name = "NODE")]
    to: String,
    /// Your words for accepting the loss; they are kept in the events
    #[arg(long, value_name = "WORDS")]
    accept_loss: String,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(args: Args, output: Output) -> Result<Exit, CliError> {
    if args.accept_loss.trim().is_empty() {
        return Err(CliError::with(Exit::Invalid, "--accept-loss is empty")
            .hint("say in your own words why the loss is accepted; they are kept in the events"));
    }
    let mut connection = Connection::open(&args.target)?;
    let view = connection.view().await?;
    let before = Before::of(&view, &args.database)?;
    let to = NodeName::new(args.to);
    let risk = risk(&view, &before.database, &to);
    let mut progress = Progress::begin(output);
    let request =
        Request::Failover { database: before.database.clone(), to: to.clone(), statement: args.accept_loss };
    let sentence = connection.done(&view.overview.node, &request, REQUEST_LIMIT).await?;
    note(&format!("{} {risk}\n", output.on_stderr(Look::Warning, "Loss:")));
    progress.say(&sentence);
    let primary = before.next_primary(&mut connection, &mut progress).await?;
    let took = progress.elapsed().as_millis();
    progress.say(&format!("{primary} is promoted, every route leads to it"));
    output.print(&format!("{primary} is the primary of {} after {took} ms\n", args.database))?;
    report_waiting(&mut connection, &before.database, output).await?;
    Ok(Exit::Done)
}

/// Says so when the new primary has nobody to confirm its writes.
async fn report_waiting(
    connection: &mut Connection,
    database: &DatabaseName,
    output: Output,
) -> Result<(), CliError> {
    let view = connection.view().await?;
    if let Some(Writes::Wait { because, unblock }) = Verdict::of(&view).writes.get(database) {
        note(&format!("{} writes wait: {because}\n", output.on_stderr(Look::Warning, "Note:")));
        if let Some(unblock) = unblock {
            note(&format!("{} {unblock}\n", output.on_stderr(Look::Hint, "Hint:")));
        }
    }
    Ok(())
}

/// What may be lost, by what every member was last known to hold.
fn risk(view: &View, database: &DatabaseName, to: &NodeName) -> String {
    let held = |node: &NodeName| match &view.member(database, node)?.status.server {
        Server::Primary(PrimaryFacts { position, .. }) => Some(*position),
        Server::Standby(facts) => Some(facts.position),
        Server::Unknown
        | Server::Empty
        | Server::Stopped { .. }
        | Server::Busy { .. }
        | Server::Sick { .. } => None,
    };
    let others = view.members(database).iter().filter(|node| *node != to);
    let most = others.clone().filter_map(|node| Some((held(node)?, node))).max();
    match (held(to), most) {
        (Some(own), Some((most, _))) if own >= most => {
            format!(
                "{to} holds as much as any other member was last known to, {own}; what came later is lost"
            )
        }
        (Some(own), Some((most, node))) => format!(
            "{to} holds the log up to {own}, {node} was last known to hold it up to {most}: at least {} bytes of it are lost",
            most.lsn.0.saturating_sub(own.lsn.0)
        ),
        (Some(own), None) => format!("{to} holds the log up to {own}; nobody knows what the others hold"),
        (None, _) => format!("nobody knows how far the log of {to} reaches"),
    }
}

#[cfg(test)]
mod tests {
    use model::postgres::Lsn;

    use super::super::testkit::{END, healthy, member, seen, shop, silence};
    use super::*;

    #[test]
    fn the_loss_is_stated_by_what_was_last_known() {
        let mut overview = healthy(&shop(), "w1");
        silence(&mut overview, "e1");
        let (database, to) = ("orders".into(), NodeName::from("w1"));
        let told = risk(&seen(shop(), overview.clone()), &database, &to);
        assert!(told.starts_with("w1 holds as much as any other member was last known to"), "{told}");
        let Server::Standby(facts) = &mut member(&mut overview, "orders", "w1").server else {
            panic!("w1 is a standby")
        };
        facts.position.lsn = Lsn(END.0 - 4096);
        let told = risk(&seen(shop(), overview.clone()), &database, &to);
        assert!(told.ends_with("at least 4096 bytes of it are lost"), "{told}");
        member(&mut overview, "orders", "w1").server = Server::Unknown;
        let told = risk(&seen(shop(), overview), &database, &to);
        assert_eq!(told, "nobody knows how far the log of w1 reaches");
    }
}
