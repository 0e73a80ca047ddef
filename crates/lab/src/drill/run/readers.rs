//! The table before and after the run: made and read through the route, read again at every member.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use effects::clock;
use tokio::time::sleep;
use tokio_postgres::Config;

use super::super::history::{Copy, WriteId};
use super::super::sabotage::Sabotage;
use super::super::session::{Deadlines, Session};
use super::super::table::{self, RunName};
use super::{Options, SystemView};

/// How long a member may take to let us in and to replay what the primary has.
const CATCH_UP: Duration = Duration::from_secs(10);

/// Between two questions to a member that is not there yet.
const AGAIN: Duration = Duration::from_millis(100);

/// Makes the table through the route.
pub(super) async fn create_table(options: &Options, view: &SystemView) -> Result<(), String> {
    let (entries, login) = (route(view), options.login.clone());
    inside(options, async move {
        let session = primary(&entries, &login).await?;
        table::create(&session).await.map_err(|e| format!("the table of the drill cannot be made: {e}"))
    })
    .await
}

/// Spoils a row of the run through the route.
pub(super) async fn spoil(
    options: &Options,
    view: &SystemView,
    run: &RunName,
    sabotage: Sabotage,
    victim: WriteId,
) -> Result<(), String> {
    let (entries, login, run) = (route(view), options.login.clone(), run.clone());
    inside(options, async move {
        let session = primary(&entries, &login).await?;
        let spoiled = match sabotage {
            Sabotage::PretendedFault => Ok(()),
            Sabotage::LostWrite => table::delete(&session, &run, victim).await,
            Sabotage::DoubledWrite => table::repeat(&session, &run, victim).await,
        };
        spoiled.map_err(|e| format!("row {victim} could not be spoiled: {e}"))
    })
    .await
}

/// Removes the table through the route.
pub(super) async fn remove_table(options: &Options, view: &SystemView) -> Result<(), String> {
    let (entries, login) = (route(view), options.login.clone());
    inside(options, async move {
        let session = primary(&entries, &login).await?;
        table::remove(&session)
            .await
            .map_err(|e| format!("the schema mainstay_drill could not be removed: {e}"))
    })
    .await
}

/// The processes that send the primary's log, as the route has them.
pub(super) async fn senders(options: &Options, view: &SystemView) -> Result<BTreeSet<String>, String> {
    let (entries, login) = (route(view), options.login.clone());
    inside(options, async move {
        let session = primary(&entries, &login).await?;
        table::senders(&session).await.map_err(|e| format!("nobody says who sends log: {e}"))
    })
    .await
}

/// The run's rows as the route has them.
pub(super) async fn read_route(
    options: &Options,
    view: &SystemView,
    run: &RunName,
) -> Result<BTreeMap<WriteId, u64>, String> {
    let (entries, login, run) = (route(view), options.login.clone(), run.clone());
    inside(options, async move {
        let session = primary(&entries, &login).await?;
        table::rows(&session, &run).await.map_err(|e| format!("the route could not be read: {e}"))
    })
    .await
}

/// The run's rows as the route and every member have them, and who could not be read.
pub(super) async fn read_copies(
    options: &Options,
    view: &SystemView,
    run: &RunName,
) -> (Vec<Copy>, Vec<String>) {
    let (mut copies, mut unread) = (Vec::new(), Vec::new());
    let (entries, login, name) = (route(view), options.login.clone(), run.clone());
    let first = inside(options, async move {
        let session = primary(&entries, &login).await?;
        let log_end = table::log_end(&session).await.map_err(|e| e.to_string())?;
        let rows = table::rows(&session, &name).await.map_err(|e| e.to_string())?;
        Ok((Copy { reader: "the route".to_owned(), rows }, log_end))
    });
    let log_end = match first.await {
        Ok((copy, log_end)) => {
            copies.push(copy);
            log_end
        }
        Err(reason) => return (copies, vec![format!("the route could not be read: {reason}")]),
    };
    for member in &view.members {
        let (addresses, reader) = (member.addresses.clone(), format!("member {}", member.node));
        let (login, name, log_end) = (options.login.clone(), run.clone(), log_end.clone());
        match inside(options, async move { member_rows(&addresses, &login, &name, &log_end).await }).await {
            Ok(rows) => copies.push(Copy { reader, rows }),
            Err(reason) => unread.push(format!("{reader} could not be read: {reason}")),
        }
    }
    (copies, unread)
}

async fn member_rows(
    addresses: &[SocketAddr],
    login: &Config,
    run: &RunName,
    log_end: &str,
) -> Result<BTreeMap<WriteId, u64>, String> {
    let end = clock::now() + CATCH_UP;
    loop {
        let reason = match any(addresses, login).await {
            Ok(session) => match table::has_replayed(&session, log_end).await {
                Ok(true) => return table::rows(&session, run).await.map_err(|e| e.to_string()),
                Ok(false) => format!("it has not replayed the log up to {log_end}"),
                Err(refusal) => refusal.to_string(),
            },
            Err(reason) => reason,
        };
        if clock::now() > end {
            return Err(reason);
        }
        sleep(AGAIN).await;
    }
}

fn route(view: &SystemView) -> Vec<SocketAddr> {
    view.routes.iter().map(|entry| entry.address).collect()
}

/// A session at the first entry of the route that gives one.
async fn primary(entries: &[SocketAddr], login: &Config) -> Result<Session, String> {
    let mut reasons = Vec::new();
    for entry in entries {
        match Session::open_route(*entry, login, Deadlines::default()).await {
            Ok(session) => return Ok(session),
            Err(reason) => reasons.push(reason),
        }
    }
    Err(reasons.join("; "))
}

/// A session at the first address of a member that gives one.
async fn any(addresses: &[SocketAddr], login: &Config) -> Result<Session, String> {
    let mut reasons = Vec::new();
    for address in addresses {
        match Session::open(*address, login, Deadlines::default()).await {
            Ok(session) => return Ok(session),
            Err(reason) => reasons.push(reason),
        }
    }
    Err(reasons.join("; "))
}

/// Runs `work` where the client stands.
async fn inside<T: Send + 'static>(
    options: &Options,
    work: impl Future<Output = Result<T, String>> + Send + 'static,
) -> Result<T, String> {
    options.runtime.spawn(work).await.map_err(|e| format!("the client's runtime broke down: {e}"))?
}
