//! What came of a rehearsal, in lines that are the same whether its system was simulated or real.
//!
//! Times, positions and the order of things that happen side by side are left out. Members are called by letters, in the
//! order in which they lead and then in which they are hit: which of two equal standbys takes over is chance.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::event::Event;
use model::leadership::{Leadership, Phase, SyncSet, Term};
use model::status::{MemberStatus, Server};
use model::{DatabaseName, NodeName};

use crate::agent::Overview;

/// How long nothing must have been done before it is told how things stand: a real server needs its time, and what it is in
/// the middle of is chance.
pub const REST_AFTER: Duration = Duration::from_secs(3);

/// What was done, and what followed until the next thing was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chapter {
    /// What was done, with the names of nodes; nothing in the first chapter.
    pub steps: Vec<String>,
    /// What all agents said since, in the order of their clocks.
    pub events: Vec<Event>,
    /// How it ended; nothing when it was left alone for less than [`REST_AFTER`].
    pub rest: Option<Rest>,
}

/// The state of a database once nothing moves any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rest {
    record: Option<Leadership>,
    members: BTreeMap<NodeName, (MemberStatus, bool)>,
    writes: bool,
}

impl Rest {
    /// As an agent that hears the leader sees it; `writes`: whether a client's writes were acknowledged of late.
    pub fn of(overview: &Overview, database: &DatabaseName, writes: bool) -> Self {
        let members = overview.members.get(database).into_iter().flatten();
        Self {
            record: overview.databases.get(database).cloned(),
            members: members
                .map(|(node, summary)| (node.clone(), (summary.status.clone(), summary.stale)))
                .collect(),
            writes,
        }
    }
}

/// The lines.
pub fn tell(database: &DatabaseName, chapters: &[Chapter]) -> Vec<String> {
    let subject = format!("database/{database}");
    let first = chapters.iter().find_map(|chapter| chapter.rest.as_ref()?.record.as_ref());
    let first_term = first.map_or(Term(1), |record| record.term);
    let letters = Letters::of(chapters, &subject);
    let mut lines = vec![];
    // An agent that starts says again how things stand.
    let mut told: BTreeSet<(u64, String)> = first.and_then(known).into_iter().collect();
    for (number, chapter) in chapters.iter().enumerate() {
        let mut steps: Vec<String> = chapter.steps.iter().map(|step| letters.replace(step)).collect();
        steps.sort();
        lines.extend(steps);
        let events: Vec<&Event> = chapter.events.iter().filter(|event| event.subject == subject).collect();
        let news: Vec<(u64, &str)> = events
            .iter()
            .filter_map(|event| of_record(&event.what))
            .filter(|(term, what)| told.insert((*term, (*what).to_owned())))
            .collect();
        // A system is created in its own way; what counts is what is done to it.
        if number > 0 {
            for (term, what) in news {
                let term = term.saturating_sub(first_term.0) + 1;
                lines.push(format!("  term {term}: {}", letters.replace(what)));
            }
            let repairs: BTreeSet<String> = events
                .iter()
                .filter_map(|event| repair(&event.what))
                .map(|what| letters.replace(what))
                .collect();
            lines.extend(repairs.into_iter().map(|repair| format!("  {repair}")));
        }
        lines.extend(chapter.rest.iter().map(|at_rest| format!("  => {}", rest(at_rest, &letters))));
    }
    lines
}

/// The term, and the rest of a sentence about a new term or phase (see `agent/events.rs`).
fn of_record(what: &str) -> Option<(u64, &str)> {
    let (term, what) = what.strip_prefix("term ")?.split_once(": ")?;
    (what != "the record has changed").then_some((term.parse().ok()?, what))
}

/// What an agent says of this record when it is the first that it sees.
fn known(record: &Leadership) -> Option<(u64, String)> {
    Some((record.term.0, format!("{} is the primary", record.primary()?)))
}

/// What was done to a copy so that it can follow again.
fn repair(what: &str) -> Option<&str> {
    let done = what.strip_suffix(" done")?;
    (done.contains(": rejoin to ") || done.contains(": copy of ")).then_some(done)
}

/// What members are called.
struct Letters(BTreeMap<NodeName, char>);

