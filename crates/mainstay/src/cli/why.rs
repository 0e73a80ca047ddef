//! `mainstay why`: the reason for the state of one thing.

use std::fmt::Write;
use std::time::Duration;

use model::event::Event;
use model::routes::{DatabaseRouteState, InstanceRouteState, RouteTarget};

use super::connect::Connection;
use super::error::CliError;
use super::events::{self, Story};
use super::exit::Exit;
use super::output::{Look, Output};
use super::status::verdict::{Trouble, Verdict};
use super::status::view::View;
use super::subject::Subject;
use super::target::Target;

/// How many events are told.
const TOLD: usize = 12;

/// How far back events are looked for.
const BACK: Duration = Duration::from_secs(7 * 86_400);

/// Explain why something is as it is
///
/// First what is so now and the sentences that hold about it, then the last events that led there, the oldest first.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mainstay why orders
  mainstay why orders@w1
  mainstay why node/e1
  mainstay why web-2")]
pub(crate) struct Args {
    /// A node, database, member (`orders@w1`), service, instance or route
    #[arg(value_name = "SUBJECT")]
    subject: String,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(args: Args, output: Output) -> Result<Exit, CliError> {
    let mut connection = Connection::open(&args.target)?;
    let view = connection.view().await?;
    let subject = Subject::find(&view, &args.subject)?;
    let all = events::collect(&connection, events::ago(BACK)).await;
    let verdict = Verdict::of(&view);
    output.print(&text(&view, &verdict, &subject, &all, output))?;
    Ok(Exit::Done)
}

/// The whole explanation.
fn text(view: &View, verdict: &Verdict, subject: &Subject, all: &[Event], output: Output) -> String {
    let mut out = format!("{}\n", output.on_stdout(Look::Heading, &format!("{subject} now")));
    for sentence in now(view, verdict, subject) {
        let _ = writeln!(out, "  {sentence}");
    }
    let about: Vec<Story> = events::stories(all)
        .into_iter()
        .filter(|story| is_about(view, subject, &story.event) && !events::is_idle(&story.event))
        .collect();
    if about.is_empty() {
        return out + "\nno event is kept about it\n";
    }
    let newest = &about[about.len().saturating_sub(TOLD)..];
    let _ = writeln!(out, "\n{}", output.on_stdout(Look::Heading, "How it came to be so"));
    out + &events::lines(newest, None, output)
}

/// The sentences that hold now about a subject.
fn now(view: &View, verdict: &Verdict, subject: &Subject) -> Vec<String> {
    let mut told: Vec<String> = match subject {
        Subject::System => {
            vec![format!("{} is {}: {}", view.system.name, verdict.level.word(), verdict.sentence)]
        }
        Subject::Database(name) => {
            let record = view.record(name).map(|record| format!("term {}: {}", record.term, record.because));
            record.into_iter().collect()
        }
        Subject::Route(name) => route(view, name),
        Subject::Service(name) if view.is_external(name) => externals(view, name),
        Subject::Service(name) => {
            let release = view.overview.releases.get(name).and_then(super::release::not_serving);
            view.instances(name).iter().map(instance).chain(release).collect()
        }
        Subject::Instance(name) => {
            let all = view.system.services.keys().flat_map(|service| view.instances(service));
            all.filter(|i| i.id == *name || i.id.split('@').next() == Some(name))
                .map(|i| instance(&i))
                .collect()
        }
        Subject::Node(_) | Subject::Member(..) => vec![],
    };
    told.extend(said(view, subject));
    let troubles = verdict.troubles.iter().filter(|trouble| is_trouble_of(view, subject, trouble));
    for Trouble { what, unblock, .. } in troubles {
        told.push(what.clone());
        told.extend(unblock.as_ref().map(|unblock| format!("what helps: {unblock}")));
    }
    let mut unique: Vec<String> = vec![];
    for sentence in told {
        if !unique.contains(&sentence) {
            unique.push(sentence);
        }
    }
    if unique.is_empty() {
        unique.push("nothing is wrong with it, and nothing has to be decided about it".to_owned());
    }
    unique
}

/// What agents said when they were last asked to decide about a subject.
fn said(view: &View, subject: &Subject) -> Vec<String> {
    let matches = |key: &str| match subject {
        Subject::System => true,
        Subject::Database(name) => key.starts_with(&format!("database/{name} ")),
        Subject::Member(name, node) => {
            key.starts_with(&format!("database/{name} ")) && key.ends_with(&format!(" on {node}"))
        }
        Subject::Node(node) => key.ends_with(&format!(" on {node}")),
        Subject::Service(_) | Subject::Instance(_) | Subject::Route(_) => {
            key.starts_with(&subject.to_string())
        }
    };
    let named = |key: &str, text: &str| match key.split_once(' ') {
        Some((_, question)) if matches!(subject, Subject::Database(_)) => format!("{question}: {text}"),
        Some(_) | None => format!("{key}: {text}"),
    };
    view.overview.because.iter().filter(|(key, _)| matches(key)).map(|(key, text)| named(key, text)).collect()
}

fn route(view: &View, name: &model::RouteName) -> Vec<String> {
    let on = |(node, table): (&model::NodeName, &model::routes::RouteTable)| {
        let route = table.routes.iter().find(|route| route.name == *name)?;
        let leads = match &route.target {
            RouteTarget::Database(target) => match &target.state {
                DatabaseRouteState::Open { members } => {
                    let members: Vec<&str> = members.iter().map(|member| member.node.as_str()).collect();
                    format!("leads to {}", super::columns::listed(members))
                }
                DatabaseRouteState::Parked { because } => format!("new connections wait: {because}"),
                DatabaseRouteState::Draining { because, .. } => format!("sessions are let go: {because}"),
            },
            RouteTarget::Service(target) if target.external.is_some() => {
                format!("leads to the addresses of {}", target.service)
            }
            RouteTarget::Service(target) => {
                let ready = target.instances.iter().filter(|i| i.state == InstanceRouteState::Ready).count();
                format!("leads to {ready} ready instances of {}", target.service)
            }
        };
        Some(format!("on {node} it {leads}").replace("it new", "new").replace("it sessions", "sessions"))
    };
    view.tables.iter().filter_map(on).collect()
}

fn externals(view: &View, name: &model::ServiceName) -> Vec<String> {
    let all = view.external(name);
    all.iter().map(|external| format!("{} {}", external.address, view.words(name, external))).collect()
}

fn instance(instance: &model::routes::InstanceEndpoint) -> String {
    let state = match instance.state {
        InstanceRouteState::Ready => "is ready",
        InstanceRouteState::NotReady => "runs, but has not passed its health check",
        InstanceRouteState::Draining => "finishes its work and ends",
        InstanceRouteState::Gone => "does not run",
    };
    format!("{} at {} {state}", instance.id, instance.address)
}

fn is_trouble_of(view: &View, subject: &Subject, trouble: &Trouble) -> bool {
    match subject {
        Subject::System => true,
        Subject::Member(name, node) => trouble.subject == format!("database/{name} on {node}"),
        Subject::Database(name) => {
            trouble.subject == format!("database/{name}")
                || trouble.subject.starts_with(&format!("database/{name} on "))
        }
        Subject::Instance(name) => super::status::view::service_of(name)
            .is_some_and(|service| trouble.subject == format!("service/{service}")),
        Subject::Route(name) => serves(view, name).is_some_and(|behind| trouble.subject == behind),
        Subject::Node(_) | Subject::Service(_) => trouble.subject == subject.to_string(),
    }
}

/// What is behind a route.
fn serves(view: &View, route: &model::RouteName) -> Option<String> {
    Some(match &view.system.routes.get(route)?.target {
        model::system::RouteTarget::Database { database, .. } => format!("database/{database}"),
        model::system::RouteTarget::Service { service } => format!("service/{service}"),
    })
}

fn is_about(view: &View, subject: &Subject, event: &Event) -> bool {
    let mentions = |word: &str| {
        let words =
            |text: &str| text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').any(|w| w == word);
        words(&event.what) || words(&event.because)
    };
    match subject {
        Subject::System => true,
        Subject::Node(node) => event.subject == format!("node/{node}") || mentions(node.as_str()),
        Subject::Member(database, node) => {
            event.subject == format!("database/{database}") && mentions(node.as_str())
        }
        Subject::Instance(name) => {
            event.subject == subject.to_string() || event.subject.contains(name.as_str())
        }
        Subject::Route(name) => {
            event.subject == subject.to_string()
                || serves(view, name).is_some_and(|behind| event.subject == behind)
        }
        Subject::Database(_) | Subject::Service(_) => event.subject == subject.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use model::event::Severity;

    use super::super::output::Color;
    use super::super::testkit::{healthy, seen, shop, silence};
    use super::*;

    #[test]
    fn what_is_so_now_comes_before_how_it_came_to_be_so() {
        let mut overview = healthy(&shop(), "e1");
        overview.because.insert("database/orders on e1".to_owned(), "leads".to_owned());
        silence(&mut overview, "n1");
        silence(&mut overview, "w1");
        let view = seen(shop(), overview);
        let event = |at_us, what: &str, because: &str| Event {
            at_us,
            node: "e1".into(),
            severity: Severity::Info,
            subject: "database/orders".to_owned(),
            what: what.to_owned(),
            because: because.to_owned(),
        };
        let today = events::ago(Duration::ZERO);
        let all = [
            event(today, "term 1: e1 is the primary", "e1 has created the database"),
            event(today + 10, "decided not to act", "e1 leads"),
        ];
        let text = text(
            &view,
            &Verdict::of(&view),
            &Subject::Database("orders".into()),
            &all,
            Output::new(Color::Never),
        );
        let (now, then) = text.split_once("\nHow it came to be so\n").unwrap();
        insta::assert_snapshot!(now);
        assert_eq!(then.lines().count(), 1, "{then}");
        assert!(
            then.ends_with(
                " database/orders: term 1: e1 is the primary (e1 has created the database) [e1]\n"
            ),
            "{then}"
        );
    }
}
