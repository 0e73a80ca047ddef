//! What `switchover` and `failover` have in common: watching a database change its primary.

use std::time::Duration;

use model::leadership::{Phase, Term};
use model::routes::{DatabaseRouteState, RouteTarget};
use model::status::Server;
use model::system::{self, Role};
use model::{DatabaseName, NodeName};

use super::columns::listed;
use super::connect::Connection;
use super::error::CliError;
use super::exit::Exit;
use super::progress::Progress;
use super::status::view::View;

/// How long a change of the primary may take until the command gives up watching it.
const TAKEOVER_LIMIT: Duration = Duration::from_secs(60);

/// How long the former primary may take to follow the new one.
const REDUNDANCY_LIMIT: Duration = Duration::from_secs(60);

/// The leadership before.
pub(crate) struct Before {
    /// The database.
    pub(crate) database: DatabaseName,
    /// Its term.
    pub(crate) term: Term,
}

impl Before {
    /// How `database` is led now.
    ///
    /// # Errors
    /// When the system has no such database.
    pub(crate) fn of(view: &View, database: &str) -> Result<Self, CliError> {
        let name = DatabaseName::new(database);
        if !view.system.databases.contains_key(&name) {
            let names = listed(view.system.databases.keys().map(DatabaseName::as_str));
            return Err(CliError::with(Exit::Invalid, format!("there is no database {database}"))
                .hint(format!("databases of {} are: {names}", view.system.name)));
        }
        let record = view.record(&name);
        Ok(Self { term: record.map_or(Term(0), |record| record.term), database: name })
    }

    /// Waits until another leadership serves and every proxy that can be asked leads to it; returns its primary.
    ///
    /// # Errors
    /// When that takes too long.
    pub(crate) async fn next_primary(
        &self,
        connection: &mut Connection,
        progress: &mut Progress,
    ) -> Result<NodeName, CliError> {
        let missing = progress.until(connection, TAKEOVER_LIMIT, |view| self.takeover_missing(view)).await?;
        if let Some(missing) = missing {
            let message = format!(
                "{} has no new primary after {} s: {missing}",
                self.database,
                TAKEOVER_LIMIT.as_secs()
            );
            return Err(
                CliError::failed(message).hint("it goes on; `mainstay status --watch` shows how far it is")
            );
        }
        let view = connection.view().await?;
        view.record(&self.database)
            .and_then(|record| record.primary().cloned())
            .ok_or_else(|| CliError::failed(format!("{} lost its new primary at once", self.database)))
    }

    /// What the new leadership still lacks.
    fn takeover_missing(&self, view: &View) -> Option<String> {
        let Some(record) = view.record(&self.database).filter(|record| record.term >= self.term) else {
            return Some("waiting for an agent that knows the leadership".to_owned());
        };
        let primary = match &record.phase {
            Phase::Founding { by } => return Some(format!("{by} creates the database")),
            Phase::HandingOver { from, to } => {
                return Some(format!("{from} is shutting down, {to} receives the rest"));
            }
            Phase::Revoking { .. } => {
                let sentence = view.because(&format!("database/{} leadership", self.database));
                return Some(without_numbers(sentence.unwrap_or(&record.because)));
            }
            Phase::Led { primary } if record.term == self.term => {
                return Some(format!("{primary} still leads: {}", without_numbers(&record.because)));
            }
            Phase::Led { primary } => primary,
        };
        if view.serving(&self.database).is_none() {
            return Some(format!("term {}: {primary} is being promoted", record.term));
        }
        let behind = self.proxies_behind(view, primary, record.term);
        (!behind.is_empty()).then(|| {
            format!("{primary} is promoted; the proxies of {} do not lead to it yet", listed(behind))
        })
    }

    /// Nodes whose proxies do not lead to `primary` under `term`.
    fn proxies_behind<'v>(&self, view: &'v View, primary: &NodeName, term: Term) -> Vec<&'v str> {
        let leads = |route: &system::Route| matches!(&route.target, system::RouteTarget::Database { database, role: Role::Primary } if *database == self.database);
        let is_open = |target: &RouteTarget| match target {
            RouteTarget::Database(target) => match &target.state {
                DatabaseRouteState::Open { members } => {
                    members.iter().any(|member| member.node == *primary && member.term == term)
                }
                DatabaseRouteState::Parked { .. } | DatabaseRouteState::Draining { .. } => false,
            },
            RouteTarget::Service(_) => true,
        };
        let behind = view.tables.iter().filter(|(node, table)| {
            let mut routes = table.routes.iter();
            view.is_here(node)
                && routes.any(|route| {
                    view.system.routes.get(&route.name).is_some_and(leads) && !is_open(&route.target)
                })
        });
        behind.map(|(node, _)| node.as_str()).collect()
    }

    /// Waits until every member whose node is there follows the new primary and can confirm commits; returns what is
    /// missing when that takes too long.
    pub(crate) async fn redundancy(
        &self,
        connection: &mut Connection,
        progress: &mut Progress,
    ) -> Result<Option<String>, CliError> {
        progress.until(connection, REDUNDANCY_LIMIT, |view| self.redundancy_missing(view)).await
    }

    fn redundancy_missing(&self, view: &View) -> Option<String> {
        let record = view.record(&self.database)?;
        let counts = view.confirmations(&self.database) > 0;
        let waits = |node: &&NodeName| {
            record.primary() != Some(*node)
                && view.is_here(node)
                && !(view.streams(&self.database, node) && (!counts || record.sync.members.contains(*node)))
        };
        let node = view.members(&self.database).iter().find(waits)?;
        let doing = match view.member(&self.database, node).map(|member| &member.status.server) {
            Some(Server::Standby(facts)) if facts.streaming => {
                "receives log and is not in the sync set yet".to_owned()
            }
            Some(Server::Standby(_)) => "does not receive log yet".to_owned(),
            Some(Server::Busy { doing }) => format!("is {doing}"),
            Some(Server::Stopped { .. }) => "is stopped and comes back as a standby".to_owned(),
            Some(Server::Primary(_)) => "is still running as a primary".to_owned(),
            Some(Server::Sick { because, .. }) => format!("does not work: {because}"),
            Some(Server::Empty) => "has no data yet".to_owned(),
            Some(Server::Unknown) | None => "has not been looked at yet".to_owned(),
        };
        Some(format!("{node} {doing}"))
    }
}

/// A sentence with its measured times left out, so that it is told once and not for each millisecond.
fn without_numbers(sentence: &str) -> String {
    let is_number = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_digit());
    let mut words: Vec<&str> = vec![];
    for word in sentence.split(' ') {
        match words.last() {
            Some(last) if is_number(last) && matches!(word, "ms" | "s") => {
                words.pop();
                words.push("some time");
            }
            Some(_) | None => words.push(word),
        }
    }
    words.join(" ")
}

#[cfg(test)]
mod tests;
