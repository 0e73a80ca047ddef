//! A database and its members in the status.

use std::collections::BTreeMap;
use std::fmt::Write;

use decide::agent::MemberSummary;
use model::leadership::{Leadership, Phase};
use model::status::Server;
use model::{DatabaseName, NodeName};

use crate::cli::columns::{Cell, listed, table};
use crate::cli::output::{Look, Output};
use crate::cli::status::verdict::Writes;
use crate::cli::status::view::{Heard, View};

const HEADS: [&str; 5] = ["member", "role", "behind", "confirms", "does"];

/// The heading of a database, and a line for each member.
pub(super) fn database(
    view: &View,
    name: &DatabaseName,
    writes: &BTreeMap<DatabaseName, Writes>,
    output: Output,
) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "\n{}: {}",
        output.on_stdout(Look::Heading, &format!("Database {name}")),
        summary(view, name, writes, output)
    );
    let members = view.members(name);
    let rows: Vec<Vec<Cell>> = members.iter().map(|node| row(view, name, node)).collect();
    out + &table(&HEADS, &rows, output)
}

fn summary(
    view: &View,
    name: &DatabaseName,
    writes: &BTreeMap<DatabaseName, Writes>,
    output: Output,
) -> String {
    let flow = match writes.get(name) {
        Some(Writes::Flow) => output.on_stdout(Look::Good, "writes flow"),
        Some(Writes::Pause { .. }) => output.on_stdout(Look::Warning, "writes pause"),
        Some(Writes::Wait { .. }) | None => output.on_stdout(Look::Error, "writes wait"),
    };
    match view.record(name) {
        None => flow,
        Some(record) => {
            let durability = durability(view, name, record);
            format!("{flow}, {}, term {}; {durability}", leadership(record), record.term)
        }
    }
}

fn leadership(record: &Leadership) -> String {
    match &record.phase {
        Phase::Founding { by } => format!("created by {by}"),
        Phase::Led { primary } => format!("primary {primary}"),
        Phase::Revoking { former, .. } => format!("no primary (was {former})"),
        Phase::HandingOver { from, to } => format!("{from} hands over to {to}"),
    }
}

/// When a write is acknowledged.
fn durability(view: &View, name: &DatabaseName, record: &Leadership) -> String {
    let members: Vec<&str> = record.sync.members.iter().map(NodeName::as_str).collect();
    let changing = if record.previous_sync.is_empty() { "" } else { " (the set is being changed)" };
    match (view.confirmations(name), members.as_slice()) {
        (0, _) => "a write is acknowledged before any standby has it".to_owned(),
        (_, []) => format!("no write is acknowledged: no standby is in the sync set yet{changing}"),
        (_, [one]) => format!("a write is acknowledged once {one} has it{changing}"),
        (k, all) if k == all.len() => {
            format!("a write is acknowledged once {} have it{changing}", listed(all))
        }
        (k, all) => {
            let have = if k == 1 { "has" } else { "have" };
            format!("a write is acknowledged once {k} of {} {have} it{changing}", all.join(", "))
        }
    }
}

fn row(view: &View, database: &DatabaseName, node: &NodeName) -> Vec<Cell> {
    let member = view.member(database, node);
    let (role, does) = match (view.heard(node), member) {
        (Heard::Yes, Some(member)) => at_work(view, database, node, member),
        (Heard::CutOff, Some(member)) => {
            let (role, does) = at_work(view, database, node, member);
            (role, Cell::new(Look::Error, format!("cut off; {}", does.text())))
        }
        (Heard::Yes | Heard::Never, None) => ("-", "has not been seen yet".into()),
        (heard, member) => (last_role(member), Cell::new(Look::Error, away(heard))),
    };
    vec![
        node.as_str().into(),
        role.into(),
        behind(view, database, node).map_or("-".to_owned(), bytes).into(),
        confirms(view, database, node),
        does,
    ]
}

fn away(heard: Heard) -> &'static str {
    match heard {
        Heard::Yes => "",
        Heard::Silent => "its node is silent",
        Heard::AgentGone => "its agent has ended",
        Heard::Never => "its node has not been heard yet",
        Heard::CutOff => "its node is cut off",
    }
}

