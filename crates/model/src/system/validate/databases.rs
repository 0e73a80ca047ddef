//! Databases: members, durability, and which failures they survive.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use super::super::problem::{Code, Problem};
use super::super::read::tables::DatabaseTable;
use super::super::read::{At, DurabilityWord, EngineWord, Field, Named, quoted};
use super::super::{Database, Durability, Engine, System};
use super::spread::spread;
use super::{Check, list};
use crate::{DatabaseName, NodeName, SiteName};

/// So many members are chosen where the file names none: one may be lost while another is replaced.
const CHOSEN_MEMBERS: usize = 3;

/// More members than this are no help; every one gets a full copy of every write.
const MAX_MEMBERS: usize = 16;

/// A database being checked.
struct Draft<'c> {
    name: &'c str,
    /// Where its name stands.
    span: Range<usize>,
    table: &'c DatabaseTable,
    members: Vec<NodeName>,
}

impl Check<'_, '_> {
    pub(super) fn databases(&mut self, system: &System) -> BTreeMap<DatabaseName, Database> {
        let Some(section) = self.raw.databases.given() else {
            return BTreeMap::new();
        };
        let default = DatabaseTable::default();
        let entries = &section.value.0;
        entries
            .iter()
            .map(|entry| (DatabaseName::new(entry.name.clone()), self.database(entry, &default, system)))
            .collect()
    }

    fn database(
        &mut self,
        entry: &Named<DatabaseTable>,
        default: &DatabaseTable,
        system: &System,
    ) -> Database {
        self.check_name("database", &entry.name, &entry.span);
        let table = entry.body.as_ref().unwrap_or(default);
        let name = entry.name.as_str();
        if is_postgres_own(name) {
            self.reserved(&entry.span, name).paste("name it otherwise, for example", "[databases.app]");
        }
        let members = self.members(entry, table, system);
        let draft = Draft { name, span: entry.span.clone(), table, members };
        let (durability, sync) = self.durability(&draft, system);
        let path = |key: &str| format!("databases.{name}.{key}");
        Database {
            engine: table.engine.given().map_or(Engine::Postgres, |at| match at.value {
                EngineWord::Postgres => Engine::Postgres,
            }),
            members: draft.members,
            port: self.port(&table.port, &path("port")).unwrap_or(0),
            durability,
            sync,
            allow_same_site: table.allow_same_site.given().is_some_and(|at| at.value),
            parameters: self.parameters(name, table, durability),
            bin_dir: self.path(&table.bin_dir, &path("bin_dir")),
            os_user: self.postgres_user(table),
            dbname: self.identifier(&table.dbname, name, entry, "dbname"),
            owner: self.identifier(&table.owner, name, entry, "owner"),
        }
    }

    /// The members the file names, or those that run, or some spread over the sites.
    fn members(
        &mut self,
        entry: &Named<DatabaseTable>,
        table: &DatabaseTable,
        system: &System,
    ) -> Vec<NodeName> {
        match &table.members {
            Field::Given(at) => self.named_members(&entry.name, at, system),
            Field::Absent => self.chosen_members(entry, system),
            Field::Broken => vec![],
        }
    }

    fn named_members(&mut self, name: &str, list: &At<Vec<At<String>>>, system: &System) -> Vec<NodeName> {
        let mut seen: BTreeMap<&str, &Range<usize>> = BTreeMap::new();
        for at in &list.value {
            if let Some(first) = seen.get(at.value.as_str()) {
                let first = (*first).clone();
                self.error(
                    Code::DuplicateMember,
                    &at.span,
                    format!("`{}` stands twice in the members of `{name}`", at.value),
                )
                .why("a node has one copy of a database")
                .hint("remove one of them")
                .other(&first, "first named here");
                continue;
            }
            seen.insert(&at.value, &at.span);
            let known = self.refers("node", at, &self.raw.nodes);
            if known && system.is_witness(&NodeName::new(at.value.clone())) {
                self.error(
                    Code::WitnessMember,
                    &at.span,
                    format!("`{}` only votes and cannot be a member of `{name}`", at.value),
                )
                .why("its site has `witness = true`, which keeps data away from it")
                .hint("name a node of another site, or remove `witness = true` from that site");
            }
        }
        if list.value.is_empty() {
            self.error(Code::TooFewMembers, &list.span, format!("the database `{name}` has no members"))
                .why("it would run nowhere")
                .hint("name the nodes with a copy, best three, or remove the key and let them be chosen");
        }
        if seen.len() > MAX_MEMBERS {
            let count = seen.len();
            self.error(Code::TooMany, &list.span, format!("{count} members are too many for `{name}`"))
                .why(format!("each member gets a full copy of every write; {MAX_MEMBERS} are the most"))
                .hint("name fewer nodes");
        }
        // The order of the file decides who creates the database; `seen` only tells what was new.
        let mut fresh: BTreeSet<&str> = seen.into_keys().collect();
        list.value
            .iter()
            .filter(|at| fresh.remove(at.value.as_str()))
            .map(|at| NodeName::new(at.value.clone()))
            .collect()
    }

