//! How requests are spread over the instances of a service.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::problem::Code;
use super::super::read::tables::{ServiceTable, TrafficTable};
use super::super::read::{At, Field, Named, Number};
use super::super::traffic::Traffic;
use super::Check;
use super::services::duration_or;
use crate::NodeName;

/// The longest name of a cookie.
const LONGEST_COOKIE: usize = 64;

impl Check<'_, '_> {
    pub(super) fn traffic(&mut self, name: &str, service: &ServiceTable) -> Traffic {
        let Some(At { value: table, .. }) = service.traffic.given() else {
            return Traffic::default();
        };
        let default = Traffic::default();
        let path = |key: &str| format!("services.{name}.traffic.{key}");
        self.check_queue(name, table);
        if let Some(cookie) = table.sticky.given() {
            self.check_cookie(&path("sticky"), cookie);
        }
        let limit = self.number(&table.limit, &path("limit"), 1..=1_000_000, 0);
        Traffic {
            weights: self.weights(&path("weights"), table),
            prefer_site: table.prefer_site.given().map_or(default.prefer_site, |at| at.value),
            slow_start: duration_or(&table.slow_start, default.slow_start),
            sticky: table.sticky.given().map(|at| at.value.clone()),
            limit: (limit > 0).then_some(limit),
            queue: self.number(&table.queue, &path("queue"), 0..=100_000, default.queue),
            queue_wait: self.queue_wait(&path("queue_wait"), table, default.queue_wait),
            idempotency_keys: table.idempotency_keys.given().is_some_and(|at| at.value),
        }
    }

    fn weights(&mut self, path: &str, table: &TrafficTable) -> BTreeMap<NodeName, u32> {
        let mut weights = BTreeMap::new();
        for entry in table.weights.given().into_iter().flat_map(|section| &section.value.0) {
            let Named { name, span, value_span, body } = entry;
            if !self.refers_by(Code::UnknownNode, "node", name, span, &self.raw.nodes) {
                continue;
            }
            if let Some(Number(number)) = body {
                let given = Field::Given(At { value: Number(*number), span: value_span.clone() });
                let weight = self.number(&given, &format!("{path}.{name}"), 1..=100, 1);
                weights.insert(NodeName::new(name.clone()), weight);
            }
        }
        weights
    }

    /// Without a limit nothing ever waits.
    fn check_queue(&mut self, name: &str, table: &TrafficTable) {
        if !table.limit.is_absent() {
            return;
        }
        for (key, span) in [("queue", table.queue.span()), ("queue_wait", table.queue_wait.span())] {
            if let Some(span) = span {
                self.error(
                    Code::KeyWithoutEffect,
                    span,
                    format!("`{key}` has no effect on the service `{name}`"),
                )
                .why("requests wait only while every instance is at its `limit`, and there is none")
                .hint("remove it, or add for example limit = 200");
            }
        }
    }

    fn queue_wait(&mut self, path: &str, table: &TrafficTable, default: Duration) -> Duration {
        let wait = duration_or(&table.queue_wait, default);
        let span = table.queue_wait.span().filter(|_| !(10..=60_000).contains(&wait.as_millis()));
        if let Some(span) = span {
            let paste = self.findings.line_with(span, "\"1s\"");
            self.error(Code::InvalidDuration, span, format!("`{path}` must be from 10ms to 1m"))
                .why("in less nothing becomes free, and a client that waits for longer has gone")
                .paste("write for example", paste);
        }
        wait
    }

    /// Reports a text that cannot be the name of a cookie (a token of RFC 6265 section 4.1.1).
    fn check_cookie(&mut self, path: &str, at: &At<String>) {
        let inner = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        let name = at.value.as_str();
        if !name.is_empty() && name.len() <= LONGEST_COOKIE && name.chars().all(inner) {
            return;
        }
        let paste = self.findings.line_with(&at.span, "\"shop-instance\"");
        self.error(Code::InvalidCookie, &at.span, format!("`{path}` cannot be the name of a cookie"))
            .why(format!("it is letters, digits and `-_.`, at most {LONGEST_COOKIE} characters"))
            .paste("write for example", paste);
    }
}
