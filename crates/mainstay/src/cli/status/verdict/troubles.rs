//! What is wrong, what is being done about it, and what would help.

use std::collections::{BTreeMap, BTreeSet};

use model::routes::{InstanceEndpoint, InstanceRouteState};
use model::status::Server;
use model::{DatabaseName, NodeName, RouteName};

use super::writes::{Writes, majority_missing};
use super::{Level, Trouble};
use crate::cli::columns::listed;
use crate::cli::status::certificates;
use crate::cli::status::view::{Heard, View};

/// Everything that is wrong, the worst first.
pub(super) fn all(view: &View, writes: &BTreeMap<DatabaseName, Writes>) -> Vec<Trouble> {
    let mut all: Vec<Trouble> =
        writes.iter().filter_map(|(name, writes)| database(view, name, writes)).collect();
    all.extend(view.system.services.keys().filter_map(|name| service(view, name)));
    all.extend(view.system.services.keys().filter_map(|name| outdated(view, name)));
    all.extend(view.system.routes.keys().filter_map(|name| ejected(view, name)));
    let now = certificates::now();
    all.extend(view.system.routes.keys().flat_map(|name| super::certificates::all(view, name, now)));
    all.extend(view.system.services.keys().flat_map(|name| super::supervision::all(view, name)));
    all.extend(coordination(view));
    all.extend(view.system.nodes.keys().filter_map(|name| node(view, name)));
    for name in view.system.databases.keys() {
        all.extend(proxies(view, name, writes));
        all.extend(view.members(name).iter().filter_map(|node| member(view, name, node)));
        all.extend(restarts(view, name));
    }
    all.extend(protections(view));
    all.extend(super::programs::all(view));
    all.extend(view.system.nodes.keys().filter_map(|name| generation(view, name)));
    all.sort_by_key(|trouble| std::cmp::Reverse(trouble.level));
    all
}

pub(super) fn trouble(level: Level, subject: String, what: impl Into<String>) -> Trouble {
    Trouble { level, subject, what: what.into(), doing: None, unblock: None }
}

impl Trouble {
    pub(super) fn doing(mut self, sentence: Option<impl Into<String>>) -> Self {
        self.doing = sentence.map(Into::into).filter(|doing| *doing != self.what);
        self
    }

    pub(super) fn unblock(mut self, sentence: Option<impl Into<String>>) -> Self {
        self.unblock = sentence.map(Into::into);
        self
    }
}

fn database(view: &View, name: &DatabaseName, writes: &Writes) -> Option<Trouble> {
    let subject = format!("database/{name}");
    let sentence = view.because(&format!("{subject} leadership"));
    match writes {
        Writes::Flow => None,
        Writes::Pause { because } => {
            Some(trouble(Level::Degraded, subject, format!("writes to {name} pause: {because}")))
        }
        Writes::Wait { because, unblock } => {
            let trouble = trouble(Level::Down, subject, format!("writes to {name} wait: {because}"));
            Some(trouble.doing(sentence).unblock(unblock.as_deref()))
        }
    }
}

/// Proxies that hold clients back although writes flow.
fn proxies(view: &View, name: &DatabaseName, writes: &BTreeMap<DatabaseName, Writes>) -> Option<Trouble> {
    if writes.get(name) != Some(&Writes::Flow) {
        return None;
    }
    let parked = view.parked(name);
    let (_, because) = parked.first()?;
    let nodes = listed(parked.iter().map(|(node, _)| node.as_str()));
    let what = format!("clients of {name} that connect through {nodes} have to wait: {because}");
    Some(trouble(Level::Degraded, format!("database/{name}"), what))
}

