//! `mainstay events`: what happened, and why.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use mainstay::api::{Reply, Request};
use model::event::{Event, Severity};
use model::system::duration;

use super::connect::Connection;
use super::error::CliError;
use super::exit::Exit;
use super::output::{Look, Output, note};
use super::target::Target;

/// How many events are shown when nobody says how far back to look.
const SHOWN: usize = 50;

/// The same event told by several nodes within this time is one.
const SAME_WITHIN_US: i64 = 2_000_000;

/// How often `--follow` looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How long after it happened an event is shown by `--follow`: so late may another node's earlier one be heard of.
const SETTLES_US: i64 = 300_000;

/// How long an agent may take to answer.
const LIMIT: Duration = Duration::from_secs(5);

/// Show what happened, and why
///
/// Events of all nodes in the order of their clocks; what several nodes saw alike is one line with their names.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mainstay events --since 10m
  mainstay events --follow
  mainstay events --since 1h --json | jq 'select(.severity == \"critical\")'")]
pub(crate) struct Args {
    /// Only events of this last time, such as `10m` or `2h`; without it the newest 50
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    since: Option<Duration>,
    /// Go on with new events until interrupted
    #[arg(long)]
    follow: bool,
    /// One JSON document a line, every event of every node
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(args: Args, output: Output) -> Result<Exit, CliError> {
    let mut connection = Connection::open(&args.target)?;
    // Says in words when nobody answers, and learns whose agents these are.
    connection.view().await?;
    let since = args.since.map_or(0, ago);
    let limit = if args.since.is_none() { SHOWN } else { usize::MAX };
    let mut printer = Printer { json: args.json, output, day: None };
    let all = collect(&connection, since).await;
    let begin = ago(Duration::ZERO) - SETTLES_US;
    let (old, _): (Vec<Event>, Vec<Event>) =
        if args.follow { all.into_iter().partition(|event| event.at_us < begin) } else { (all, vec![]) };
    printer.print_newest(&old, limit)?;
    if args.follow {
        return follow(&connection, begin, old, &mut printer).await;
    }
    Ok(Exit::Done)
}

/// All events since a moment, of all nodes that answer, in the order of their clocks.
pub(super) async fn collect(connection: &Connection, since_us: i64) -> Vec<Event> {
    // In a lab every agent can be asked itself, also one that the others do not reach.
    let everywhere = connection.lab().is_none();
    let (replies, _) = connection.everywhere(&Request::Events { since_us, everywhere }, LIMIT).await;
    let mut all = vec![];
    for (_, reply) in replies {
        if let Reply::Events(events) = reply {
            all.extend(events);
        }
    }
    all.sort_by(|a, b| (a.at_us, &a.node).cmp(&(b.at_us, &b.node)));
    all
}

/// The moment so long before now, in microseconds since the Unix epoch.
pub(super) fn ago(time: Duration) -> i64 {
    Timestamp::now().as_microsecond() - i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

async fn follow(
    connection: &Connection,
    begin: i64,
    old: Vec<Event>,
    printer: &mut Printer,
) -> Result<Exit, CliError> {
    let mut from = begin;
    let mut shown = VecDeque::from(old);
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let until = ago(Duration::ZERO) - SETTLES_US;
        let events = collect(connection, from - SAME_WITHIN_US).await;
        let new: Vec<Event> =
            events.into_iter().filter(|event| event.at_us < until && !shown.contains(event)).collect();
        let news = match printer.json {
            true => new.clone(),
            false => {
                new.iter().filter(|event| !shown.iter().any(|old| is_same(old, event))).cloned().collect()
            }
        };
        printer.print_newest(&news, usize::MAX)?;
        shown.extend(new);
        from = until;
        while shown.front().is_some_and(|old| old.at_us < from - 2 * SAME_WITHIN_US) {
            shown.pop_front();
        }
    }
}

// ---- one event told by several nodes ----

/// An event with all nodes that saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Story {
    /// As the first of them saw it.
    pub(super) event: Event,
    /// All of them, the first first.
    pub(super) nodes: Vec<String>,
    /// How long what was begun took, in milliseconds, once it is done.
    pub(super) took: Option<i64>,
}

/// Joins what several nodes saw alike.
pub(super) fn stories(events: &[Event]) -> Vec<Story> {
    let mut told: Vec<Story> = vec![];
    for event in events {
        if let Some(begun) = told.iter_mut().rev().find(|old| old.took.is_none() && ends(&old.event, event)) {
            begun.took = Some((event.at_us - begun.event.at_us) / 1000);
            continue;
        }
        let recent = told.iter_mut().rev().take_while(|old| event.at_us - old.event.at_us < SAME_WITHIN_US);
        let node = event.node.to_string();
        match { recent }.find(|old| is_same(&old.event, event) && !old.nodes.contains(&node)) {
            Some(old) => old.nodes.push(node),
            None => told.push(Story { event: event.clone(), nodes: vec![node], took: None }),
        }
    }
    told
}

/// Whether `new` says that what `old` began is done.
fn ends(old: &Event, new: &Event) -> bool {
    (&old.node, &old.subject) == (&new.node, &new.subject)
        && new.what.strip_suffix(" done") == Some(old.what.as_str())
}