    fn chosen_members(&mut self, entry: &Named<DatabaseTable>, system: &System) -> Vec<NodeName> {
        let mut workers = self.nodes_in_order(system);
        workers.retain(|(name, _)| !system.is_witness(name));
        if workers.is_empty() && !system.nodes.is_empty() {
            self.error(
                Code::NowhereToRun,
                &entry.span,
                format!("no node can hold the database `{}`", entry.name),
            )
            .why("all nodes stand in sites with `witness = true`, which keeps data away from them")
            .hint("add nodes in a site without `witness = true`");
        }
        let name = DatabaseName::new(entry.name.clone());
        let running =
            self.running.and_then(|system| system.databases.get(&name)).map(|db| db.members.clone());
        let kept =
            running.unwrap_or_default().into_iter().filter(|m| workers.iter().any(|(w, _)| w == m)).collect();
        let sites = workers.iter().cloned().collect();
        spread(kept, &workers, CHOSEN_MEMBERS, &sites)
    }

    fn durability(&mut self, draft: &Draft<'_>, system: &System) -> (Durability, u32) {
        let word = draft.table.durability.given().map_or(DurabilityWord::ZeroLoss, |at| at.value);
        match word {
            DurabilityWord::ZeroLoss => {
                self.no_effect(
                    &draft.table.max_loss,
                    draft.name,
                    "max_loss",
                    "nothing may be lost under `durability = \"zero-loss\"`",
                );
                let sync = self.number(
                    &draft.table.sync,
                    &format!("databases.{}.sync", draft.name),
                    1..=u32::MAX,
                    1,
                );
                self.check_copies(draft, sync, system);
                (Durability::ZeroLoss, sync)
            }
            DurabilityWord::Async => {
                self.no_effect(
                    &draft.table.sync,
                    draft.name,
                    "sync",
                    "writes wait for no standby under `durability = \"async\"`",
                );
                if draft.members.len() == 1 {
                    self.warn_single_copy(draft);
                }
                (Durability::Async { max_loss: self.max_loss(draft) }, 0)
            }
        }
    }

    fn max_loss(&mut self, draft: &Draft<'_>) -> Duration {
        if draft.table.max_loss.is_absent() {
            let span = draft.table.durability.span().unwrap_or(&draft.span);
            self.error(Code::MissingKey, span, format!("`{}` is async but has no `max_loss`", draft.name))
                .why("a failover may lose writes, and only you can say how many are too many")
                .paste("write for example", "max_loss = \"10s\"");
        }
        draft.table.max_loss.given().map_or(Duration::ZERO, |at| at.value.0)
    }

    fn no_effect<T>(&mut self, field: &Field<T>, name: &str, key: &str, why: &str) {
        if let Some(span) = field.span() {
            self.error(
                Code::KeyWithoutEffect,
                span,
                format!("`{key}` has no effect in `[databases.{name}]`"),
            )
            .why(why)
            .hint("remove it");
        }
    }

    fn warn_single_copy(&mut self, draft: &Draft<'_>) {
        self.warning(
            Code::SingleCopy,
            &draft.span,
            format!("there is one copy of the database `{}`", draft.name),
        )
        .why("it stops with its node, and all data is lost with that node's disk")
        .hint("name three members");
    }

    /// Whether enough standbys exist, and which losses they survive.
    fn check_copies(&mut self, draft: &Draft<'_>, sync: u32, system: &System) {
        let (name, count) = (draft.name, draft.members.len());
        let k = usize::try_from(sync).unwrap_or(usize::MAX);
        if count == 0 {
            return;
        }
        if k >= count {
            self.report_too_few(draft, sync);
            return;
        }
        if count == k + 1 {
            let span = draft.table.members.span().unwrap_or(&draft.span);
            let (standbys, why) = if k == 1 {
                ("the standby", "the only standby must confirm each write".to_owned())
            } else {
                ("any one standby", format!("all {k} standbys must confirm each write"))
            };
            self.warning(Code::NoSpareStandby, span, format!("writes to `{name}` stop while {standbys} is away"))
                .why(why)
                .hint("add a member, or lower `sync`, or choose `durability = \"async\"` if losing writes is better than waiting");
        }
        self.check_sites(draft, k, system);
    }

    fn report_too_few(&mut self, draft: &Draft<'_>, sync: u32) {
        let (name, count) = (draft.name, draft.members.len());
        let span = draft.table.sync.span().or(draft.table.members.span()).unwrap_or(&draft.span);
        if count == 1 {
            self.error(Code::TooFewMembers, span, format!("`{name}` has one member and no standby"))
                .why("under `durability = \"zero-loss\"` a standby must confirm each write, so none would ever succeed")
                .paste("add two members, or accept loss", "durability = \"async\"\nmax_loss = \"10s\"");
            return;
        }
        let standbys = count - 1;
        self.error(
            Code::TooFewMembers,
            span,
            format!("`{name}` has {standbys} standbys, but {sync} must confirm each write"),
        )
        .why("the primary does not count, so no write would ever succeed")
        .paste("at most", format!("sync = {standbys}"));
    }