/// What a member was when it was last heard.
fn last_role(member: Option<&MemberSummary>) -> &'static str {
    match member.map(|member| &member.status.server) {
        Some(Server::Primary(_) | Server::Sick { primary: true, .. }) => "primary?",
        Some(Server::Standby(_) | Server::Sick { primary: false, .. }) => "standby?",
        Some(Server::Unknown | Server::Empty | Server::Stopped { .. } | Server::Busy { .. }) | None => "-",
    }
}

fn at_work(
    view: &View,
    database: &DatabaseName,
    node: &NodeName,
    member: &MemberSummary,
) -> (&'static str, Cell) {
    let leads = view.record(database).and_then(Leadership::primary) == Some(node);
    let (role, mut does) = match &member.status.server {
        Server::Primary(facts) if leads && view.serving(database).is_some() => {
            ("primary", waiting(facts.waiting_commits).into())
        }
        Server::Primary(_) if leads => ("primary", Cell::new(Look::Warning, "is being promoted")),
        Server::Primary(_) => {
            ("former", Cell::new(Look::Error, "still runs as a primary of a term that is over"))
        }
        Server::Standby(facts) if leads => (
            "standby",
            Cell::new(Look::Warning, if facts.streaming { "takes over" } else { "is being promoted" }),
        ),
        Server::Standby(facts) if facts.streaming => ("standby", "receives log".into()),
        Server::Standby(_) => ("standby", Cell::new(Look::Warning, "does not receive log")),
        Server::Busy { doing } => ("-", Cell::new(Look::Warning, format!("is {doing}"))),
        Server::Stopped { because } => ("-", Cell::new(Look::Error, format!("not running: {because}"))),
        Server::Sick { because, .. } => {
            (last_role(Some(member)), Cell::new(Look::Error, format!("sick: {because}")))
        }
        Server::Empty => ("-", Cell::new(Look::Warning, "has no data yet")),
        Server::Unknown => ("-", Cell::new(Look::Warning, "has not been looked at yet")),
    };
    if member.status.trouble.is_some() {
        does = Cell::new(Look::Warning, "has trouble, see above");
    }
    (role, does)
}

fn waiting(commits: u32) -> String {
    match commits {
        0 => "accepts writes".to_owned(),
        1 => "accepts writes, 1 commit waits for a standby".to_owned(),
        more => format!("accepts writes, {more} commits wait for a standby"),
    }
}

fn confirms(view: &View, database: &DatabaseName, node: &NodeName) -> Cell {
    let in_set = view.record(database).is_some_and(|record| record.sync.members.contains(node));
    match (view.confirmations(database), in_set) {
        (0, _) => "-".into(),
        (_, true) if view.streams(database, node) => "yes".into(),
        (_, true) => Cell::new(Look::Error, "cannot now"),
        (_, false) if view.record(database).and_then(Leadership::primary) == Some(node) => "-".into(),
        (_, false) => Cell::new(Look::Warning, "no"),
    }
}

/// How much of the primary's log a standby has not flushed, in bytes; `None` for the primary and when nobody knows.
fn behind(view: &View, database: &DatabaseName, node: &NodeName) -> Option<u64> {
    let (primary, facts, _) = view.serving(database)?;
    if primary == node {
        return None;
    }
    let flushed = match (facts.standbys.get(node), view.member(database, node).map(|m| &m.status.server)) {
        (Some(link), _) => link.flushed,
        (None, Some(Server::Standby(standby))) => standby.position.lsn,
        (None, _) => return None,
    };
    Some(facts.position.lsn.0.saturating_sub(flushed.0))
}

/// An amount of log: `0 B`, `17 kB`, `3.2 GB`.
fn bytes(amount: u64) -> String {
    let units = [("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)];
    match units.iter().find(|(_, size)| amount >= *size) {
        None => format!("{amount} B"),
        Some((unit, size)) if amount >= 10 * size => format!("{} {unit}", amount / size),
        Some((unit, size)) => format!("{}.{} {unit}", amount / size, amount % size * 10 / size),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn amounts_are_short() {
        let shown = [0, 999, 1_000, 16_777, 1_500_000, 12_000_000_000].map(super::bytes);
        assert_eq!(shown, ["0 B", "999 B", "1.0 kB", "16 kB", "1.5 MB", "12 GB"]);
    }
}
