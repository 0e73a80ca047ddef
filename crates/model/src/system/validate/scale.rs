//! Services whose number of instances follows the load.

use std::time::Duration;

use super::super::problem::Code;
use super::super::read::tables::ServiceTable;
use super::super::read::{At, Field, HumanDuration};
use super::super::{RouteTarget, Scale, System};
use super::Check;
use super::services::duration_or;

const LEAST_COOL_DOWN: Duration = Duration::from_secs(1);
const COOL_DOWN: Duration = Duration::from_secs(60);

impl Check<'_, '_> {
    /// How the file wants a service to be scaled, of which at least so many instances run.
    pub(super) fn scale(&mut self, name: &str, table: &ServiceTable, least: u32) -> Option<Scale> {
        let At { value: scale, span } = table.scale.given()?;
        let path = |key: &str| format!("services.{name}.scale.{key}");
        for (key, is_absent, paste) in [
            ("max", scale.max.is_absent(), "scale.max = 6"),
            ("requests", scale.requests.is_absent(), "scale.requests = 40"),
        ] {
            if is_absent {
                self.error(Code::MissingKey, span, format!("`services.{name}.scale` has no `{key}`"))
                    .why("there is no number that fits every service")
                    .paste("write for example", paste);
            }
        }
        let max = self.number(&scale.max, &path("max"), 2..=1000, least + 1);
        if let Some(span) = scale.max.span().filter(|_| max <= least) {
            self.error(
                Code::KeyWithoutEffect,
                span,
                format!("`{}` leaves nothing to scale: at least {least} instances run", path("max")),
            )
            .why("`instances` is the least, and `max` the most")
            .hint("give it a larger number, or `instances` a smaller one");
        }
        let requests = self.number(&scale.requests, &path("requests"), 1..=1_000_000, 1);
        let cool_down = self.cool_down(&scale.cool_down, &path("cool_down"));
        Some(Scale { max, requests, cool_down })
    }

    fn cool_down(&mut self, field: &Field<HumanDuration>, path: &str) -> Duration {
        let cool_down = duration_or(field, COOL_DOWN);
        if let Some(span) = field.span().filter(|_| cool_down < LEAST_COOL_DOWN) {
            let paste = self.findings.line_with(span, "\"1s\"");
            self.error(Code::InvalidDuration, span, format!("`{path}` is too short"))
                .why("instances would end and start again with every breath of the load")
                .paste("at least", paste);
        }
        cool_down
    }

    /// Reports services whose load nobody can know.
    pub(super) fn check_scaling(&mut self, system: &System) {
        let leads_to = |name: &str| {
            system.routes.values().any(|route| match &route.target {
                RouteTarget::Service { service } => service.as_str() == name,
                RouteTarget::Database { .. } => false,
            })
        };
        let Some(section) = self.raw.services.given() else { return };
        // A route that could not be read may lead there.
        let routes = self.raw.routes.given();
        let is_read = routes.map_or(self.raw.routes.is_absent(), |routes| {
            routes.value.0.iter().all(|route| route.body.is_some())
        });
        for entry in &section.value.0 {
            let span = entry.body.as_ref().filter(|table| table.addresses.is_absent());
            let Some(span) = span.and_then(|table| table.scale.span()) else { continue };
            if is_read && !leads_to(&entry.name) {
                let name = &entry.name;
                self.error(
                    Code::KeyWithoutEffect,
                    span,
                    format!("`scale` has no effect on the service `{name}`"),
                )
                .why("no route leads to it, so that no proxy knows its load")
                .paste(
                    "write for example",
                    format!("[routes.{name}]\nlisten = \":8080\"\nservice = \"{name}\""),
                );
            }
        }
    }
}