    /// Whether the loss of a site is survived.
    fn check_sites(&mut self, draft: &Draft<'_>, k: usize, system: &System) {
        // What stands nowhere was reported, and nothing can be said about the rest.
        let placed = |member| system.site_of(member).is_some_and(|site| system.sites.contains_key(site));
        if !draft.members.iter().all(placed) {
            return;
        }
        let mut here: BTreeMap<&SiteName, usize> = BTreeMap::new();
        for site in draft.members.iter().filter_map(|member| system.site_of(member)) {
            *here.entry(site).or_default() += 1;
        }
        let working: BTreeSet<&SiteName> = system.workers().map(|(_, node)| &node.site).collect();
        let Some((site, most)) = here.iter().max_by_key(|(_, count)| **count) else {
            return;
        };
        let span = draft.table.members.span().unwrap_or(&draft.span);
        let name = draft.name;
        if here.len() == 1 && working.len() > 1 {
            if !draft.table.allow_same_site.given().is_some_and(|at| at.value) {
                let elsewhere = system.workers().find(|(_, node)| node.site != **site);
                let other = elsewhere.map_or("another", |(node, _)| node.as_str());
                self.error(Code::SameSite, span, format!("all members of `{name}` stand in the site `{site}`"))
                    .why(format!("every standby stands beside the primary, so that the loss of `{site}` loses acknowledged writes"))
                    .paste(format!("make `{other}` a member, or accept the risk"), "allow_same_site = true");
            }
        } else if here.len() > 1 && *most > k {
            let members =
                list(draft.members.iter().filter(|m| system.site_of(m) == Some(*site)).map(NodeName::as_str));
            self.warning(Code::SiteLossStopsWrites, span, format!("the loss of the site `{site}` stops writes to `{name}`"))
                .why(format!(
                    "{most} members stand there ({members}) and {k} standby may confirm a write, so a write may exist \
                     only in `{site}`; the others do not take over, rather than lose it"
                ))
                .hint(format!("put each member into a site of its own, or set `sync = {most}` with enough members"));
        }
    }

    fn postgres_user(&mut self, table: &DatabaseTable) -> String {
        let Some(at) = table.os_user.given() else {
            return "postgres".to_owned();
        };
        if at.value == "root" {
            self.error(Code::InvalidUser, &at.span, "PostgreSQL cannot run as root")
                .why("its programs refuse to, because a hole in them would open the whole machine")
                .paste("write", "os_user = \"postgres\"");
        } else {
            self.check_user("os_user", at);
        }
        at.value.clone()
    }

    /// The path `field` gives; an empty one is reported.
    pub(super) fn path(&mut self, field: &Field<String>, path: &str) -> Option<PathBuf> {
        let at = field.given()?;
        if at.value.trim().is_empty() || at.value.contains('\0') {
            self.error(Code::InvalidPath, &at.span, format!("`{path}` is not a path"))
                .why("it is empty or holds a zero byte")
                .hint("remove it or name a file");
        }
        Some(PathBuf::from(&at.value))
    }

    fn reserved(&mut self, span: &Range<usize>, name: &str) -> &mut Problem {
        self.error(Code::ReservedName, span, format!("a database cannot be called `{name}`"))
            .why("PostgreSQL makes a database of that name itself, in every cluster")
    }

    /// The PostgreSQL name `field` gives, or the section's own.
    fn identifier(
        &mut self,
        field: &Field<String>,
        default: &str,
        entry: &Named<DatabaseTable>,
        key: &str,
    ) -> String {
        let (name, span) = field.given().map_or((default, &entry.span), |at| (at.value.as_str(), &at.span));
        if field.given().is_none() && is_postgres_own(name) {
            return name.to_owned(); // The section's name was reported.
        }
        if key == "dbname" && is_postgres_own(name) {
            self.reserved(span, name).paste("write for example", "dbname = \"app\"");
            return name.to_owned();
        }
        let role =
            ["postgres", "public"].contains(&name) || ["pg_", "mainstay"].iter().any(|p| name.starts_with(p));
        let reserved = key != "dbname" && role;
        let why = if reserved {
            "it is reserved: PostgreSQL or Mainstay uses it for itself"
        } else if is_identifier(name) || field.given().is_none() {
            return name.to_owned();
        } else {
            "it must be lower-case letters, digits, `_` and `-`, beginning with a letter or `_`, at most 63 characters"
        };
        self.error(
            Code::InvalidIdentifier,
            span,
            format!("{} cannot be the `{key}` of `{}`", quoted(name), entry.name),
        )
        .why(why)
        .paste("write for example", format!("{key} = \"app\""));
        name.to_owned()
    }
}

/// Databases that every PostgreSQL cluster has.
fn is_postgres_own(name: &str) -> bool {
    ["postgres", "template0", "template1"].contains(&name)
}

fn is_identifier(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(inner)
}
