//! `mainstay drill`: rehearsed faults with a measured outage.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Subcommand;
use decide::agent::Overview;
use lab::Lab;
use lab::drill::{self, Drill, DrillError, Entry, Member, Options, Report, Step, SystemView};
use mainstay::api::client::ask;
use mainstay::api::{Reply, Request};
use model::leadership::{Leadership, Phase};
use model::status::Server;
use model::system::{Database, Role, RouteTarget, System};
use model::{DatabaseName, NodeName, RouteName};

use super::error::CliError;
use super::exit::Exit;
use super::output::{Output, note};
use super::target::Target;
use super::up::in_words;

/// How long an agent may take to say what it knows.
const ASK_LIMIT: Duration = Duration::from_millis(500);

/// How long a switchover may take to be accepted.
const SWITCHOVER_LIMIT: Duration = Duration::from_secs(30);

/// Rehearse a fault and measure the outage as a client sees it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mainstay drill list
  mainstay drill run node-kill
  mainstay drill run switchover --runs 10 --json")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show every drill and what it expects
    List,
    /// Run a drill
    Run(RunArgs),
}

/// Run a drill
///
/// A client outside the system writes every 10 ms through a route and checks afterwards that each acknowledged write is
/// there exactly once. A drill is refused while redundancy is lost (exit code 3).
#[derive(Debug, clap::Args)]
struct RunArgs {
    /// The drill, as `mainstay drill list` names it
    #[arg(value_name = "NAME")]
    name: String,
    /// How often
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// The database to hurt; may be left out when there is only one
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// Print the measured figures as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(args: Args, output: Output) -> Result<Exit, CliError> {
    match args.command {
        Command::List => {
            let lines = Drill::ALL
                .map(|drill| format!("{:<18} {}\n", drill.to_string(), drill.plan().expectation.words));
            output.print(&lines.concat())?;
            Ok(Exit::Done)
        }
        Command::Run(run) => {
            let lab = running_lab(run.target.system.as_deref())?;
            let report = rehearse(lab, &run).await?;
            let text = match run.json {
                true => serde_json::to_string_pretty(&report).unwrap_or_default() + "\n",
                false => format!("{report}\n"),
            };
            output.print(&text)?;
            Ok(if report.passed { Exit::Done } else { Exit::Degraded })
        }
    }
}

fn running_lab(name: Option<&str>) -> Result<Lab, CliError> {
    let running = Lab::list();
    let mut wanted = running.iter().filter(|lab| name.is_none_or(|name| name == lab.system.as_str()));
    match (wanted.next(), wanted.next()) {
        (Some(one), None) => Lab::open(&one.system).map_err(|error| in_words(&error)),
        (None, _) => {
            Err(CliError::with(Exit::Unreachable, "no such system runs on this machine")
                .hint("mainstay up FILE"))
        }
        (Some(_), Some(_)) => {
            Err(CliError::with(Exit::Invalid, "several systems run on this machine").hint("--system NAME"))
        }
    }
}

/// The system under drill, and how to ask it.
struct Stage {
    lab: Arc<Mutex<Lab>>,
    sockets: BTreeMap<NodeName, std::path::PathBuf>,
    system: System,
    name: DatabaseName,
    database: Database,
    route: (RouteName, u16),
}

async fn rehearse(lab: Lab, args: &RunArgs) -> Result<Report, CliError> {
    let drill: Drill = args.name.parse().map_err(|error| {
        CliError::with(Exit::Invalid, "there is no such drill").because(&error).hint("mainstay drill list")
    })?;
    let stage = Stage::open(lab, args.database.as_deref()).await?;
    let login = stage.login().await?;
    let lab = stage.lab.clone();
    let runtime = tokio::task::spawn_blocking(move || lock(&lab).client_runtime()).await;
    let runtime = runtime.map_err(|error| CliError::failed("no client could be started").because(&error))?;
    let runtime = runtime.map_err(|error| in_words(&error))?;
    let options =
        Options { tell: |text| note(&format!("{text}\n")), ..Options::new(runtime.handle().clone(), login) };
    let count = usize::try_from(args.runs).unwrap_or(1);
    let report =
        drill::run(drill, count, &options, async || stage.view().await, async |step| stage.apply(step).await)
            .await;
    // A runtime may not be ended inside another one.
    let _ = tokio::task::spawn_blocking(move || runtime.shutdown()).await;
    report.map_err(|error| match error {
        DrillError::Refused(_) => CliError::with(Exit::Refused, error.to_string())
            .hint("`mainstay status` says what is missing; drills wait until all of it is back"),
        DrillError::NoView(_) | DrillError::NoLoad(_) | DrillError::Step { .. } => {
            CliError::failed(error.to_string())
        }
    })
}

