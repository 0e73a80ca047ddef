//! A system file in tables: what was understood, with every default filled in.

use std::fmt::Write;
use std::time::Duration;

use comfy_table::{Cell, ContentArrangement, Table, TableStyle, presets};
use model::system::{
    Coordination, Database, Durability, Objectives, Probe, Route, RouteTarget, Service, System, duration,
};
use model::{NodeName, ServiceName};

use super::output::{Look, Output};

/// Everything `system` says, in the order in which a person asks for it.
pub(crate) fn overview(system: &System, output: Output) -> String {
    let mut out = format!("{} {}\n", output.on_stdout(Look::Heading, "System"), system.name);
    let _ = writeln!(out, "{}", promises(&system.objectives));
    let _ = writeln!(out, "{}", agreement(system));
    section(&mut out, output, "Nodes", &["node", "site", "address", "votes", "holds"], nodes(system));
    section(
        &mut out,
        output,
        "Databases",
        &["database", "members", "port", "a write is acknowledged", "settings"],
        system.databases.iter().map(|(name, database)| row(name.as_str(), database)).collect(),
    );
    section(
        &mut out,
        output,
        "Services",
        &["service", "instances", "on", "ports", "healthy when"],
        system.services.iter().map(|(name, service)| service_row(system, name, service)).collect(),
    );
    section(
        &mut out,
        output,
        "Routes",
        &["route", "listens on", "leads to"],
        system.routes.iter().map(|(name, route)| route_row(name.as_str(), route)).collect(),
    );
    let backups = system.backups.iter().map(|(database, backup)| {
        let (when, keep) = (format!("{} UTC", backup.schedule), duration::format(backup.keep));
        vec![database.to_string(), backup.repository.clone(), when, keep]
    });
    section(&mut out, output, "Backups", &["database", "repository", "when", "kept"], backups.collect());
    if !system.alarms.notify.is_empty() {
        let _ = writeln!(
            out,
            "\n{} go to {}",
            output.on_stdout(Look::Heading, "Alarms"),
            system.alarms.notify.join(", ")
        );
    }
    out
}

/// A heading and a table, unless there is nothing to show.
fn section(out: &mut String, output: Output, title: &str, heads: &[&str], rows: Vec<Vec<String>>) {
    if rows.is_empty() {
        return;
    }
    let mut table = Table::new();
    table.load_style(STYLE).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(heads.iter().map(|head| Cell::new(*head)));
    table.add_rows(rows);
    let _ = writeln!(out, "\n{}", output.on_stdout(Look::Heading, title));
    for line in table.lines() {
        let _ = writeln!(out, "{}", line.trim_end());
    }
}

const STYLE: TableStyle = presets::NOTHING;

fn promises(objectives: &Objectives) -> String {
    let availability =
        objectives.availability.map_or("no promised availability".to_owned(), |availability| {
            format!(
                "{availability} available ({} of outage in a year)",
                duration::format(Duration::from_secs(availability.downtime_per_year().as_secs()))
            )
        });
    let loss = if objectives.rpo.is_zero() {
        "no acknowledged write lost".to_owned()
    } else {
        format!("at most the writes of {} lost", duration::format(objectives.rpo))
    };
    format!("promises {availability}, repair within {}, {loss}", duration::format(objectives.rto))
}

/// How agents agree, and what of it may be away.
fn agreement(system: &System) -> String {
    match &system.coordination {
        Coordination::Etcd(etcd) => format!("agents agree through etcd at {}", etcd.endpoints.join(", ")),
        Coordination::Embedded => match system.voters().count() {
            1 => "1 node votes: nothing is decided while it is away".to_owned(),
            voters => {
                let spare = (voters - 1) / 2;
                format!("{voters} nodes vote: any {spare} of them may be away")
            }
        },
    }
}

fn nodes(system: &System) -> Vec<Vec<String>> {
    let row = |(name, node): (&NodeName, &model::system::Node)| {
        let others = node.lines.iter().filter(|(line, _)| **line != node.preferred_line);
        let lines =
            others.fold(node.address().to_string(), |text, (line, ip)| format!("{text}, {line} {ip}"));
        let databases: Vec<&str> = system.databases_on(name).map(|(name, _)| name.as_str()).collect();
        let holds = match (system.is_witness(name), databases.is_empty()) {
            (true, _) => "nothing (only votes)".to_owned(),
            (false, true) => "-".to_owned(),
            (false, false) => databases.join(", "),
        };
        let votes = if node.voter { "yes" } else { "-" };
        vec![name.to_string(), node.site.to_string(), lines, votes.to_owned(), holds]
    };
    system.nodes.iter().map(row).collect()
}

fn row(name: &str, database: &Database) -> Vec<String> {
    let members: Vec<&str> = database.members.iter().map(NodeName::as_str).collect();
    let when = match database.durability {
        Durability::ZeroLoss if database.sync == 1 => "when 1 standby has flushed it".to_owned(),
        Durability::ZeroLoss => format!("when {} standbys have flushed it", database.sync),
        Durability::Async { max_loss } => format!("at once (may lose {})", duration::format(max_loss)),
    };
    let settings = match database.parameters.len() {
        0 => "-".to_owned(),
        count => count.to_string(),
    };
    vec![name.to_owned(), members.join(", "), database.port.to_string(), when, settings]
}

fn service_row(system: &System, name: &ServiceName, service: &Service) -> Vec<String> {
    let nodes: Vec<&str> = system.nodes_for(service).into_iter().map(NodeName::as_str).collect();
    let every = duration::format(service.health.interval);
    let healthy = match &service.health.probe {
        Probe::Http { path } => format!("GET {path} answers, every {every}"),
        Probe::Tcp => format!("its port answers, every {every}"),
        Probe::Command { command } => format!("`{}` ends with 0, every {every}", command.join(" ")),
        Probe::Process if service.is_external() => "nobody asks".to_owned(),
        Probe::Process => "it runs".to_owned(),
    };
    if service.is_external() {
        let addresses = service.addresses.iter().map(|external| external.address.to_string());
        let on = addresses.collect::<Vec<_>>().join(", ");
        return vec![name.to_string(), "of others".to_owned(), on, "-".to_owned(), healthy];
    }
    vec![
        name.to_string(),
        service.instances.to_string(),
        nodes.join(", "),
        service.ports.to_string(),
        healthy,
    ]
}

fn route_row(name: &str, route: &Route) -> Vec<String> {
    let to = match &route.target {
        RouteTarget::Service { service } => format!("service {service}"),
        RouteTarget::Database { database, role } => format!("database {database}, {}", role.as_str()),
    };
    vec![name.to_owned(), route.listen.to_string(), to]
}
