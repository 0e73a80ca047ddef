//! The second pass: from raw tables to the description, with every default filled in and every rule checked.
//!
//! A description is drafted from whatever could be read, so that one broken value hides no other problem; it is only
//! given out when nothing is wrong.

mod carriage;
mod databases;
mod external;
mod images;
mod jobs;
mod names;
mod nodes;
mod objectives;
mod operations;
mod parameters;
mod ports;
mod release;
mod routes;
mod scale;
mod services;
mod spread;
mod supervision;
mod tls;
mod traffic;
mod voters;

use std::ops::Range;

use super::problem::{Code, Findings, Problem};
use super::read::{At, Field, FileTable, Number, Section};
use super::{Objectives, System};
use crate::SystemName;

pub use parameters::{acknowledges_early, needs_restart, owned_parameter};

/// More nodes than this do not make one system.
const MAX_NODES: usize = 256;

/// The second pass over one file.
struct Check<'c, 'a> {
    raw: &'c FileTable,
    findings: &'c mut Findings<'a>,
    /// What runs now: choices made for it are kept where they still hold.
    running: Option<&'c System>,
}

/// Checks everything the raw tables say and fills in what they leave out.
pub(super) fn validate(
    raw: &FileTable,
    running: Option<&System>,
    findings: &mut Findings<'_>,
) -> Option<System> {
    let mut check = Check { raw, findings, running };
    check.required_sections();
    let sites = check.sites();
    let nodes = check.nodes(&sites);
    let mut system = System {
        name: check.system_name(),
        objectives: Objectives::default(),
        sites,
        nodes,
        coordination: check.coordination(),
        databases: Default::default(),
        services: Default::default(),
        jobs: Default::default(),
        routes: Default::default(),
        alarms: check.alarms(),
        backups: check.backups(),
    };
    check.choose_voters(&mut system);
    system.databases = check.databases(&system);
    system.services = check.services(&system);
    check.check_start_order(&system.services);
    system.jobs = check.jobs(&system);
    system.routes = check.routes(&system);
    check.check_loops(&system);
    check.check_scaling(&system);
    check.choose_ports(&mut system);
    check.check_ports(&system);
    system.objectives = check.objectives(&system);
    check.findings.is_clean().then_some(system)
}

impl Check<'_, '_> {
    fn error(&mut self, code: Code, span: &Range<usize>, message: impl Into<String>) -> &mut Problem {
        self.findings.error(code, span, message)
    }

    fn warning(&mut self, code: Code, span: &Range<usize>, message: impl Into<String>) -> &mut Problem {
        self.findings.warning(code, span, message)
    }

    fn required_sections(&mut self) {
        let end = self.findings.text.len();
        if self.raw.system.is_absent() {
            self.error(Code::MissingSection, &(0..0), "the section `[system]` is missing")
                .why("the system needs a name, by which it is told from others on the same machines")
                .paste("write", "[system]\nname = \"shop\"");
        }
        let no_node = |nodes: &At<Section<_>>| nodes.value.0.is_empty();
        if self.raw.nodes.is_absent() || self.raw.nodes.given().is_some_and(no_node) {
            self.error(Code::MissingSection, &(end..end), "the section `[nodes]` is missing")
                .why("a system runs on at least one machine")
                .paste("write", "[nodes.e1]\naddress = \"10.0.1.11\"");
        }
    }

    fn system_name(&mut self) -> SystemName {
        let Some(table) = self.raw.system.given() else {
            return "broken".into();
        };
        if table.value.name.is_absent() {
            self.error(Code::MissingKey, &table.span, "`[system]` has no `name`")
                .why("the system is told by it from others on the same machines")
                .paste("write", "name = \"shop\"");
        }
        let Some(name) = table.value.name.given() else {
            return "broken".into();
        };
        self.check_name("system", &name.value, &name.span);
        SystemName::new(name.value.clone())
    }

    /// The number `field` gives, or `default`; outside `range` it is reported and `default` is used.
    fn number(
        &mut self,
        field: &Field<Number>,
        path: &str,
        range: std::ops::RangeInclusive<u32>,
        default: u32,
    ) -> u32 {
        let Some(At { value: Number(number), span }) = field.given() else {
            return default;
        };
        if let Some(number) = u32::try_from(*number).ok().filter(|n| range.contains(n)) {
            return number;
        }
        let (min, max) = (*range.start(), *range.end());
        let nearest = if *number < i64::from(min) { min } else { max };
        let limits = if max == u32::MAX {
            format!("it must be at least {min}")
        } else {
            format!("it must be {min} to {max}")
        };
        let paste = self.findings.line_with(span, &nearest.to_string());
        self.error(Code::InvalidNumber, span, format!("`{path}` cannot be {number}"))
            .why(limits)
            .paste("the nearest is", paste);
        default
    }

    /// The TCP port `field` gives; a wrong one is reported.
    fn port(&mut self, field: &Field<Number>, path: &str) -> Option<u16> {
        field.given()?;
        u16::try_from(self.number(field, path, 1..=65535, 0)).ok().filter(|port| *port != 0)
    }
}

/// `names` as a sentence lists them.
fn list<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    match names.split_last() {
        None => String::new(),
        Some((only, [])) => (*only).to_owned(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
    }
}