fn service(view: &View, name: &model::ServiceName) -> Option<Trouble> {
    if view.is_external(name) {
        return super::external::trouble_of(view, name);
    }
    let wanted = usize::try_from(view.wanted(name)).unwrap_or(usize::MAX);
    let ready = view.ready(name).len();
    let level = match ready {
        0 => Level::Down,
        some if some < wanted => Level::Degraded,
        _ => return None,
    };
    let subject = format!("service/{name}");
    let all = view.instances(name);
    if all.is_empty() && view.waits_for_release(name) {
        let what = format!("{name} waits for its first release");
        let help = format!("mainstay release {name} --from DIRECTORY");
        return Some(trouble(Level::Degraded, subject, what).unblock(Some(help)));
    }
    let idle: Vec<&InstanceEndpoint> =
        all.iter().filter(|instance| instance.state != InstanceRouteState::Ready).collect();
    let (lost, sick): (Vec<_>, Vec<_>) = idle.iter().partition(|instance| !view.is_here(&instance.node));
    let mut what = match ready {
        0 => format!("no instance of {name} is ready"),
        _ => format!("{ready} of {wanted} instances of {name} are ready"),
    };
    if !idle.is_empty() {
        what += &format!(": {}", listed(idle.iter().map(|instance| words(view, instance))));
    }
    let decides = view.decides_without(&Default::default());
    let doing = match (lost.as_slice(), sick.as_slice()) {
        ([], []) => "the rest is being placed".to_owned(),
        ([], [_]) => "it is started again whenever it ends".to_owned(),
        ([], _) => "they are started again whenever they end".to_owned(),
        _ if view.overview.paused.is_some() => "nothing is moved while the automation is paused".to_owned(),
        _ if !decides => "nothing can be decided, so nothing is moved".to_owned(),
        (lost, _) => format!(
            "5 s after the loss of its node another one starts {}",
            listed(lost.iter().map(|i: &&&InstanceEndpoint| i.id.split('@').next().unwrap_or_default()))
        ),
    };
    let unblock = (!sick.is_empty()).then(|| format!("`mainstay logs {name}` shows why, if it stays so"));
    Some(trouble(level, subject, what).doing(Some(doing)).unblock(unblock))
}

/// Instances that are ready by their supervisors' word, but fail what proxies send them.
fn ejected(view: &View, name: &RouteName) -> Option<Trouble> {
    let reports = view.traffic.iter().filter(|(node, _)| view.is_here(node)).filter_map(|(node, seen)| {
        let report = seen.routes.iter().find(|report| report.route == *name)?;
        (!report.ejected.is_empty()).then_some((node, report))
    });
    let reports: Vec<_> = reports.collect();
    let ids: BTreeSet<&str> =
        reports.iter().flat_map(|(_, seen)| &seen.ejected).map(String::as_str).collect();
    let nodes = listed(reports.iter().map(|(node, _)| node.as_str()));
    if ids.is_empty() {
        return None;
    }
    let fail = if ids.len() == 1 { "fails" } else { "fail" };
    let mut what = format!("{} {fail} the requests of the route {name}, as {nodes} sees it", listed(ids));
    if reports.iter().any(|(_, report)| report.panic) {
        what += "; these are most of its instances";
    }
    let doing = "others answer its clients, and a probe asks until it works again";
    Some(trouble(Level::Degraded, format!("route/{name}"), what).doing(Some(doing)))
}

/// An instance that is not ready, in a few words.
fn words(view: &View, instance: &InstanceEndpoint) -> String {
    if let Some(note) = view.note(instance) {
        return format!("{} {}", instance.id, super::supervision::sentence(note));
    }
    let state = match instance.state {
        InstanceRouteState::Ready => "is ready",
        InstanceRouteState::NotReady => "is not healthy",
        InstanceRouteState::Draining => "is ending",
        InstanceRouteState::Gone => "is gone",
    };
    format!("{} {state}", instance.id)
}

