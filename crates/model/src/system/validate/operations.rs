//! Coordination, alarms and backups.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use super::super::problem::Code;
use super::super::read::tables::{BackupTable, EtcdTable};
use super::super::read::{At, Named, quoted};
use super::super::{Alarms, Backup, Coordination, Etcd, Schedule};
use super::Check;
use super::services::duration_or;
use crate::DatabaseName;

/// One day, the shortest time backups are kept.
const DAY: Duration = Duration::from_secs(86_400);

impl Check<'_, '_> {
    pub(super) fn coordination(&mut self) -> Coordination {
        let etcd = self.raw.coordination.given().and_then(|at| at.value.etcd.given());
        match etcd {
            Some(At { value, span }) => Coordination::Etcd(self.etcd(value, span)),
            None => Coordination::Embedded,
        }
    }

    fn etcd(&mut self, table: &EtcdTable, span: &Range<usize>) -> Etcd {
        let endpoints = table.endpoints.given().map_or(&[][..], |at| &at.value);
        if table.endpoints.is_absent() || table.endpoints.given().is_some_and(|at| at.value.is_empty()) {
            self.error(Code::MissingKey, span, "`[coordination.etcd]` has no `endpoints`")
                .why("agents would not know where etcd is")
                .paste("write for example", "endpoints = [\"https://10.0.1.21:2379\"]");
        }
        for at in endpoints {
            self.check_url(at, &["https://", "http://"], "https://10.0.1.21:2379");
        }
        let secure = endpoints.iter().find(|at| at.value.starts_with("https://"));
        if let Some(at) = secure.filter(|_| table.ca.is_absent()) {
            self.error(Code::MissingKey, &at.span, "`[coordination.etcd]` has no `ca`")
                .why("without the authority that signed etcd's certificates anyone could play etcd")
                .paste("write", "ca = \"/etc/mainstay/etcd-ca.pem\"");
        }
        let alone = match (table.certificate.span(), table.key.span()) {
            (Some(certificate), None) => Some(certificate).filter(|_| table.key.is_absent()),
            (None, Some(key)) => Some(key).filter(|_| table.certificate.is_absent()),
            (Some(_), Some(_)) | (None, None) => None,
        };
        if let Some(span) = alone {
            self.error(Code::MissingKey, span, "`certificate` and `key` belong together")
                .why("a certificate is only shown by whoever holds its key")
                .hint("name both files, or neither");
        }
        Etcd {
            endpoints: endpoints.iter().map(|at| at.value.clone()).collect(),
            ca: self.path(&table.ca, "coordination.etcd.ca"),
            certificate: self.path(&table.certificate, "coordination.etcd.certificate"),
            key: self.path(&table.key, "coordination.etcd.key"),
        }
    }

    pub(super) fn alarms(&mut self) -> Alarms {
        let notify = self.raw.alarms.given().and_then(|at| at.value.notify.given());
        let addresses = notify.map_or(&[][..], |at| &at.value.0);
        for at in addresses {
            self.check_url(at, &["https://", "http://", "mailto:"], "https://hooks.example/ops");
        }
        Alarms { notify: addresses.iter().map(|at| at.value.clone()).collect() }
    }

    pub(super) fn backups(&mut self) -> BTreeMap<DatabaseName, Backup> {
        let Some(section) = self.raw.backups.given() else {
            return BTreeMap::new();
        };
        let default = BackupTable::default();
        let entries = &section.value.0;
        entries
            .iter()
            .map(|entry| (DatabaseName::new(entry.name.clone()), self.backup(entry, &default)))
            .collect()
    }

    fn backup(&mut self, entry: &Named<BackupTable>, default: &BackupTable) -> Backup {
        self.refers_by(Code::UnknownDatabase, "database", &entry.name, &entry.span, &self.raw.databases);
        let table = entry.body.as_ref().unwrap_or(default);
        if table.repository.is_absent() && entry.body.is_some() {
            self.error(
                Code::MissingKey,
                &entry.span,
                format!("the backup of `{}` has no `repository`", entry.name),
            )
            .why("there is nowhere to put it")
            .paste("write for example", "repository = \"file:///srv/backup\"");
        }
        if let Some(at) = table.repository.given() {
            self.check_url(at, &["s3://", "file:///"], "file:///srv/backup");
        }
        let keep = duration_or(&table.keep, DAY * 30);
        if let Some(span) = table.keep.span().filter(|_| keep < DAY) {
            self.error(Code::InvalidDuration, span, "backups must be kept for at least one day")
                .why("a fault that is noticed the next morning could not be undone")
                .paste("write for example", "keep = \"30d\"");
        }
        Backup {
            repository: table.repository.given().map_or(String::new(), |at| at.value.clone()),
            schedule: table.schedule.given().map_or(Schedule::Daily { hour: 3, minute: 0 }, |at| at.value.0),
            keep,
        }
    }

    /// Reports a text that begins with none of `schemes` or names nothing behind it.
    fn check_url(&mut self, at: &At<String>, schemes: &[&str], example: &str) {
        let text = at.value.as_str();
        let rest = schemes.iter().find_map(|scheme| text.strip_prefix(scheme));
        let blank = |c: char| c.is_whitespace() || c.is_control();
        let mail = !text.starts_with("mailto:")
            || rest.is_some_and(|r| r.split('@').filter(|p| !p.is_empty()).count() == 2);
        if mail
            && rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(blank) && !rest.starts_with(':'))
        {
            return;
        }
        self.error(
            Code::InvalidUrl,
            &at.span,
            format!("{} is not an address that can be used here", quoted(text)),
        )
        .why(format!(
            "it must begin with {} and name a place behind it, without blanks",
            schemes.join(" or ")
        ))
        .paste("write for example", quoted(example));
    }
}