impl Letters {
    fn of(chapters: &[Chapter], subject: &str) -> Self {
        let rests = || chapters.iter().filter_map(|chapter| chapter.rest.as_ref());
        let nodes: BTreeSet<&NodeName> = rests().flat_map(|rest| rest.members.keys()).collect();
        let first = rests().find_map(|rest| rest.record.as_ref()?.primary());
        let of_records = chapters.iter().flat_map(|chapter| {
            let events = chapter.events.iter().filter(|event| event.subject == subject);
            events.filter_map(|event| Some(of_record(&event.what)?.1))
        });
        let steps = chapters.iter().flat_map(|chapter| chapter.steps.iter().map(String::as_str));
        // Who leads matters most: of two standbys that fare alike either may be the next.
        let texts = of_records.chain(steps);
        let named =
            texts.flat_map(words).filter_map(|word| nodes.iter().copied().find(|node| node.as_str() == word));
        let mut letters = BTreeMap::new();
        for node in first.into_iter().chain(named).chain(nodes.iter().copied()) {
            let letter = ('A'..='Z').nth(letters.len()).unwrap_or('?');
            letters.entry(node.clone()).or_insert(letter);
        }
        Self(letters)
    }

    fn name(&self, node: &NodeName) -> String {
        self.0.get(node).map_or_else(|| node.to_string(), char::to_string)
    }

    fn replace(&self, text: &str) -> String {
        let piece = |piece: &str| {
            let word = bare(piece);
            let node = self.0.iter().find(|(node, _)| node.as_str() == word);
            node.map_or_else(|| piece.to_owned(), |(_, letter)| format!("{letter}{}", &piece[word.len()..]))
        };
        text.split(' ').map(piece).collect::<Vec<_>>().join(" ")
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(' ').map(bare)
}

/// A word without the punctuation behind it; names of nodes have hyphens inside.
fn bare(word: &str) -> &str {
    word.trim_end_matches(|c: char| !c.is_alphanumeric())
}

fn rest(rest: &Rest, letters: &Letters) -> String {
    let writes = if rest.writes { "writes are acknowledged" } else { "writes stand still" };
    let Some(record) = &rest.record else { return format!("there is no database; {writes}") };
    let mut parts = vec![leads(record, letters)];
    let mut groups: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (node, (status, stale)) in &rest.members {
        let does = if *stale { "silent" } else { does(&status.server, record.term) };
        if record.primary() != Some(node) || does != LEADS {
            groups.entry(does).or_default().insert(letters.name(node));
        }
    }
    parts.extend(groups.into_iter().map(|(does, names)| format!("{does}: {}", join(&names))));
    parts.push(format!("confirmed by {}", set(&record.sync, letters)));
    if !record.previous_sync.is_empty() {
        parts.push("the set before still counts".to_owned());
    }
    parts.push(writes.to_owned());
    parts.join("; ")
}

fn leads(record: &Leadership, letters: &Letters) -> String {
    match &record.phase {
        Phase::Founding { by } => format!("{} creates the database", letters.name(by)),
        Phase::Led { primary } => format!("{} leads", letters.name(primary)),
        Phase::Revoking { former, .. } => format!("nobody leads after {}", letters.name(former)),
        Phase::HandingOver { from, to } => {
            format!("{} hands over to {}", letters.name(from), letters.name(to))
        }
    }
}

/// What a primary does; of the one in the record it need not be said.
const LEADS: &str = "primary";

fn does(server: &Server, term: Term) -> &'static str {
    match server {
        Server::Primary(_) => LEADS,
        Server::Standby(facts) if facts.streaming && facts.follows == term => "follows",
        Server::Standby(_) => "without log",
        Server::Stopped { .. } => "stopped",
        Server::Empty => "empty",
        Server::Sick { .. } => "does not work",
        Server::Busy { .. } => "busy",
        Server::Unknown => "unknown",
    }
}

