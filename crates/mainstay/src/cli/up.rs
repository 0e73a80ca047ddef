//! `mainstay up`: a system from its file on this machine.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use decide::agent::Overview;
use effects::postgres::Installation;
use effects::process::OsUser;
use lab::{Lab, LabError, Options, Problem};
use mainstay::api::client::{AskError, ask};
use mainstay::api::{Reply, Request};
use mainstay::install;
use model::leadership::Phase;
use model::routes::{DatabaseRouteState, InstanceRouteState, RouteTarget as RouteTableTarget};
use model::status::Server;
use model::system::{Checked, RouteTarget, Service, System};
use model::{DatabaseName, NodeName, ServiceName, SystemName};

use super::error::CliError;
use super::exit::Exit;
use super::load::load;
use super::output::{Look, Output, note};
use super::render;

/// How long an agent may take to answer one question.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// How long all agents may take until they answer at all.
const AGENT_LIMIT: Duration = Duration::from_secs(15);
/// How often is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// Start the system a file describes on this machine
///
/// Every node of the file runs here: as root in network namespaces with the real addresses of the file, otherwise on
/// loopback addresses. A system that was stopped goes on with its data; one that runs is left alone.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mainstay up examples/shop/mainstay.toml
  sudo mainstay up mainstay.toml && mainstay status")]
pub(crate) struct Args {
    /// The system file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Use loopback addresses also where network namespaces could be had
    #[arg(long)]
    loopback: bool,
    /// Do not listen on 127.0.0.1 at the ports of the routes
    #[arg(long)]
    no_forward: bool,
    /// Put each node's databases on a file system of its own, of this many megabytes (for drills of disks)
    #[arg(long, value_name = "MB", value_parser = clap::value_parser!(u64).range(64..))]
    data_volume: Option<u64>,
    /// Give each node clocks of its own (for drills of clocks)
    #[arg(long)]
    own_clocks: bool,
    /// Wait at most so many seconds until everything works; 0 does not wait
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    wait: u64,
}

pub(crate) async fn run(args: Args, output: Output) -> Result<Exit, CliError> {
    let (Checked { system, warnings }, text) = load(&args.file, None)?.valid()?;
    note(&render::warnings(&warnings, &text, output));
    let missing = missing_software(&system).await;
    let began = Instant::now();
    let lab = start(args.file.clone(), options(&args, missing), &system, output).await?;
    let made = began.elapsed().as_secs_f64();
    note(&format!("{} nodes of {} are on after {made:.1} s.\n", lab.nodes().count(), system.name));
    let end = began + Duration::from_secs(args.wait);
    let missing = match args.wait {
        0 => None,
        _ => wait(&lab, &system, end).await?,
    };
    output.print(&places(&lab, &system, output))?;
    match missing {
        None if args.wait > 0 => {
            note(&format!("{} works after {:.1} s.\n", system.name, began.elapsed().as_secs_f64()))
        }
        None => note("`mainstay status` shows how far it is.\n"),
        Some(missing) => {
            let message = format!("{} does not work yet after {} s: {missing}", system.name, args.wait);
            return Err(CliError::with(Exit::Degraded, message)
                .hint("it goes on starting; `mainstay status --watch` shows how far it is"));
        }
    }
    Ok(Exit::Done)
}

/// A lab's error with its hint. What was refused has touched nothing.
pub(crate) fn in_words(error: &LabError) -> CliError {
    let exit = match error {
        LabError::NotReady(_) | LabError::AlreadyRunning { .. } => Exit::Refused,
        LabError::Unknown { .. } => Exit::Unreachable,
        LabError::UnknownNode { .. }
        | LabError::NodeOff { .. }
        | LabError::NodeOn { .. }
        | LabError::Busy { .. }
        | LabError::NotPossible { .. }
        | LabError::Program { .. }
        | LabError::Io { .. }
        | LabError::Late { .. }
        | LabError::Damaged { .. }
        | LabError::NodeStart { .. } => Exit::Failed,
    };
    let told = CliError::with(exit, error.to_string());
    match error.hint() {
        Some(hint) => told.hint(hint),
        None => told,
    }
}

