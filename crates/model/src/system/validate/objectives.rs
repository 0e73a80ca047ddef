//! Objectives: promises that nothing in the file could keep are refused before anybody relies on them.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::problem::Code;
use super::super::read::{At, Percent, quoted};
use super::super::{Availability, Coordination, Durability, Objectives, System, duration};
use super::Check;
use super::services::duration_or;
use crate::SiteName;

/// The longest outage of a node's death that the design keeps: detection, revocation, promotion and the first write take
/// up to 0.9 s on a busy machine, and a promise needs room.
const SHORTEST_RTO: Duration = Duration::from_secs(1);

impl Check<'_, '_> {
    pub(super) fn objectives(&mut self, system: &System) -> Objectives {
        let default = Objectives::default();
        let Some(At { value: table, .. }) = self.raw.objectives.given() else {
            self.check_rpo(system, default.rpo);
            return default;
        };
        let objectives = Objectives {
            availability: table.availability.given().map(|at| at.value.0),
            rto: duration_or(&table.rto, default.rto),
            rpo: duration_or(&table.rpo, default.rpo),
        };
        if let Some(span) = table.rto.span().filter(|_| objectives.rto < SHORTEST_RTO) {
            self.error(
                Code::ImpossibleRto,
                span,
                format!("an RTO of {} cannot be kept", duration::format(objectives.rto)),
            )
            .why("to tell a dead node from a slow one and to make another the primary takes up to a second")
            .paste("the shortest is", "rto = \"1s\"");
        }
        self.check_rpo(system, objectives.rpo);
        if let Some(at) = table.availability.given() {
            self.check_availability(at, objectives.rto, system);
        }
        objectives
    }

    /// No asynchronous database may lose more than is promised.
    fn check_rpo(&mut self, system: &System, rpo: Duration) {
        let said = self.raw.objectives.given().and_then(|at| at.value.rpo.span()).cloned();
        for entry in self.raw.databases.given().into_iter().flat_map(|section| &section.value.0) {
            let name = crate::DatabaseName::new(entry.name.clone());
            let Some(Durability::Async { max_loss }) = system.databases.get(&name).map(|db| db.durability)
            else {
                continue;
            };
            if max_loss <= rpo && !rpo.is_zero() {
                continue;
            }
            let table = entry.body.as_ref();
            let place = said.clone().or_else(|| table.and_then(|t| t.durability.span().cloned()));
            let promise = if said.is_some() { "" } else { ", the default," };
            let loss = if max_loss.is_zero() { "any time" } else { &duration::format(max_loss) };
            let paste = promise_of(max_loss, self.raw.objectives.is_absent());
            self.error(
                Code::ImpossibleRpo,
                &place.unwrap_or(entry.span.clone()),
                format!(
                    "an RPO of {}{promise} cannot be kept: `{}` is async",
                    duration::format(rpo),
                    entry.name
                ),
            )
            .why(format!("a failover of `{}` may lose the writes of {loss}", entry.name))
            .paste("promise what it keeps, or make the database `zero-loss`", paste);
        }
    }

    fn check_availability(&mut self, at: &At<Percent>, rto: Duration, system: &System) {
        let (promised, span) = (at.value.0, &at.span);
        let per_year = promised.downtime_per_year();
        if per_year < rto {
            self.error(
                Code::ImpossibleAvailability,
                span,
                format!("{promised} leaves less time in a year than one fault takes"),
            )
            .why(format!(
                "it allows {} of outage in a year, and the promised RTO allows {} for one fault",
                duration::format(per_year),
                duration::format(rto)
            ))
            .paste("write for example", "availability = \"99.99%\"");
        }
        let Some((limit, why)) = limit(system) else {
            return;
        };
        if limit.parse().is_ok_and(|limit: Availability| promised > limit) {
            self.error(
                Code::ImpossibleAvailability,
                span,
                format!("{promised} cannot be promised by these nodes and sites"),
            )
            .why(why)
            .paste("at most, as it is", format!("availability = {}", quoted(limit)));
        }
    }
}

/// The text that promises `max_loss`; with a heading where the file has none.
fn promise_of(max_loss: Duration, heading: bool) -> String {
    let loss = if max_loss.is_zero() { Duration::from_secs(10) } else { max_loss };
    let heading = if heading { "[objectives]\n" } else { "" };
    format!("{heading}rpo = \"{}\"", duration::format(loss))
}

/// The highest availability the nodes and sites can give, with the reason; `None`: no limit is known.
///
/// The figures are what is commonly reached: one server with its restarts and repairs 99.9 %, one data centre
/// 99.99 % (Uptime Institute's tier III is 99.982 %, tier IV 99.995 %).
fn limit(system: &System) -> Option<(&'static str, String)> {
    let workers = system.workers().count();
    if workers == 1 {
        return Some((
            "99.9%",
            "there is one node for all work; every repair and every restart of it is an outage".to_owned(),
        ));
    }
    let sites: BTreeSet<&SiteName> = system.workers().map(|(_, node)| &node.site).collect();
    if let (1, Some(site)) = (sites.len(), sites.first()) {
        return Some((
            "99.99%",
            format!("all work stands in the site `{site}`, and no data centre is always up"),
        ));
    }
    if system.coordination == Coordination::Embedded {
        let voters: Vec<&SiteName> = system.voters().filter_map(|voter| system.site_of(voter)).collect();
        let most =
            sites.into_iter().find(|site| voters.iter().filter(|v| *v == site).count() * 2 > voters.len());
        return most.map(|site| {
            ("99.99%", format!("most voters stand in the site `{site}`, so that its loss stops everything"))
        });
    }
    None
}
