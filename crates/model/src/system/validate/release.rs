//! What releases of services need.

use super::super::problem::Code;
use super::super::read::tables::{JobTable, ServiceTable};
use super::super::{Job, Releasing, Service, System, placeholder};
use super::Check;
use super::jobs::texts_with;
use crate::{JobName, ServiceName};

impl Check<'_, '_> {
    /// What the file wants of the releases of a service.
    pub(super) fn releasing(&mut self, table: &ServiceTable) -> Releasing {
        let Some(at) = table.release.given().and_then(|release| release.value.before.given()) else {
            return Releasing::default();
        };
        let is_known = self.refers_by(Code::UnknownJob, "job", &at.value, &at.span, &self.raw.jobs);
        Releasing { before: is_known.then(|| JobName::new(at.value.clone())) }
    }

    /// Reports what a service says of releases that it cannot have.
    pub(super) fn check_releasing(&mut self, name: &str, table: &ServiceTable, service: &Service) {
        let before = table.release.given().and_then(|release| release.value.before.span());
        let runs = !service.command.is_empty() || service.image.is_some();
        let Some(span) = before.filter(|_| runs && !service.needs_release()) else { return };
        let hint = match service.image {
            Some(_) => "remove the key: what an image brings is released by naming another `image`",
            None => "put {release} into the command, such as \"{release}/bin/app\", or remove the key",
        };
        self.error(
            Code::KeyWithoutEffect,
            span,
            format!("`release.before` has no effect on the service `{name}`"),
        )
        .why("neither its command nor its environment names {release}, so that it has no releases")
        .hint(hint);
    }

    /// Reports a job that runs from a release of nothing, or of one of several services.
    pub(super) fn check_release_of(&mut self, name: &str, table: &JobTable, job: &Job, system: &System) {
        if !job.needs_release() {
            return;
        }
        let names = |service: &Service| service.release.before.as_ref().map(JobName::as_str) == Some(name);
        let services = system.services.iter().filter(|(_, service)| names(service));
        let services: Vec<&str> = services.map(|(name, _)| ServiceName::as_str(name)).collect();
        let why = match services.as_slice() {
            [_] => return,
            [] if self.names_unread() => return,
            [] => "no service names the job in `release.before`, so that it belongs to no release".to_owned(),
            several => format!(
                "{} name the job in `release.before`: it could be either's",
                super::list(several.iter().copied())
            ),
        };
        let paste = services.is_empty().then(|| format!("release.before = \"{name}\""));
        for span in texts_with(table, placeholder::uses_release) {
            let problem =
                self.error(Code::UnknownPlaceholder, &span, format!("the job `{name}` has no `{{release}}`"));
            problem.why(why.clone());
            match &paste {
                Some(paste) => problem.paste("write below the service", paste.clone()),
                None => problem.hint("describe a job for each of them"),
            };
        }
    }

    /// Whether a service that could not be read, or names a job that does not exist, may mean this one.
    fn names_unread(&self) -> bool {
        let Some(section) = self.raw.services.given() else { return !self.raw.services.is_absent() };
        let jobs = self.raw.jobs.given();
        let is_job = |name: &str| jobs.is_some_and(|jobs| jobs.value.names().any(|known| known == name));
        section.value.0.iter().any(|entry| match &entry.body {
            None => true,
            Some(table) => match table.release.given() {
                None => !table.release.is_absent(),
                Some(release) => {
                    let before = &release.value.before;
                    before.given().map_or(!before.is_absent(), |at| !is_job(&at.value))
                }
            },
        })
    }
}
