//! `mainstay logs`: what a process wrote.

use std::collections::BTreeMap;
use std::time::Duration;

use mainstay::api::{Reply, Request};
use model::NodeName;

use super::connect::Connection;
use super::error::CliError;
use super::exit::Exit;
use super::output::{Look, Output, note};
use super::status::view::View;
use super::subject::Subject;
use super::target::Target;

/// How long a node may take to read its logs.
const LIMIT: Duration = Duration::from_secs(10);

/// How often `--follow` looks, and how many lines may come between two looks without one being missed.
const LOOK_EVERY: Duration = Duration::from_millis(300);
const LOOK_AT: usize = 1000;

/// Show what a database, a service, an agent or a proxy wrote
///
/// On all nodes that answer, each line after the name of its node.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mainstay logs web --follow
  mainstay logs orders -n 20
  mainstay logs e1/agent")]
pub(crate) struct Args {
    /// A database, service or instance; `agent` or `proxy`; `NODE/...` for one node only
    #[arg(value_name = "SUBJECT")]
    subject: String,
    /// Go on with new lines until interrupted
    #[arg(long)]
    follow: bool,
    /// How many lines of the past, on each node
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 100)]
    lines: usize,
    #[command(flatten)]
    target: Target,
}

/// Whose logs are wanted.
struct Wanted {
    subject: String,
    node: Option<NodeName>,
}

pub(crate) async fn run(args: Args, output: Output) -> Result<Exit, CliError> {
    let mut connection = Connection::open(&args.target)?;
    let view = connection.view().await?;
    let wanted = Wanted::find(&view, &args.subject)?;
    let seen =
        read(&connection, &wanted, if args.follow { args.lines.max(LOOK_AT) } else { args.lines }).await?;
    for (node, lines) in &seen {
        output.print(&prefixed(node, &lines[lines.len().saturating_sub(args.lines)..], output))?;
    }
    if args.follow {
        follow(&connection, &wanted, seen, output).await?;
    }
    Ok(Exit::Done)
}

/// Prints new lines for ever.
async fn follow(
    connection: &Connection,
    wanted: &Wanted,
    mut seen: BTreeMap<NodeName, Vec<String>>,
    output: Output,
) -> Result<(), CliError> {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Ok(now) = read(connection, wanted, LOOK_AT).await else { continue };
        for (node, lines) in now {
            let new = seen.get(&node).map_or_else(|| lines.clone(), |old| added(old, &lines));
            output.print(&prefixed(&node, &new, output))?;
            seen.insert(node, lines);
        }
    }
}

impl Wanted {
    fn find(view: &View, text: &str) -> Result<Self, CliError> {
        let (node, rest) = match text.split_once('/') {
            Some((node, rest)) if view.system.nodes.contains_key(node) => (Some(NodeName::new(node)), rest),
            Some(_) | None => (None, text),
        };
        if let "agent" | "proxy" = rest {
            return Ok(Self { subject: rest.to_owned(), node });
        }
        let (subject, on) = match Subject::find(view, rest)? {
            Subject::Database(name) => (format!("database/{name}"), None),
            Subject::Member(name, node) => (format!("database/{name}"), Some(node)),
            Subject::Service(name) if view.is_external(&name) => {
                let message = format!("nobody here supervises {name}: others run it");
                return Err(CliError::with(Exit::Invalid, message)
                    .hint("its logs are where it runs; `access_log` of a route writes down requests to it"));
            }
            Subject::Service(name) => (format!("service/{name}"), None),
            Subject::Instance(name) => match name.split_once('@') {
                Some((instance, node)) => (format!("instance/{instance}"), Some(NodeName::new(node))),
                None => (format!("instance/{name}"), None),
            },
            nothing @ (Subject::System | Subject::Node(_) | Subject::Route(_)) => {
                let message = format!("{nothing} has no log of its own");
                return Err(CliError::with(Exit::Invalid, message).hint(
                    "logs have: a database, a service, an instance, `agent` and `proxy`, also as NODE/agent",
                ));
            }
        };
        Ok(Self { subject, node: node.or(on) })
    }
}

