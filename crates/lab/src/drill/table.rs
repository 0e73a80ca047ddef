//! The table that drills write to, and the statements on it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use model::postgres::Timeline;
use tokio_postgres::SimpleQueryRow;

use super::history::{Role, Server, WriteId};
use super::session::{Done, Refusal, Session};

/// How long making, reading or removing the table may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The timeline a primary writes to. `pg_control_checkpoint()` would name the old one until the first checkpoint after
/// a promotion; the name of the log file being written does not lag. It is an error on a standby, hence the `case`.
pub(crate) const TIMELINE: &str = "case when pg_is_in_recovery() then null \
                        else left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) end";

/// The name of one run's rows: made by us from the clock, so it needs no quoting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunName(String);

impl RunName {
    /// A name no other run has.
    pub fn new() -> Self {
        Self(format!("{:x}-{:x}", std::process::id(), effects::clock::now().as_micros()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for RunName {
    fn default() -> Self {
        Self::new()
    }
}

/// Makes the table where it is missing. It has no unique key on purpose: a write done twice must show.
pub(crate) async fn create(session: &Session) -> Result<(), Refusal> {
    let sql = "create schema if not exists mainstay_drill; \
               create table if not exists mainstay_drill.writes (run text not null, n bigint not null)";
    session.run(sql, PATIENCE).await.map(drop)
}

/// Removes what [`create`] made.
pub(crate) async fn remove(session: &Session) -> Result<(), Refusal> {
    session.run("drop schema if exists mainstay_drill cascade", PATIENCE).await.map(drop)
}

/// Writes one row and has the server say in the same round trip who it is.
pub(crate) async fn insert(
    session: &Session,
    run: &RunName,
    id: WriteId,
    deadline: Duration,
) -> Result<(Server, bool), Refusal> {
    let sql = format!(
        "insert into mainstay_drill.writes (run, n) values ('{}', {id}) \
         returning host(inet_server_addr()), inet_server_port(), {TIMELINE}",
        run.0
    );
    let done = session.run(&sql, deadline).await?;
    let unclear =
        || Refusal::Uncertain("the row came back without the server's address and timeline".to_owned());
    Ok((server(&done).ok_or_else(unclear)?, done.warned))
}

/// Deletes a row of the run, as no correct system would.
pub(crate) async fn delete(session: &Session, run: &RunName, id: WriteId) -> Result<(), Refusal> {
    let sql = format!("delete from mainstay_drill.writes where run = '{}' and n = {id}", run.0);
    session.run(&sql, PATIENCE).await.map(drop)
}

/// Writes a row of the run once more, as no correct system would.
pub(crate) async fn repeat(session: &Session, run: &RunName, id: WriteId) -> Result<(), Refusal> {
    let sql = format!("insert into mainstay_drill.writes (run, n) values ('{}', {id})", run.0);
    session.run(&sql, PATIENCE).await.map(drop)
}

/// Asks the server whether it is a primary.
pub(crate) async fn role(session: &Session, deadline: Duration) -> Result<Role, Refusal> {
    let done = session.run(&format!("select {TIMELINE}"), deadline).await?;
    Ok(done.rows.first().and_then(|row| timeline(row, 0)).map_or(Role::Standby, Role::Primary))
}

/// How often each number of the run is there.
pub(crate) async fn rows(session: &Session, run: &RunName) -> Result<BTreeMap<WriteId, u64>, Refusal> {
    let sql = format!("select n, count(*) from mainstay_drill.writes where run = '{}' group by n", run.0);
    let done = session.run(&sql, PATIENCE).await?;
    let number = |row: &SimpleQueryRow, at| row.get(at).and_then(|text: &str| text.parse::<u64>().ok());
    Ok(done.rows.iter().filter_map(|row| Some((number(row, 0)?, number(row, 1)?))).collect())
}

/// Where the log of a primary ends, as text.
pub(crate) async fn log_end(session: &Session) -> Result<String, Refusal> {
    let done = session.run("select pg_current_wal_flush_lsn()", PATIENCE).await?;
    let text = done.rows.first().and_then(|row| row.get(0)).map(str::to_owned);
    text.ok_or_else(|| Refusal::Uncertain("the primary did not say where its log ends".to_owned()))
}

/// Which processes of the primary send its log to somebody.
pub(crate) async fn senders(session: &Session) -> Result<BTreeSet<String>, Refusal> {
    let done = session.run("select pid from pg_stat_replication", PATIENCE).await?;
    Ok(done.rows.iter().filter_map(|row| row.get(0)).map(str::to_owned).collect())
}

/// Whether a standby has replayed up to `log_end`; a primary always has.
pub(crate) async fn has_replayed(session: &Session, log_end: &str) -> Result<bool, Refusal> {
    let sql = format!("select not pg_is_in_recovery() or pg_last_wal_replay_lsn() >= '{log_end}'::pg_lsn");
    let done = session.run(&sql, PATIENCE).await?;
    Ok(done.rows.first().and_then(|row| row.get(0)) == Some("t"))
}

fn server(done: &Done) -> Option<Server> {
    let row = done.rows.first()?;
    let address: IpAddr = row.get(0)?.parse().ok()?;
    Some(Server { timeline: timeline(row, 2)?, address, port: row.get(1)?.parse().ok()? })
}

/// The answer to [`TIMELINE`] in a row.
pub(crate) fn timeline(row: &SimpleQueryRow, at: usize) -> Option<Timeline> {
    u32::from_str_radix(row.get(at)?, 16).ok().map(Timeline)
}
