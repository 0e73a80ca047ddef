//! `mainstay psql`: a session with a database.

use std::process::Command;
use std::time::Duration;

use effects::postgres::Installation;
use mainstay::api::{Reply, Request};
use model::system::{Role, RouteTarget};
use model::{DatabaseName, RouteName};
use tokio::signal::unix::{SignalKind, signal};

use super::columns::listed;
use super::connect::Connection;
use super::error::CliError;
use super::exit::Exit;
use super::output::Output;
use super::status::view::View;
use super::takeover::Before;
use super::target::Target;
use super::up::in_words;

/// How long an agent may take to look up how to connect.
const LIMIT: Duration = Duration::from_secs(5);

/// How long psql tries one node before the next, in seconds: a frozen node must not hold it up.
const CONNECT_TIMEOUT: &str = "5";

/// Open psql on a database, as its owner
///
/// In a lab it runs where outside clients are. It goes through the nodes' proxies, so it follows a failover with `\c`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mainstay psql orders
  mainstay psql orders --route orders-ro -- -c 'select 1'")]
pub(crate) struct Args {
    /// The database
    #[arg(value_name = "DATABASE")]
    database: String,
    /// The route to go through; without it one that leads to the primary
    #[arg(long, value_name = "ROUTE")]
    route: Option<String>,
    /// Further arguments for psql
    #[arg(last = true, value_name = "ARGUMENTS")]
    arguments: Vec<String>,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(args: Args, _output: Output) -> Result<Exit, CliError> {
    let mut connection = Connection::open(&args.target)?;
    let view = connection.view().await?;
    let database = Before::of(&view, &args.database)?.database;
    let route = route(&view, &database, args.route)?;
    let reply = connection.ask(&view.overview.node, &Request::Dsn { route }, LIMIT).await?;
    let Reply::Dsn(dsn) = reply else {
        return Err(CliError::failed("the agent did not say how to connect"));
    };
    let program = program(&view, &database).await?;
    let (address, password) = split(&dsn);
    let mut psql = Command::new(program);
    psql.arg("-d").arg(address).args(&args.arguments);
    // Not among the arguments, which everyone on the machine can read.
    psql.env("PGPASSWORD", password)
        .env("PGCONNECT_TIMEOUT", CONNECT_TIMEOUT)
        .env("PGAPPNAME", "mainstay psql");
    session(&connection, psql).await
}

/// The route that was named, or one that leads to the primary.
fn route(view: &View, database: &DatabaseName, named: Option<String>) -> Result<RouteName, CliError> {
    let leads = |target: &RouteTarget| match target {
        RouteTarget::Database { database: to, role } if to == database => Some(*role),
        RouteTarget::Database { .. } | RouteTarget::Service { .. } => None,
    };
    let routes: Vec<(&RouteName, Role)> =
        view.system.routes.iter().filter_map(|(name, route)| Some((name, leads(&route.target)?))).collect();
    let names = || listed(routes.iter().map(|(name, _)| name.as_str()));
    let found = match &named {
        Some(named) => routes.iter().find(|(name, _)| name.as_str() == named),
        None => routes.iter().find(|(_, role)| *role == Role::Primary).or(routes.first()),
    };
    match (found, named) {
        (Some((name, _)), _) => Ok((*name).clone()),
        (None, Some(named)) => {
            let message = format!("no route {named} leads to database {database}");
            Err(CliError::with(Exit::Invalid, message).hint(format!("routes that do: {}", names())))
        }
        (None, None) => Err(CliError::with(Exit::Invalid, format!("no route leads to database {database}"))
            .hint(format!(
                "add one to the system file: [routes.{database}-rw] with `database` and `listen`"
            ))),
    }
}

async fn program(view: &View, database: &DatabaseName) -> Result<std::path::PathBuf, CliError> {
    let bin_dir = view.system.databases.get(database).and_then(|config| config.bin_dir.clone());
    match Installation::find(bin_dir.as_deref(), None).await {
        Ok(installation) => Ok(installation.program("psql")),
        Err(error) => Err(CliError::failed("psql cannot be found").because(&error)),
    }
}

/// A connection string without its password, and the password.
fn split(dsn: &str) -> (String, String) {
    let parts = dsn.split_once("://").and_then(|(scheme, rest)| {
        let (user, place) = rest.split_once('@')?;
        let (owner, password) = user.split_once(':')?;
        Some((format!("{scheme}://{owner}@{place}"), password.to_owned()))
    });
    parts.unwrap_or_else(|| (dsn.to_owned(), String::new()))
}

/// Runs psql on this terminal. An interrupt is meant for psql, which stops a query on it.
async fn session(connection: &Connection, mut psql: Command) -> Result<Exit, CliError> {
    let _interrupts = signal(SignalKind::interrupt())
        .map_err(|error| CliError::failed("interrupts cannot be passed on").because(&error))?;
    let lab = connection.lab().cloned();
    let ended = tokio::task::spawn_blocking(move || {
        let mut child = match lab {
            Some(lab) => lab.spawn_as_client(&mut psql).map_err(|error| in_words(&error))?,
            None => {
                psql.spawn().map_err(|error| CliError::failed("psql cannot be started").because(&error))?
            }
        };
        child.wait().map_err(|error| CliError::failed("psql was lost").because(&error))
    });
    match ended.await {
        Ok(status) => Ok(if status?.success() { Exit::Done } else { Exit::Failed }),
        Err(error) => Err(CliError::failed("psql was lost").because(&error)),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_password_is_taken_out() {
        let (address, password) = super::split("postgresql://shop:s3cret@10.0.0.1:5432,10.0.0.2:5432/shop");
        assert_eq!(address, "postgresql://shop@10.0.0.1:5432,10.0.0.2:5432/shop");
        assert_eq!(password, "s3cret");
    }
}
