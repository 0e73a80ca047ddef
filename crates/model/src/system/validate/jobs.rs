//! Jobs.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use super::super::placeholder;
use super::super::problem::Code;
use super::super::read::Named;
use super::super::read::tables::JobTable;
use super::super::{Job, System};
use super::Check;
use super::services::{Runner, duration_or};
use crate::JobName;

impl Check<'_, '_> {
    pub(super) fn jobs(&mut self, system: &System) -> BTreeMap<JobName, Job> {
        let Some(section) = self.raw.jobs.given() else {
            return BTreeMap::new();
        };
        let default = JobTable::default();
        let entries = &section.value.0;
        entries
            .iter()
            .map(|entry| (JobName::new(entry.name.clone()), self.job(entry, &default, system)))
            .collect()
    }

    fn job(&mut self, entry: &Named<JobTable>, default: &JobTable, system: &System) -> Job {
        self.check_name("job", &entry.name, &entry.span);
        let table = entry.body.as_ref().unwrap_or(default);
        let name = entry.name.as_str();
        let path = |key: &str| format!("jobs.{name}.{key}");
        if table.command.is_absent() && entry.body.is_some() {
            self.error(Code::MissingKey, &entry.span, format!("the job `{name}` has no `command`"))
                .why("there is nothing to run")
                .paste("write", "command = [\"./shop\", \"migrate\"]");
        }
        if let Some(at) = table.user.given() {
            self.check_user("user", at);
        }
        self.no_port(name, table);
        let runner = Runner {
            what: format!("the job `{name}`"),
            span: &entry.span,
            sites: &table.sites,
            nodes: &table.nodes,
            is_readable: entry.body.is_some(),
        };
        let job = Job {
            command: self.command(&table.command, &path("command")),
            env: self.env(&path("env"), &table.env),
            placement: self.placement(&runner, system),
            schedule: table.schedule.given().map(|at| at.value.0),
            timeout: self.timeout(table, &path("timeout")),
            repeat_if_unknown: table.repeat_if_unknown.given().is_some_and(|at| at.value),
            memory: self.memory(&table.memory, &path("memory")),
            user: table.user.given().map(|at| at.value.clone()),
        };
        self.check_release_of(name, table, &job, system);
        job
    }

    fn timeout(&mut self, table: &JobTable, path: &str) -> Duration {
        self.at_least(&table.timeout, path, 1000, 3_600_000);
        duration_or(&table.timeout, Duration::from_secs(3600))
    }

    /// Nobody connects to a job, so it gets no port.
    fn no_port(&mut self, name: &str, table: &JobTable) {
        for span in texts_with(table, placeholder::uses_port) {
            self.error(Code::UnknownPlaceholder, &span, format!("the job `{name}` has no `{{port}}`"))
                .why("nothing is routed to a job, so it gets no port")
                .hint("a program that clients connect to is a service");
        }
    }
}

/// Where the texts of a job stand of which `holds` is true.
pub(super) fn texts_with(table: &JobTable, holds: fn(&str) -> bool) -> Vec<Range<usize>> {
    let words = table.command.given().into_iter().flat_map(|at| &at.value);
    let words = words.map(|word| (word.value.as_str(), word.span.clone()));
    let env = table.env.given().into_iter().flat_map(|section| &section.value.0);
    let env = env.filter_map(|entry| Some((entry.body.as_deref()?, entry.value_span.clone())));
    words.chain(env).filter(|(text, _)| holds(text)).map(|(_, span)| span).collect()
}
