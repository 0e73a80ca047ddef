//! What the monitor says, and how it is asked for a switchover.

use std::sync::Arc;
use std::time::Duration;

use model::NodeName;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_postgres::{Client, Config, NoTls};

use crate::Outcome;
use crate::layout::{MEMBERS, MONITOR, POSTGRES_PORT};

/// How long the monitor may take to answer.
const ANSWER: Duration = Duration::from_secs(1);

/// One member by the word of the monitor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// Its node.
    pub(crate) node: NodeName,
    /// The state that its agent reported last.
    pub(crate) reported: String,
    /// The state that it is told to reach.
    pub(crate) assigned: String,
    /// Whether the monitor's own check reaches it.
    pub(crate) healthy: bool,
}

/// A connection to the monitor, made when it is needed and kept.
#[derive(Clone, Default)]
pub(crate) struct Monitor(Arc<Mutex<Option<Client>>>);

impl Monitor {
    /// All members as the monitor sees them.
    pub(crate) async fn ask(self) -> Outcome<Vec<Row>> {
        let sql =
            "select nodename, reportedstate::text, goalstate::text, health = 1 from pgautofailover.node";
        let rows = self.query(sql).await?;
        Ok(rows
            .iter()
            .map(|row| Row {
                node: NodeName::new(row.get::<_, String>(0)),
                reported: row.get(1),
                assigned: row.get(2),
                healthy: row.get(3),
            })
            .collect())
    }

    /// What `pg_autoctl perform switchover` asks for.
    pub(crate) async fn switch_over(self) -> Outcome<String> {
        self.query("select pgautofailover.perform_failover('default', 0)").await?;
        Ok("the monitor has begun a switchover".to_owned())
    }

    async fn query(&self, sql: &str) -> Outcome<Vec<tokio_postgres::Row>> {
        let mut kept = self.0.lock().await;
        let client = match kept.take() {
            Some(client) if !client.is_closed() => client,
            Some(_) | None => connect().await?,
        };
        let answer = timeout(ANSWER, client.query(sql, &[])).await;
        let rows = answer.map_err(|_| "the monitor does not answer".to_owned())?;
        let rows = rows.map_err(|error| {
            let said = error.as_db_error().map(|error| error.message().to_owned());
            said.unwrap_or_else(|| error.to_string())
        });
        *kept = Some(client);
        rows
    }
}

async fn connect() -> Outcome<Client> {
    let mut login = Config::new();
    login.host(MONITOR.1.to_string()).port(POSTGRES_PORT).user("autoctl_node").dbname("pg_auto_failover");
    login.connect_timeout(ANSWER);
    let (client, connection) = login.connect(NoTls).await.map_err(|e| format!("the monitor: {e}"))?;
    tokio::spawn(connection);
    Ok(client)
}

/// The node of the member that is, and is to be, the primary. `wait_primary` is one without a standby that confirms.
pub(crate) fn primary(rows: &[Row]) -> Option<NodeName> {
    let leads = |state: &str| {
        matches!(state, "primary" | "wait_primary" | "single" | "apply_settings" | "join_primary")
    };
    rows.iter().find(|row| leads(&row.reported) && leads(&row.assigned)).map(|row| row.node.clone())
}

/// What is missing from full redundancy.
pub(crate) fn missing(rows: &[Row]) -> Option<String> {
    let is = |row: &&Row, state: &str| row.reported == state && row.assigned == state && row.healthy;
    let primaries = rows.iter().filter(|row| is(row, "primary")).count();
    let others: Vec<&Row> = rows.iter().filter(|row| !is(row, "primary") && !is(row, "secondary")).collect();
    if let Some(Row { node, reported, assigned, healthy }) = others.first() {
        let check = if *healthy { "" } else { ", not reached" };
        return Some(format!("{node} is {reported}, to become {assigned}{check}"));
    }
    (primaries != 1 || rows.len() != MEMBERS.len())
        .then(|| format!("{primaries} primaries, {} members", rows.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(node: &str, state: &str) -> Row {
        Row { node: node.into(), reported: state.to_owned(), assigned: state.to_owned(), healthy: true }
    }

    #[test]
    fn a_whole_system_lacks_nothing_and_what_is_missing_is_named() {
        let whole = [row("n1", "secondary"), row("n2", "primary"), row("n3", "secondary")];
        assert_eq!((missing(&whole), primary(&whole)), (None, Some("n2".into())));
        assert_eq!(missing(&whole[..2]), Some("1 primaries, 2 members".to_owned()));
        let mut moving = whole.clone();
        moving[0].assigned = "prepare_promotion".to_owned();
        moving[0].healthy = false;
        assert_eq!(
            missing(&moving),
            Some("n1 is secondary, to become prepare_promotion, not reached".to_owned())
        );
        moving[1].assigned = "draining".to_owned();
        assert_eq!(primary(&moving), None);
    }
}