// ---- starting ----

async fn start(
    file: PathBuf,
    options: impl FnOnce(SystemName) -> Options,
    system: &System,
    output: Output,
) -> Result<Lab, CliError> {
    let options = options(system.name.clone());
    if let Some(limits) = Lab::limits(system, &options) {
        note(&format!("{} {limits}\n", output.on_stderr(Look::Warning, "Note:")));
    }
    let described = system.clone();
    let up = tokio::task::spawn_blocking(move || Lab::up(&described, &file, &options));
    match up.await {
        Ok(result) => result.map_err(|error| in_words(&error)),
        Err(error) => Err(CliError::failed("the lab could not be started").because(&error)),
    }
}

fn options(args: &Args, missing: Vec<Problem>) -> impl FnOnce(SystemName) -> Options + use<> {
    let (loopback, forward, own_clocks) = (args.loopback, !args.no_forward, args.own_clocks);
    let data_volume = args.data_volume.map(|mb| mb << 20);
    move |name| Options {
        loopback,
        forward,
        data_volume,
        own_clocks,
        checks: vec![Box::new(move |_| missing.clone())],
        prepare: vec![Box::new(move |ground| {
            let addresses: Vec<IpAddr> = ground.node.addresses.values().copied().collect();
            install::identity(ground.directory, &name, ground.name, &addresses, ground.root)
        })],
        ..Options::default()
    }
}

/// What the databases need and this machine lacks.
pub(super) async fn missing_software(system: &System) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, database) in &system.databases {
        if let Err(error) = Installation::find(database.bin_dir.as_deref(), None).await {
            let text = error.to_string();
            let (what, hint) =
                text.split_once(". Hint: ").unwrap_or((&text, "`make setup` installs PostgreSQL"));
            let what = format!("database {name} cannot run: {what}");
            problems.push(Problem { what, hint: hint.to_owned() });
        }
        let root = rustix::process::geteuid().is_root();
        if root && matches!(OsUser::lookup(&database.os_user), Ok(None)) {
            let user = &database.os_user;
            let what = format!("database {name} cannot run: there is no operating-system user {user}");
            problems.push(Problem { what, hint: format!("`adduser --system {user}` makes it") });
        }
    }
    problems
}

// ---- waiting ----