fn coordination(view: &View) -> Vec<Trouble> {
    let mut found = vec![];
    let (here, voters) = (view.voters_without(&Default::default()), view.system.voters().count());
    let missing = majority_missing(view);
    if missing.is_some() {
        let are = if here == 1 { "is" } else { "are" };
        let what = format!("nothing can be decided: only {here} of {voters} voters {are} heard");
        found.push(trouble(Level::Degraded, "system".to_owned(), what).unblock(missing));
    } else if view.overview.leader.is_none() {
        let what = "no leader is elected at the moment";
        found.push(
            trouble(Level::Degraded, "system".to_owned(), what).doing(Some("the voters are electing one")),
        );
    }
    if let Some(reason) = &view.overview.paused {
        let what = format!("the automation is paused, so nothing would be repaired: {reason}");
        found.push(
            trouble(Level::Degraded, "system".to_owned(), what)
                .unblock(Some("`mainstay resume` ends the pause")),
        );
    }
    found
}

fn node(view: &View, name: &NodeName) -> Option<Trouble> {
    let me = &view.overview.node;
    let (what, unblock) = match view.heard(name) {
        Heard::Yes => return lines(view, name),
        Heard::Silent => (
            format!("node {name} is silent on every line"),
            format!("start node {name}, or repair its network"),
        ),
        Heard::AgentGone => (
            format!("the agent of node {name} has ended; the node itself may live"),
            format!("start node {name}, or its agent"),
        ),
        Heard::Never => {
            (format!("node {name} has not been heard since {me} started"), format!("start node {name}"))
        }
        Heard::CutOff => (
            format!("node {name} runs, but the others do not hear it: its network is cut"),
            format!("repair the network of {name}"),
        ),
    };
    Some(trouble(Level::Degraded, format!("node/{name}"), what).unblock(Some(unblock)))
}

/// Lines of a node that is heard all the same.
fn lines(view: &View, name: &NodeName) -> Option<Trouble> {
    let up = &view.overview.nodes.get(name)?.lines;
    // Without a second answer nobody says how the answering node itself is reached.
    if up.is_empty() {
        return None;
    }
    let node = view.system.nodes.get(name)?;
    let down: Vec<&str> = node.lines.keys().filter(|line| !up.contains(*line)).map(|l| l.as_str()).collect();
    let what = match down.as_slice() {
        [] => return None,
        [one] => format!("node {name} is not reached over line {one}"),
        several => format!("node {name} is not reached over the lines {}", listed(several)),
    };
    Some(trouble(Level::Degraded, format!("node/{name}"), what).doing(Some("the other lines are used")))
}

/// A member on a node that is heard, and that does not do its part. What is wrong with the node is said there.
fn member(view: &View, database: &DatabaseName, node: &NodeName) -> Option<Trouble> {
    if !view.is_here(node) {
        return None;
    }
    let member = view.member(database, node);
    let is_primary = view.record(database).and_then(|record| record.primary()) == Some(node);
    let server = member.map(|member| &member.status.server);
    let wrong = match server {
        Some(Server::Primary(_)) if is_primary => None,
        Some(Server::Primary(_)) => Some("still runs as a primary of a term that is over".to_owned()),
        Some(Server::Standby(facts)) if facts.streaming => not_confirming(view, database, node),
        Some(Server::Standby(_)) => Some("does not receive log".to_owned()),
        Some(Server::Busy { doing }) => Some(format!("is busy: {doing}")),
        Some(Server::Stopped { because }) => Some(format!("is not running: {because}")),
        Some(Server::Sick { because, .. }) => Some(format!("does not work: {because}")),
        Some(Server::Empty) => Some("has no data yet".to_owned()),
        Some(Server::Unknown) | None => Some("has not been looked at yet".to_owned()),
    };
    let trouble_said = member.and_then(|member| member.status.trouble.clone());
    let what = match (wrong, trouble_said) {
        (None, None) => return None,
        (Some(wrong), None) => wrong,
        // The reason why it does not run, once.
        (Some(wrong), Some(said)) if wrong.contains(&said) => wrong,
        (None, Some(said)) => format!("has trouble: {said}"),
        (Some(wrong), Some(said)) => format!("{wrong}; {said}"),
    };
    let subject = format!("database/{database} on {node}");
    let doing = view.because(&subject);
    Some(trouble(Level::Degraded, subject.clone(), format!("{database} on {node} {what}")).doing(doing))
}