/// The last lines on each node that has some.
async fn read(
    connection: &Connection,
    wanted: &Wanted,
    lines: usize,
) -> Result<BTreeMap<NodeName, Vec<String>>, CliError> {
    let request = Request::Logs { subject: wanted.subject.clone(), lines };
    let (replies, unanswered) = connection.everywhere(&request, LIMIT).await;
    let is_wanted = |node: &NodeName| wanted.node.as_ref().is_none_or(|only| only == node);
    let (mut found, mut refusals) = (BTreeMap::new(), vec![]);
    for (node, reply) in replies.into_iter().filter(|(node, _)| is_wanted(node)) {
        match reply {
            Reply::Logs(lines) => drop(found.insert(node, lines)),
            Reply::Refused(refused) => refusals.push((node, refused.because)),
            Reply::Overview(_)
            | Reply::Events(_)
            | Reply::System { .. }
            | Reply::Dsn(_)
            | Reply::Certificate(_)
            | Reply::Jobs(_)
            | Reply::JobRun(_)
            | Reply::Piece(_)
            | Reply::Program(_)
            | Reply::Done(_) => {}
        }
    }
    add_printed(connection, wanted, lines, &mut found);
    let silent = unanswered.into_iter().filter(|(node, _)| is_wanted(node));
    if found.is_empty() {
        let error = CliError::failed(format!("no node has a log of {}", wanted.subject));
        return Err(refusals.into_iter().chain(silent).fold(error, |error, (node, why)| {
            error.because(&std::io::Error::other(format!("{node}: {why}")))
        }));
    }
    Ok(found)
}

/// In a lab, what an agent printed is kept by the lab, as the journal of a machine would.
fn add_printed(
    connection: &Connection,
    wanted: &Wanted,
    lines: usize,
    found: &mut BTreeMap<NodeName, Vec<String>>,
) {
    let Some(lab) = connection.lab().filter(|_| wanted.subject == "agent") else { return };
    for (node, _) in lab.nodes().filter(|(node, _)| wanted.node.as_ref().is_none_or(|only| only == *node)) {
        match effects::service::logs::tail(&lab.log(node), lines) {
            Ok(printed) => found.entry(node.clone()).or_default().extend(printed),
            Err(error) => note(&format!("the log of {node} cannot be read: {error}\n")),
        }
    }
}

/// Each line after its node, or after its instance where a node has several.
fn prefixed(node: &NodeName, lines: &[String], output: Output) -> String {
    lines.iter().fold(String::new(), |text, line| {
        let (log, line) = split_log(line);
        // The file of an instance is called `service.instance@node.log`.
        let of = log.and_then(|log| log.split_once('.')).map_or(node.as_str(), |(_, instance)| instance);
        text + &output.on_stdout(Look::Faint, &format!("{of} |")) + " " + line + "\n"
    })
}

/// The name of the log that a line is from, where an agent has read several, and the line.
fn split_log(line: &str) -> (Option<&str>, &str) {
    match line.split_once(".log: ") {
        Some((name, rest)) if !name.contains(' ') => (Some(name), rest),
        Some(_) | None => (None, line),
    }
}

/// The lines of `new` that are not in `old`, where both are the ends of logs that grow. Several logs of one node are told
/// apart by the file name before each line.
fn added(old: &[String], new: &[String]) -> Vec<String> {
    let mut logs: BTreeMap<Option<&str>, (Vec<&String>, Vec<&String>)> = BTreeMap::new();
    for line in old {
        logs.entry(split_log(line).0).or_default().0.push(line);
    }
    for line in new {
        logs.entry(split_log(line).0).or_default().1.push(line);
    }
    logs.into_values().flat_map(|(old, new)| grown(&old, &new)).collect()
}

/// What follows on the longest end of `old` that `new` begins with.
fn grown(old: &[&String], new: &[&String]) -> Vec<String> {
    let overlap =
        (0..=old.len().min(new.len())).rev().find(|length| old[old.len() - length..] == new[..*length]);
    new[overlap.unwrap_or(0)..].iter().map(|line| (*line).clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::output::Color;
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn only_new_lines_are_new() {
        assert_eq!(added(&lines("a b c"), &lines("b c d e")), lines("d e"));
        assert_eq!(added(&lines("a b c"), &lines("a b c")), lines(""));
        assert_eq!(added(&lines("a a"), &lines("a a a")), lines("a"));
        assert_eq!(added(&lines("a b"), &lines("x y")), lines("x y"));
    }

    #[test]
    fn a_line_is_after_its_node_or_its_instance() {
        let lines = ["ready".to_owned(), "web.web-1@e1.log: ready".to_owned()];
        let text = prefixed(&"e1".into(), &lines, Output::new(Color::Never));
        assert_eq!(text, "e1 | ready\nweb-1@e1 | ready\n");
    }

    #[test]
    fn logs_of_one_node_grow_apart() {
        let (old, new) = (["web-1.log: a", "web-2.log: a"], ["web-1.log: a", "web-1.log: b", "web-2.log: a"]);
        let owned = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        assert_eq!(added(&owned(&old), &owned(&new)), ["web-1.log: b"]);
    }
}