/// Waits until everything works and says on the way what is missing; returns what still is at the end.
async fn wait(lab: &Lab, system: &System, end: Instant) -> Result<Option<String>, CliError> {
    let agents = end.min(Instant::now() + AGENT_LIMIT);
    let mut told = String::new();
    loop {
        let (missing, late) = match overviews(lab).await {
            Ok(overviews) => (missing(&overviews, system), end),
            Err((node, error)) => (Some(format!("the agent of {node} does not answer: {error}")), agents),
        };
        let Some(missing) = missing else { return Ok(None) };
        if Instant::now() > late {
            return if late == end { Ok(Some(missing)) } else { Err(silent(lab, &missing)) };
        }
        if missing != told {
            note(&format!("  waiting: {missing}\n"));
            told = missing;
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// What every node says; the first that does not answer otherwise.
async fn overviews(lab: &Lab) -> Result<Vec<Overview>, (NodeName, AskError)> {
    let mut all = vec![];
    for (name, _) in lab.nodes() {
        let socket = lab.root(name).join("run/agent.sock");
        match ask(&socket, &Request::Overview, ANSWER_LIMIT).await {
            Ok(Reply::Overview(overview)) => all.push(*overview),
            Ok(other) => {
                let problem = format!("an answer to another question: {other:?}");
                return Err((name.clone(), AskError::Broken { socket, problem }));
            }
            Err(error) => return Err((name.clone(), error)),
        }
    }
    Ok(all)
}

/// The first thing that does not work yet.
fn missing(overviews: &[Overview], system: &System) -> Option<String> {
    let Some(overview) = overviews.first() else { return Some("the system has no node".to_owned()) };
    let silent = || {
        let silent = overview.nodes.iter().find(|(name, node)| **name != overview.node && !node.heard)?;
        Some(format!("{} does not hear {} yet", overview.node, silent.0))
    };
    let databases = || {
        system.databases.iter().find_map(|(name, database)| {
            database_without_primary(overview, name)
                .or_else(|| database.members.iter().find_map(|node| member_at_work(overview, name, node)))
                .or_else(|| unproved(overview, name))
        })
    };
    let routes = || overviews.iter().find_map(parked);
    silent().or_else(databases).or_else(routes).or_else(|| instances(overview, system))
}

/// A sync set that is not complete, or not proved to be in force: a write may still wait, or a failover may be refused.
fn unproved(overview: &Overview, name: &DatabaseName) -> Option<String> {
    let record = overview.databases.get(name)?;
    let primary = overview.members.get(name)?.get(record.primary()?)?;
    let tenure = primary.status.tenure.as_ref().filter(|tenure| tenure.term == record.term);
    let proved = tenure.is_some_and(|tenure| tenure.sync_applied == Some(record.sync_version));
    let k = usize::try_from(record.sync.k).unwrap_or(usize::MAX);
    if record.sync.members.len() < k {
        return Some(format!("database {name}: no standby confirms commits yet"));
    }
    (!proved || !record.previous_sync.is_empty()).then(|| {
        format!("database {name}: it is not proved yet that commits are confirmed by {}", record.sync)
    })
}

/// A route to a primary that still holds new connections back.
fn parked(overview: &Overview) -> Option<String> {
    overview.routes.routes.iter().find_map(|route| match &route.target {
        RouteTableTarget::Database(target) => match &target.state {
            DatabaseRouteState::Open { .. } => None,
            DatabaseRouteState::Parked { because } | DatabaseRouteState::Draining { because, .. } => {
                Some(format!("route {} on {} waits: {because}", route.name, overview.node))
            }
        },
        RouteTableTarget::Service(_) => None,
    })
}

fn database_without_primary(overview: &Overview, name: &DatabaseName) -> Option<String> {
    match overview.databases.get(name).map(|leadership| &leadership.phase) {
        Some(Phase::Led { .. }) => None,
        Some(Phase::Founding { by }) => Some(format!("{by} founds database {name}")),
        Some(Phase::Revoking { .. } | Phase::HandingOver { .. }) | None => {
            Some(format!("database {name} has no primary"))
        }
    }
}

fn member_at_work(overview: &Overview, database: &DatabaseName, node: &NodeName) -> Option<String> {
    let status = overview.members.get(database).and_then(|members| members.get(node)).map(|m| &m.status);
    // What failed last says more than how the server was left.
    let trouble = status.and_then(|status| status.trouble.as_ref());
    let doing = match status.map(|status| &status.server) {
        Some(Server::Primary(_)) => return None,
        Some(Server::Standby(standby)) if standby.streaming => return None,
        Some(Server::Standby(_)) => "does not stream yet".to_owned(),
        Some(Server::Busy { doing }) => format!("is {doing}"),
        Some(Server::Stopped { because } | Server::Sick { because, .. }) => {
            format!("does not work: {}", trouble.unwrap_or(because))
        }
        Some(Server::Empty) => "has no data yet".to_owned(),
        Some(Server::Unknown) | None => "has not been seen yet".to_owned(),
    };
    Some(format!("database {database}: the member on {node} {doing}"))
}

fn instances(overview: &Overview, system: &System) -> Option<String> {
    let waits = |name: &ServiceName, service: &Service| {
        service.needs_release() && overview.releases.get(name).is_none_or(|known| known.current.is_none())
    };
    let to_run = system.services.iter().filter(|(name, service)| !waits(name, service));
    let wanted: u32 = to_run.map(|(name, service)| overview.upkeep.instances(name, service.instances)).sum();
    let all = overview.nodes.values().flat_map(|node| &node.instances);
    let ready = all.filter(|instance| instance.state == InstanceRouteState::Ready).count();
    (ready < usize::try_from(wanted).unwrap_or(usize::MAX))
        .then(|| format!("{ready} of {wanted} instances are ready"))
}

/// An agent that does not answer has said why in its log.
fn silent(lab: &Lab, missing: &str) -> CliError {
    let logs = lab.directory().join("logs");
    let mut error = CliError::failed(missing.to_owned());
    for (name, _) in lab.nodes() {
        if let Some(line) = last_line(&lab.log(name)) {
            error = error.because(&std::io::Error::other(format!("{name}: {line}")));
        }
    }
    error.hint(format!(
        "the agents' logs are in {}; `mainstay down {}` ends it",
        logs.display(),
        lab.system()
    ))
}

fn last_line(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().rev().find(|line| !line.trim().is_empty() && !line.contains("lab-node:")).map(str::to_owned)
}

// ---- the result ----

/// Where everything is now.
fn places(lab: &Lab, system: &System, output: Output) -> String {
    let mut text = format!("{}\n", output.on_stdout(Look::Heading, &format!("Nodes of {}:", system.name)));
    for (name, node) in lab.nodes() {
        let lines = node.addresses.iter().map(|(line, address)| format!("{address} ({line})"));
        text += &format!("  {name:12} {}\n", lines.collect::<Vec<_>>().join(", "));
    }
    let forwards = &lab.manifest().forwards;
    if !forwards.is_empty() {
        text += &format!("{}\n", output.on_stdout(Look::Heading, "Routes from this machine:"));
    }
    for forward in forwards {
        let scheme = match system.routes.get(&forward.route).map(|route| &route.target) {
            Some(RouteTarget::Service { .. }) => "http://",
            Some(RouteTarget::Database { .. }) | None => "",
        };
        text += &format!("  {:12} {scheme}{}\n", forward.route, forward.listen);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::testkit::{healthy, member, set, shop};
    use super::*;

    #[test]
    fn nothing_is_missing_when_all_works() {
        let all = [healthy(&shop(), "e1"), healthy(&shop(), "w1")];
        assert_eq!(missing(&all, &shop()), None);
    }

    #[test]
    fn a_sync_set_that_is_not_proved_is_waited_for() {
        let mut overview = healthy(&shop(), "e1");
        let primary = shop().databases[&DatabaseName::from("orders")].members[0].clone();
        let tenure = member(&mut overview, "orders", primary.as_str()).tenure.as_mut().unwrap();
        tenure.sync_applied = None;
        let told = missing(&[overview.clone()], &shop()).unwrap();
        assert!(told.starts_with("database orders: it is not proved yet that "), "{told}");
        overview.databases.get_mut(&DatabaseName::from("orders")).unwrap().sync = set(1, &[]);
        let told = missing(&[overview], &shop()).unwrap();
        assert_eq!(told, "database orders: no standby confirms commits yet");
    }

    #[test]
    fn a_route_that_is_parked_on_any_node_is_waited_for() {
        let (first, mut second) = (healthy(&shop(), "e1"), healthy(&shop(), "w1"));
        for route in &mut second.routes.routes {
            if let RouteTableTarget::Database(target) = &mut route.target {
                target.state = DatabaseRouteState::Parked { because: "no primary".to_owned() };
            }
        }
        let told = missing(&[first, second], &shop()).unwrap();
        assert!(told.starts_with("route orders-r") && told.ends_with(" on w1 waits: no primary"), "{told}");
    }
}