fn lock(lab: &Mutex<Lab>) -> std::sync::MutexGuard<'_, Lab> {
    lab.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stage {
    async fn open(lab: Lab, database: Option<&str>) -> Result<Self, CliError> {
        let sockets: BTreeMap<NodeName, _> =
            lab.nodes().map(|(name, _)| (name.clone(), lab.root(name).join("run/agent.sock"))).collect();
        let Some(Reply::System { system, .. }) = first_answer(&sockets, &Request::System).await else {
            return Err(
                CliError::with(Exit::Unreachable, "no agent of the system answers").hint("mainstay status")
            );
        };
        let wanted = |name: &DatabaseName| database.is_none_or(|wanted| wanted == name.as_str());
        let mut matching = system.databases.iter().filter(|(name, _)| wanted(name));
        let (Some((name, config)), None) = (matching.next(), matching.next()) else {
            return Err(CliError::with(Exit::Invalid, "it is not clear which database is meant")
                .hint("--database NAME"));
        };
        let leads_there = |target: &RouteTarget| matches!(target, RouteTarget::Database { database, role: Role::Primary } if database == name);
        let route = system.routes.iter().find(|(_, route)| leads_there(&route.target));
        let Some((route, listen)) = route.map(|(name, route)| (name.clone(), route.listen.port)) else {
            let hint = "give the database a route with target = \"primary\"";
            return Err(
                CliError::with(Exit::Invalid, format!("no route leads to the primary of {name}")).hint(hint)
            );
        };
        let (name, database) = (name.clone(), config.clone());
        Ok(Self {
            lab: Arc::new(Mutex::new(lab)),
            sockets,
            system: *system,
            name,
            database,
            route: (route, listen),
        })
    }

    async fn login(&self) -> Result<tokio_postgres::Config, CliError> {
        let request = Request::Dsn { route: self.route.0.clone() };
        let failed = || CliError::failed("the database's connection string is not to be had");
        let Some(Reply::Dsn(dsn)) = first_answer(&self.sockets, &request).await else { return Err(failed()) };
        let parsed: tokio_postgres::Config = dsn.parse().map_err(|error| failed().because(&error))?;
        let mut login = tokio_postgres::Config::new();
        login.user(parsed.get_user().unwrap_or_default());
        login.password(parsed.get_password().unwrap_or_default());
        login.dbname(parsed.get_dbname().unwrap_or_default());
        Ok(login)
    }

    /// What the system says of itself, by the word of the leader; a node that is cut off answers too, and is not believed.
    async fn view(&self) -> Result<SystemView, String> {
        let asked = self.sockets.values().map(|socket| ask(socket, &Request::Overview, ASK_LIMIT));
        let mut leading = None;
        for asking in asked {
            if let Ok(Reply::Overview(overview)) = asking.await
                && overview.leader.as_ref() == Some(&overview.node)
            {
                leading = Some(overview);
            }
        }
        let overview = leading.ok_or("no agent leads now")?;
        let record = overview.databases.get(&self.name);
        Ok(SystemView {
            primary: record.and_then(|record| self.settled_primary(&overview, record)),
            missing: self.missing(&overview),
            members: self.members(),
            routes: self.entries(),
        })
    }

    fn members(&self) -> Vec<Member> {
        let addresses = |node: &NodeName| -> Vec<SocketAddr> {
            let lines = self.system.nodes.get(node).into_iter().flat_map(|node| node.lines.values());
            lines.map(|ip| SocketAddr::new(*ip, self.database.port)).collect()
        };
        self.database
            .members
            .iter()
            .map(|node| Member { node: node.clone(), addresses: addresses(node) })
            .collect()
    }

    fn entries(&self) -> Vec<Entry> {
        let entry = |(name, node): (&NodeName, &model::system::Node)| Entry {
            node: name.clone(),
            address: SocketAddr::new(node.address(), self.route.1),
        };
        self.system.workers().map(entry).collect()
    }

    fn settled_primary(&self, overview: &Overview, record: &Leadership) -> Option<NodeName> {
        let Phase::Led { primary } = &record.phase else { return None };
        let tenure = overview.members.get(&self.name)?.get(primary)?.status.tenure.as_ref()?;
        (tenure.term == record.term && tenure.sync_applied.is_some()).then(|| primary.clone())
    }

    /// What is missing from full redundancy.
    fn missing(&self, overview: &Overview) -> Option<String> {
        if let Some((node, _)) = overview.nodes.iter().find(|(_, node)| node.silent.is_some() || !node.heard)
        {
            return Some(format!("node {node} is not heard"));
        }
        let Some(record) = overview.databases.get(&self.name) else {
            return Some("there is no database".to_owned());
        };
        let Some(primary) = self.settled_primary(overview, record) else {
            return Some("there is no primary".to_owned());
        };
        let members = overview.members.get(&self.name);
        for node in self.database.members.iter().filter(|node| **node != primary) {
            let server = members.and_then(|members| members.get(node)).map(|member| &member.status.server);
            if !matches!(server, Some(Server::Standby(facts)) if facts.streaming && facts.follows == record.term)
            {
                return Some(format!("{node} does not follow the primary"));
            }
            if record.sync.k > 0 && !record.sync.members.contains(node) {
                return Some(format!("{node} does not confirm commits yet"));
            }
        }
        (!record.previous_sync.is_empty()).then(|| "a change of the sync set is under way".to_owned())
    }

    async fn apply(&self, step: &Step) -> Result<String, String> {
        if let Step::Switchover(_) = step {
            let request = Request::Switchover { database: self.name.clone(), to: None };
            for socket in self.sockets.values() {
                match ask(socket, &request, SWITCHOVER_LIMIT).await {
                    Ok(Reply::Done(because)) => return Ok(because),
                    Ok(Reply::Refused(refused)) => return Err(refused.because),
                    Ok(_) | Err(_) => {}
                }
            }
            return Err("no agent answers".to_owned());
        }
        let (lab, name, step) = (self.lab.clone(), self.name.clone(), step.clone());
        let done = tokio::task::spawn_blocking(move || drill::act(&mut lock(&lab), &name, &step)).await;
        done.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }
}

async fn first_answer(sockets: &BTreeMap<NodeName, std::path::PathBuf>, request: &Request) -> Option<Reply> {
    for socket in sockets.values() {
        match ask(socket, request, Duration::from_secs(5)).await {
            Ok(Reply::Refused(_)) | Err(_) => {}
            Ok(reply) => return Some(reply),
        }
    }
    None
}
