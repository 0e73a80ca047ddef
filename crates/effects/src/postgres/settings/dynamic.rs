//! What changes while a server runs, in a file of its own.

use std::io;

use model::leadership::SyncSet;

use super::super::Member;
use super::super::volume::{self, Access};
use super::text;

/// A set of synchronous standbys that no standby can be in (no node's name has spaces): every commit waits.
pub const NOBODY: &str = r#"ANY 1 ("no member may confirm")"#;

/// The settings that agents change while a server runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dynamic {
    /// Whom a standby follows; empty for nobody.
    pub primary_conninfo: String,
    /// The slot it uses there.
    pub primary_slot_name: String,
    /// Who must confirm commits.
    pub synchronous_standby_names: String,
    /// Whether transactions are read-only unless they say otherwise.
    pub read_only: bool,
}

impl Default for Dynamic {
    /// Follows nobody and acknowledges nothing.
    fn default() -> Self {
        Self {
            primary_conninfo: String::new(),
            primary_slot_name: String::new(),
            synchronous_standby_names: NOBODY.to_owned(),
            read_only: false,
        }
    }
}

/// `set` as the value of `synchronous_standby_names`. A set that cannot be satisfied makes commits wait ([`NOBODY`]);
/// `k = 0` makes them wait for nobody.
pub fn sync_names(set: &SyncSet) -> String {
    if set.k == 0 {
        return String::new();
    }
    if set.members.is_empty() {
        return NOBODY.to_owned();
    }
    let names: Vec<String> = set.members.iter().map(|name| format!("\"{name}\"")).collect();
    format!("ANY {} ({})", set.k, names.join(", "))
}

impl Dynamic {
    fn file(&self) -> String {
        let mut file = String::from("# Written by mainstay; what is edited here is lost.\n");
        text::push(&mut file, "primary_conninfo", &self.primary_conninfo);
        text::push(&mut file, "primary_slot_name", &self.primary_slot_name);
        text::push(&mut file, "synchronous_standby_names", &self.synchronous_standby_names);
        text::push(&mut file, "default_transaction_read_only", if self.read_only { "on" } else { "off" });
        file
    }

    fn parse(file: &str) -> Self {
        let mut found = text::parse(file);
        let default = Self::default();
        let mut take = |name: &str| found.remove(name);
        Self {
            primary_conninfo: take("primary_conninfo").unwrap_or_default(),
            primary_slot_name: take("primary_slot_name").unwrap_or_default(),
            synchronous_standby_names: take("synchronous_standby_names")
                .unwrap_or(default.synchronous_standby_names),
            read_only: take("default_transaction_read_only").as_deref() == Some("on"),
        }
    }

    /// What stands in the member's file; the default when there is none. Blocks.
    pub(in super::super) fn read(member: &Member) -> io::Result<Self> {
        let path = member.paths().dynamic_conf();
        match std::fs::read_to_string(&path) {
            Ok(file) => Ok(Self::parse(&file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(volume::in_words("read", &path, &error)),
        }
    }

    /// Replaces the member's file; [`volume::sync`] makes it durable. Blocks.
    pub(in super::super) fn write(&self, member: &Member) -> io::Result<()> {
        let path = member.paths().dynamic_conf();
        volume::replace(&path, self.file().as_bytes(), Access::ServerReads, member.user())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(k: u32, names: &[&str]) -> SyncSet {
        SyncSet { k, members: names.iter().map(|name| (*name).into()).collect() }
    }

    #[test]
    fn an_unsatisfiable_set_makes_writes_wait_and_async_does_not() {
        assert_eq!(sync_names(&set(1, &["e2", "w-1"])), r#"ANY 1 ("e2", "w-1")"#);
        assert_eq!(sync_names(&set(2, &["e2"])), r#"ANY 2 ("e2")"#);
        assert_eq!(sync_names(&set(1, &[])), NOBODY);
        assert_eq!(sync_names(&set(0, &["e2"])), "");
    }

    #[test]
    fn the_file_is_read_back_and_a_damaged_one_acknowledges_nothing() {
        let dynamic = Dynamic {
            primary_conninfo: "host='10.0.0.1' application_name='e2'".into(),
            primary_slot_name: "mainstay_e2".into(),
            synchronous_standby_names: String::new(),
            read_only: true,
        };
        assert_eq!(Dynamic::parse(&dynamic.file()), dynamic);
        assert_eq!(Dynamic::parse(""), Dynamic::default());
        assert_eq!(Dynamic::default().synchronous_standby_names, NOBODY);
    }
}
