//! The status as a person reads it.

mod certificates;
mod members;
mod programs;
mod routes;
mod scaling;

use std::fmt::Write;

use model::routes::InstanceRouteState;
use model::status::InstanceNote;
use model::system::Coordination;
use model::{NodeName, ServiceName};

use super::verdict::{Level, Trouble, Verdict};
use super::view::{Heard, View};
use crate::cli::columns::{Cell, section};
use crate::cli::output::{Look, Output};

/// Everything at one glance: the verdict, then what it is made of, then what is wrong and what would help.
pub(crate) fn text(view: &View, verdict: &Verdict, output: Output) -> String {
    let mut out = headline(view, verdict, output);
    out += &troubles(&verdict.troubles, output);
    for name in view.system.databases.keys() {
        out += &members::database(view, name, &verdict.writes, output);
    }
    let _ = writeln!(out, "\n{}", output.on_stdout(Look::Heading, "Protection"));
    for sentence in &verdict.protection.sentences {
        let _ = writeln!(out, "  {sentence}");
    }
    out += &section("Nodes", &["node", "site", "state", "lines", "votes"], &nodes(view), output);
    out += &section("Programs", &["node", "version", "SHA-256", "proxy"], &programs::rows(view), output);
    let services: Vec<_> = view.system.services.keys().flat_map(|name| instances(view, name)).collect();
    out += &section("Services", &["service", "instance", "address", "state"], &services, output);
    let heads = ["service", "wanted", "placed", "in the file", "why"];
    out += &section("Scaling", &heads, &scaling::rows(view), output);
    out += &crate::cli::release::under_way_table(view, output);
    out += &section("Routes", &["route", "listens on", "leads to"], &routes::rows(view), output);
    out += &section("Certificates", &["route", "on", "until"], &certificates::rows(view), output);
    out
}

/// How a level looks.
pub(crate) fn look(level: Level) -> Look {
    match level {
        Level::Healthy => Look::Good,
        Level::Degraded => Look::Warning,
        Level::Down => Look::Error,
    }
}

fn headline(view: &View, verdict: &Verdict, output: Output) -> String {
    let word = output.on_stdout(look(verdict.level), verdict.level.word());
    let name = output.on_stdout(Look::Heading, view.system.name.as_str());
    format!("{name} is {word}: {}\n", verdict.sentence)
}

fn troubles(troubles: &[Trouble], output: Output) -> String {
    let mut out = String::new();
    if troubles.is_empty() {
        return out;
    }
    let _ = writeln!(out, "\n{}", output.on_stdout(Look::Heading, "What is wrong"));
    for Trouble { level, subject: _, what, doing, unblock } in troubles {
        let _ = writeln!(out, "  {} {what}", output.on_stdout(look(*level), mark(*level)));
        if let Some(doing) = doing {
            let _ = writeln!(out, "    {} {doing}", output.on_stdout(Look::Faint, "now: "));
        }
        if let Some(unblock) = unblock {
            let _ = writeln!(out, "    {} {unblock}", output.on_stdout(Look::Hint, "help:"));
        }
    }
    out
}

/// What stands where there are no colours.
fn mark(level: Level) -> &'static str {
    match level {
        Level::Healthy => "-",
        Level::Degraded => "!",
        Level::Down => "x",
    }
}

fn nodes(view: &View) -> Vec<Vec<Cell>> {
    view.system
        .nodes
        .iter()
        .map(|(name, node)| {
            let votes = match (&view.system.coordination, node.voter) {
                (Coordination::Etcd(_), _) => "etcd decides",
                (Coordination::Embedded, true) => "yes",
                (Coordination::Embedded, false) => "-",
            };
            vec![
                name.as_str().into(),
                node.site.as_str().into(),
                node_state(view, name),
                node_lines(view, name).into(),
                votes.into(),
            ]
        })
        .collect()
}

fn node_state(view: &View, name: &NodeName) -> Cell {
    let leads = view.overview.leader.as_ref() == Some(name);
    let here = if leads { "up, leads" } else { "up" };
    if let (Heard::Yes, Some(reason)) = (view.heard(name), view.overview.upkeep.drained.get(name)) {
        return Cell::new(Look::Warning, format!("{here}, drained: {reason}"));
    }
    match view.heard(name) {
        Heard::Yes => match view.overview.nodes.get(name).map(|node| node.missing.is_empty()) {
            Some(false) => Cell::new(Look::Warning, format!("{here}, less protected")),
            Some(true) | None => here.into(),
        },
        Heard::Silent => Cell::new(Look::Error, "silent"),
        Heard::AgentGone => Cell::new(Look::Error, "its agent has ended"),
        Heard::Never => Cell::new(Look::Error, "not heard yet"),
        Heard::CutOff => Cell::new(Look::Error, "cut off from the others"),
    }
}

fn node_lines(view: &View, name: &NodeName) -> String {
    let Some(node) = view.system.nodes.get(name) else { return String::new() };
    let up = view.overview.nodes.get(name).map(|node| &node.lines);
    let unknown = up.is_none_or(|up| up.is_empty()) && view.overview.node == *name;
    let line = |line: &model::LineName, address: &std::net::IpAddr| match up {
        Some(up) if up.contains(line) || unknown => format!("{line} {address}"),
        Some(_) | None => format!("{line} {address} (down)"),
    };
    node.lines.iter().map(|(name, address)| line(name, address)).collect::<Vec<_>>().join(", ")
}

fn instances(view: &View, service: &ServiceName) -> Vec<Vec<Cell>> {
    if view.is_external(service) {
        return externals(view, service);
    }
    let all = view.instances(service);
    if all.is_empty() {
        return vec![vec![
            service.as_str().into(),
            "-".into(),
            "-".into(),
            Cell::new(Look::Error, "not placed yet"),
        ]];
    }
    let row = |instance: model::routes::InstanceEndpoint| {
        let note = view.note(&instance);
        let words = |otherwise: &str| note.map_or_else(|| otherwise.to_owned(), in_words);
        let state = match instance.state {
            InstanceRouteState::Ready if !view.is_here(&instance.node) => {
                Cell::new(Look::Warning, "was ready, its agent has ended")
            }
            InstanceRouteState::Ready if note.is_some_and(|note| note.unlimited.is_some()) => {
                Cell::new(Look::Warning, "ready, its memory is not limited")
            }
            InstanceRouteState::Ready => "ready".into(),
            InstanceRouteState::NotReady => Cell::new(Look::Warning, words("not ready")),
            InstanceRouteState::Draining => Cell::new(Look::Warning, "finishes its work"),
            InstanceRouteState::Gone => Cell::new(Look::Error, words("gone")),
        };
        vec![service.as_str().into(), instance.id.into(), instance.address.to_string().into(), state]
    };
    all.into_iter().map(row).collect()
}

/// The addresses of a service that others run.
fn externals(view: &View, service: &ServiceName) -> Vec<Vec<Cell>> {
    let row = |external: super::external::External| {
        let words = view.words(service, &external);
        let state = match (external.bad().0.is_empty(), external.serves()) {
            (true, _) => words.into(),
            (false, true) => Cell::new(Look::Warning, words),
            (false, false) => Cell::new(Look::Error, words),
        };
        vec![service.as_str().into(), "of others".into(), external.address.to_string().into(), state]
    };
    view.external(service).into_iter().map(row).collect()
}

/// What the supervisor says of an instance that is not ready.
fn in_words(note: &InstanceNote) -> String {
    if note.crash_loop { format!("crash loop: {}", note.state) } else { note.state.clone() }
}

#[cfg(test)]
mod tests;