/// Whether an agent only says that it is content or waits.
pub(super) fn is_idle(event: &Event) -> bool {
    event.severity == Severity::Info && event.what == "decided not to act"
}

fn is_same(old: &Event, new: &Event) -> bool {
    (&old.subject, &old.what, &old.because) == (&new.subject, &new.what, &new.because)
        && (new.at_us - old.at_us).abs() < SAME_WITHIN_US
}

// ---- on the screen ----

struct Printer {
    json: bool,
    output: Output,
    /// The day that was last said.
    day: Option<String>,
}

impl Printer {
    fn print_newest(&mut self, events: &[Event], limit: usize) -> Result<(), CliError> {
        if self.json {
            let newest = &events[events.len().saturating_sub(limit)..];
            let lines = newest.iter().filter_map(|event| serde_json::to_string(event).ok());
            return self.output.print(&lines.fold(String::new(), |text, line| text + &line + "\n"));
        }
        let told = stories(events);
        let newest = &told[told.len().saturating_sub(limit)..];
        if newest.len() < told.len() {
            note(&format!("the newest {limit} of {} events; --since shows more\n", told.len()));
        }
        let text = lines(newest, self.day.take(), self.output);
        self.day = newest.last().map(|story| day(&local(story.event.at_us)));
        self.output.print(&text)
    }
}

/// A line for each event, and one for each new day; `today` is the day that needs no line.
pub(super) fn lines(stories: &[Story], today: Option<String>, output: Output) -> String {
    lines_in(stories, today, &TimeZone::system(), output)
}

fn lines_in(stories: &[Story], known: Option<String>, zone: &TimeZone, output: Output) -> String {
    let mut known = known.unwrap_or_else(|| day(&Timestamp::now().to_zoned(zone.clone())));
    let mut out = String::new();
    for Story { event, nodes, took } in stories {
        let at = zoned(event.at_us, zone);
        if day(&at) != known {
            known = day(&at);
            out += &format!("{}\n", output.on_stdout(Look::Heading, &known));
        }
        let took = took.map_or(String::new(), |ms| format!(", done after {ms} ms"));
        let text = format!("{}: {}{took} ({})", event.subject, event.what, event.because);
        let text = look(event).map_or(text.clone(), |look| output.on_stdout(look, &text));
        let time = output.on_stdout(Look::Faint, &at.strftime("%H:%M:%S%.3f").to_string());
        let seen = output.on_stdout(Look::Faint, &format!("[{}]", nodes.join(" ")));
        out += &format!("{time} {} {text} {seen}\n", mark(event.severity));
    }
    out
}

fn look(event: &Event) -> Option<Look> {
    match event.severity {
        Severity::Info if is_idle(event) => Some(Look::Faint),
        Severity::Info => None,
        Severity::Warning => Some(Look::Warning),
        Severity::Critical => Some(Look::Error),
    }
}

/// What stands where there are no colours.
fn mark(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => " ",
        Severity::Warning => "!",
        Severity::Critical => "x",
    }
}

fn local(at_us: i64) -> Zoned {
    zoned(at_us, &TimeZone::system())
}

fn zoned(at_us: i64, zone: &TimeZone) -> Zoned {
    Timestamp::from_microsecond(at_us).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(zone.clone())
}

fn day(at: &Zoned) -> String {
    at.strftime("%A, %-d %B %Y").to_string()
}

#[cfg(test)]
mod tests {
    use super::super::output::Color;
    use super::*;

    fn event(at_ms: i64, node: &str, severity: Severity, what: &str) -> Event {
        Event {
            at_us: at_ms * 1000,
            node: node.into(),
            severity,
            subject: "database/orders".to_owned(),
            what: what.to_owned(),
            because: "e1 has been silent for 310 ms".to_owned(),
        }
    }

    #[test]
    fn what_several_nodes_saw_is_one_line_in_the_order_of_clocks() {
        let events = [
            event(86_400_000, "w1", Severity::Info, "term 1: e1 is the primary"),
            event(172_800_100, "w1", Severity::Critical, "term 2: e1 is no primary any more"),
            event(172_800_104, "n1", Severity::Critical, "term 2: e1 is no primary any more"),
            event(172_800_150, "n1", Severity::Info, "n1: promotion"),
            event(172_800_210, "w1", Severity::Warning, "a copy failed"),
            event(172_800_270, "n1", Severity::Info, "n1: promotion done"),
            event(172_860_000, "w1", Severity::Critical, "term 2: e1 is no primary any more"),
        ];
        let text = lines_in(&stories(&events), None, &TimeZone::UTC, Output::new(Color::Never));
        insta::assert_snapshot!(text);
    }

    #[test]
    fn severity_is_a_colour_where_there_are_colours() {
        let events = [event(0, "w1", Severity::Critical, "gone")];
        let text = lines_in(&stories(&events), None, &TimeZone::UTC, Output::new(Color::Always));
        assert!(text.contains("\u{1b}[31;1mdatabase/orders: gone"), "{text:?}");
    }
}