fn join(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn set(set: &SyncSet, letters: &Letters) -> String {
    let members = set.members.iter().map(|node| NodeName::new(letters.name(node))).collect();
    SyncSet { k: set.k, members }.to_string()
}

#[cfg(test)]
mod tests {
    use model::event::Severity;

    use super::*;
    use crate::testkit::{led, primary, standby};

    fn event(node: &str, what: &str) -> Event {
        Event {
            at_us: 0,
            node: node.into(),
            severity: Severity::Info,
            subject: "database/orders".to_owned(),
            what: what.to_owned(),
            because: String::new(),
        }
    }

    fn rests(record: Leadership, writes: bool) -> Rest {
        let leads = record.primary().cloned();
        let of = |node: &str| {
            let status = match leads.as_ref().is_some_and(|leads| leads.as_str() == node) {
                true => primary(record.term.0, 100, &[], 1),
                false => standby(record.term.0, 100),
            };
            (NodeName::from(node), (status, false))
        };
        Rest { members: ["n1", "n2", "n3"].map(of).into(), record: Some(record), writes }
    }

    #[test]
    fn a_failover_is_told_once_and_names_members_in_the_order_in_which_they_matter() {
        let begin = Chapter {
            steps: vec![],
            events: vec![event("n2", "term 5: n2 is the primary")],
            rest: Some(rests(led(5, "n2", &["n1", "n3"]), true)),
        };
        let failed = "term 6: n2 is no primary any more, a new one is elected";
        let events = [
            ("n1", failed),
            ("n3", failed),
            ("n1", "the sync set changes from n1, n3 to n1"),
            ("n1", "term 6: n3 is the primary"),
            ("n2", "n2: rejoin to n3"),
            ("n2", "term 5: n2 is the primary"),
            ("n2", "n2: rejoin to n3 done"),
        ];
        let killed = Chapter {
            steps: vec!["kill the postmaster of n2".to_owned()],
            events: events.map(|(node, what)| event(node, what)).into(),
            rest: Some(rests(led(6, "n3", &["n1", "n2"]), false)),
        };
        assert_eq!(
            tell(&"orders".into(), &[begin, killed]),
            [
                "  => A leads; follows: B, C; confirmed by B or C; writes are acknowledged",
                "kill the postmaster of A",
                "  term 2: A is no primary any more, a new one is elected",
                "  term 2: B is the primary",
                "  A: rejoin to B",
                "  => B leads; follows: A, C; confirmed by A or C; writes stand still",
            ]
        );
    }

    #[test]
    fn which_of_two_that_lose_their_power_alike_takes_over_is_not_told() {
        let told = |next: &'static str, other: &'static str| {
            let begin =
                Chapter { rest: Some(rests(led(5, "n1", &["n2", "n3"]), true)), ..Chapter::default() };
            let powerless = Chapter {
                steps: vec!["power off n2".to_owned(), "power off n3".to_owned()],
                events: vec![event("n1", &format!("term 6: {next} is the primary"))],
                rest: Some(rests(led(6, next, &["n1", other]), true)),
            };
            tell(&"orders".into(), &[begin, powerless])
        };
        assert_eq!(told("n2", "n3"), told("n3", "n2"));
    }

    #[test]
    fn an_agent_that_starts_tells_nothing_new_and_a_short_while_tells_no_rest() {
        let chapter = |step: &str, rest| Chapter {
            steps: vec![step.to_owned()],
            events: vec![event("e-2", "term 5: e-1 is the primary")],
            rest,
        };
        let record = led(5, "e-1", &["e-2"]);
        let (leads, follows) = (primary(5, 100, &[], 1), standby(5, 100));
        let of = |node: &str, status: &MemberStatus, stale| (node.into(), (status.clone(), stale));
        let rest = |stale| Rest {
            record: Some(record.clone()),
            members: [of("e-1", &leads, false), of("e-2", &follows, stale)].into(),
            writes: true,
        };
        let begin = Chapter { rest: Some(rest(false)), ..Chapter::default() };
        let killed = chapter("kill the agent of e-2", None);
        let over = chapter("over: kill the agent of e-2", Some(rest(true)));
        assert_eq!(
            tell(&"orders".into(), &[begin, killed, over]),
            [
                "  => A leads; follows: B; confirmed by B; writes are acknowledged",
                "kill the agent of B",
                "over: kill the agent of B",
                "  => A leads; silent: B; confirmed by B; writes are acknowledged",
            ]
        );
    }
}