/// Members whose PostgreSQL does not run with the settings of the file yet, and whose turn it is.
fn restarts(view: &View, database: &DatabaseName) -> Option<Trouble> {
    let mut waiting: Vec<&str> = vec![];
    let mut settings: Vec<String> = vec![];
    for node in view.members(database).iter().filter(|node| view.is_here(node)) {
        let pending = view.member(database, node).map_or(&[][..], |member| member.status.settings.pending());
        if !pending.is_empty() {
            waiting.push(node.as_str());
        }
        for setting in pending {
            let wanted = setting.wanted.as_deref().unwrap_or("PostgreSQL's own");
            let words = format!("{} {} -> {wanted}", setting.name, setting.runs);
            if !settings.contains(&words) {
                settings.push(words);
            }
        }
    }
    let subject = format!("database/{database}");
    let turn = view.record(database).and_then(|record| record.restart.as_ref());
    let what = match (waiting.as_slice(), turn) {
        ([], None) => return None,
        ([], Some(turn)) => format!("{database}: {turn}"),
        (nodes, _) => {
            let wait = if nodes.len() == 1 { "waits" } else { "wait" };
            format!("{database} on {} {wait} for a restart: {}", listed(nodes), settings.join(", "))
        }
    };
    let doing = view.because(&format!("{subject} leadership"));
    Some(trouble(Level::Degraded, subject, what).doing(doing))
}

/// Instances that serve with what an older file said.
fn outdated(view: &View, name: &model::ServiceName) -> Option<Trouble> {
    let all = view.instances(name);
    let is_outdated = |instance: &&InstanceEndpoint| {
        let node = view.overview.nodes.get(&instance.node);
        node.is_some_and(|node| node.services.outdated.contains(&instance.id))
    };
    let ids: Vec<&str> = all.iter().filter(is_outdated).map(|instance| instance.id.as_str()).collect();
    if ids.is_empty() {
        return None;
    }
    let still = if ids.len() == 1 { "serves" } else { "serve" };
    let what = format!("{} still {still} with what the file said before", listed(ids));
    let doing = match &view.overview.paused {
        Some(_) => "nothing is replaced while the automation is paused",
        None => "they are replaced one after another, each when the others are ready",
    };
    Some(trouble(Level::Degraded, format!("service/{name}"), what).doing(Some(doing)))
}

/// A standby that streams and could confirm writes, and is not asked to.
fn not_confirming(view: &View, database: &DatabaseName, node: &NodeName) -> Option<String> {
    let record = view.record(database)?;
    let needed = view.confirmations(database) > 0;
    (needed && !record.sync.members.contains(node))
        .then(|| "receives log but is not in the sync set yet".to_owned())
}

/// Protections that nodes lack, those that lack the same together.
fn protections(view: &View) -> Vec<Trouble> {
    let mut lacking: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, node) in &view.overview.nodes {
        for missing in &node.missing {
            lacking.entry(missing).or_default().push(name.as_str());
        }
    }
    let told = lacking.into_iter().map(|(missing, nodes)| match nodes.as_slice() {
        [one] => (format!("node/{one}"), format!("node {one} is less protected: {missing}")),
        several => ("system".to_owned(), format!("nodes {} are less protected: {missing}", listed(several))),
    });
    told.map(|(subject, what)| trouble(Level::Degraded, subject, what)).collect()
}

fn generation(view: &View, name: &NodeName) -> Option<Trouble> {
    let (newest, own) = (view.overview.generation, view.overview.nodes.get(name)?.generation);
    (view.is_here(name) && own != newest).then(|| {
        let what =
            format!("node {name} still runs generation {own} of the system file, {newest} is in force");
        trouble(Level::Degraded, format!("node/{name}"), what).doing(Some("it follows by itself"))
    })
}
