//! The service instances on this node: placed by the leader, supervised here, told to the proxies.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use decide::agent::Input;
use decide::placement::{Placed, Placement};
use effects::process::{OsUser, Registry};
use effects::service::container::{Container, Engine};
use effects::service::logs::{self, Limits};
use effects::service::{InstanceSpec, InstanceState, InstanceStatus, States, Supervisor};
use model::routes::InstanceEndpoint;
use model::status::{InstanceNote, ServicesState};
use model::system::placeholder::{RoutePlace, Surroundings, expand};
use model::system::{RouteTarget, Service, System};
use model::{NodeName, RouteName, ServiceName, SiteName};
use tokio::sync::{mpsc, oneshot, watch};

use super::{Places, Shared, artefacts, member};
use crate::api::{Refused, Reply};

/// Time between two attempts to work out what to run, while the database's secrets cannot be read.
const RETRY: Duration = Duration::from_millis(500);

/// How long a restarted agent says nothing about its instances while it cannot work out what shall run.
const KNOWN_LIMIT: Duration = Duration::from_secs(3);
/// How long looking for a container engine may take.
const ENGINE_LIMIT: Duration = Duration::from_secs(2);
/// How long reading what an instance logged may take.
const LOGS_LIMIT: Duration = Duration::from_secs(5);

/// Whom instances run as when the agent is root and the file names nobody.
const NOBODY: &str = "nobody";

/// What can be asked of the supervisor.
enum Order {
    Place(Placement),
    /// Another generation of the system file is in force.
    Reconfigure(u64),
    Restart {
        subject: String,
        answer: oneshot::Sender<Vec<String>>,
    },
}

/// The handle that the mind's hands hold.
pub(super) struct Instances {
    orders: mpsc::UnboundedSender<Order>,
}

static ORDERS: std::sync::OnceLock<mpsc::UnboundedSender<Order>> = std::sync::OnceLock::new();

impl Instances {
    pub(super) fn start(shared: &Shared, generation: u64) -> Self {
        let (orders, inbox) = mpsc::unbounded_channel();
        let _ = ORDERS.set(orders.clone());
        tokio::spawn(run(shared.clone(), generation, inbox));
        Self { orders }
    }

    pub(super) fn place(&self, placement: Placement) {
        let _ = self.orders.send(Order::Place(placement));
    }

    pub(super) fn reconfigure(&self, generation: u64) {
        let _ = self.orders.send(Order::Reconfigure(generation));
    }
}

async fn run(shared: Shared, mut generation: u64, mut inbox: mpsc::UnboundedReceiver<Order>) {
    let registry = match Registry::open(&shared.places.state("processes")) {
        Ok(registry) => registry,
        Err(error) => {
            tracing::error!(%error, "services cannot be supervised: the records of processes cannot be used");
            return;
        }
    };
    let mut supervisor = Supervisor::new(registry, Limits::default());
    let (compared, comparisons) = watch::channel(0);
    let (mut placement, mut first) = (None, true);
    let mut due = false;
    let mut told = false;
    let known_by = tokio::time::Instant::now() + KNOWN_LIMIT;
    loop {
        let order = tokio::select! {
            order = inbox.recv() => order,
            () = tokio::time::sleep(RETRY), if due => None,
            () = tokio::time::sleep_until(known_by), if !told => {
                told = true;
                tokio::spawn(tell(shared.clone(), supervisor.states(), comparisons.clone()));
                continue;
            }
        };
        match order {
            Some(Order::Place(next)) => placement = Some(next),
            Some(Order::Reconfigure(next)) => generation = next,
            None => {}
            Some(Order::Restart { subject, answer }) => {
                let _ = answer.send(restart_matching(&supervisor, &subject));
                continue;
            }
        }
        let Some(placement) = &placement else {
            // Nothing is placed, so nothing runs that could be outdated.
            compared.send_replace(generation);
            continue;
        };
        match wanted(&shared, placement, generation).await {
            Ok(wanted) => {
                // What waits for others is looked at again and again.
                due = !wanted.unclear.is_empty() || wanted.specs.iter().any(|spec| spec.hold.is_some());
                for because in wanted.unclear.values() {
                    tracing::info!(%because, "an instance cannot be started or changed yet");
                }
                start(&mut supervisor, wanted, std::mem::take(&mut first)).await;
                if !told {
                    // Nothing is told before it is known what runs already: proxies would drop instances that serve.
                    told = true;
                    let _ = tokio::time::timeout(KNOWN_LIMIT, supervisor.settled()).await;
                    tokio::spawn(tell(shared.clone(), supervisor.states(), comparisons.clone()));
                }
                supervisor.considered().await;
                compared.send_replace(generation);
            }
            Err(because) => {
                due = true;
                tracing::info!(%because, "services are not started yet");
            }
        }
    }
}

/// Lets exactly these run; the first time also ends what an earlier run of the agent has left beyond them.
async fn start(supervisor: &mut Supervisor, wanted: Wanted, first: bool) {
    let unclear = wanted.unclear.into_keys().collect();
    if first && let Err(error) = supervisor.stop_leftovers(&wanted.specs, &unclear).await {
        tracing::warn!(%error, "instances of an earlier run may be left");
    }
    supervisor.apply_but(wanted.specs, &unclear);
}

/// Passes every change of an instance on to the mind.
async fn tell(shared: Shared, mut states: watch::Receiver<States>, mut compared: watch::Receiver<u64>) {
    loop {
        let generation = *compared.borrow_and_update();
        let now = states.borrow_and_update().clone();
        let outdated = now.iter().filter(|(_, status)| status.outdated).map(|(id, _)| id.clone()).collect();
        shared.inputs.send(Input::Instances(endpoints(&shared, &now)));
        let notes = now.iter().filter_map(|(id, status)| Some((id.clone(), note(status)?))).collect();
        shared.inputs.send(Input::Services(ServicesState { generation, outdated, notes }));
        let gone = tokio::select! {
            changed = states.changed() => changed.is_err(),
            changed = compared.changed() => changed.is_err(),
        };
        if gone {
            return;
        }
    }
}

/// What people are told of an instance that is not simply ready.
fn note(status: &InstanceStatus) -> Option<InstanceNote> {
    let is_ready = status.state == InstanceState::Ready;
    (!is_ready || status.unlimited.is_some()).then(|| InstanceNote {
        state: status.state.to_string(),
        crash_loop: status.state.is_crash_loop(),
        last_lines: if is_ready { vec![] } else { status.last_lines.clone() },
        unlimited: status.unlimited.clone(),
    })
}

fn endpoints(shared: &Shared, states: &States) -> Vec<InstanceEndpoint> {
    let site =
        shared.system.borrow().site_of(&shared.me).cloned().unwrap_or_else(|| SiteName::new("unknown"));
    let endpoint = |(id, status): (&String, &InstanceStatus)| InstanceEndpoint {
        id: id.clone(),
        node: shared.me.clone(),
        site: site.clone(),
        address: status.address,
        state: status.state.route_state(),
    };
    states.iter().map(endpoint).collect()
}

/// What shall run here.
struct Wanted {
    specs: Vec<InstanceSpec>,
    /// Instances of which it cannot be said now with what they should run: those that do go on as they are.
    unclear: BTreeMap<String, String>,
}

async fn wanted(shared: &Shared, placement: &Placement, generation: u64) -> Result<Wanted, String> {
    let system = shared.system.borrow().clone();
    let mut routes: Option<Known> = None;
    let engine = match system.services.values().any(|service| service.image.is_some()) {
        true => find_engine().await?,
        false => None,
    };
    let mut wanted = Wanted { specs: vec![], unclear: BTreeMap::new() };
    for (name, service) in &system.services {
        let placed = placement.get(name).into_iter().flatten();
        let hold = hold(shared, service).await;
        for (number, place) in placed.filter(|(_, place)| place.node == shared.me) {
            if routes.is_none() {
                routes = Some(route_places(shared, &system).await?);
            }
            let id = format!("{name}-{number}@{}", shared.me);
            let known = routes.as_ref().ok_or("no routes")?;
            match spec(shared, &system, name, service, &id, place, known) {
                Ok(mut spec) => {
                    spec.container = container(service, &spec, &engine);
                    spec.replace = place.renew >= generation;
                    spec.hold = hold.clone();
                    wanted.specs.push(spec);
                }
                Err(because) => drop(wanted.unclear.insert(id, because)),
            }
        }
    }
    Ok(wanted)
}

/// The container engine of this node, looked for anew each time: it may have been installed meanwhile.
async fn find_engine() -> Result<Option<Engine>, String> {
    effects::disposable::run("find engine", ENGINE_LIMIT, Engine::find)
        .await
        .map_err(|error| error.to_string())
}

/// The container that an instance is, if it is one. Its `spec.user` is whom its health commands run as on the node; whom
/// it runs as itself is said by its image unless the file does, root too.
fn container(service: &Service, spec: &InstanceSpec, engine: &Option<Engine>) -> Option<Container> {
    let image = service.image.clone()?;
    let named = service.user.as_ref().filter(|_| rustix::process::geteuid().is_root());
    let user = named.and_then(|_| spec.user.clone().or_else(|| OsUser::current().ok()));
    Some(Container { image, engine: engine.clone(), user })
}

/// What the first start of a service's instances still waits for.
async fn hold(shared: &Shared, service: &Service) -> Option<String> {
    if service.after.is_empty() {
        return None;
    }
    let overview = shared.inputs.ask(decide::agent::Agent::overview).await?;
    decide::start_order::unmet(&service.after, &overview)
}

/// Where each route can be reached from this node.
pub(super) struct Known {
    pub(super) places: BTreeMap<RouteName, RoutePlace>,
    /// The parts of connection strings that name other nodes: an instance that lacks a new one works as well, so that
    /// none is replaced because a node has come or gone.
    other_nodes: Vec<String>,
}

pub(super) async fn route_places(shared: &Shared, system: &System) -> Result<Known, String> {
    let own = system.nodes.get(&shared.me).ok_or("this node is not in the system file")?;
    let (mut places, mut other_nodes) = (BTreeMap::new(), vec![]);
    for (name, route) in &system.routes {
        let address =
            SocketAddr::new(route.listen.address.unwrap_or_else(|| own.address()), route.listen.port);
        let dsn = match &route.target {
            RouteTarget::Database { database, .. } => {
                let dsn = member::dsn(shared, system, name, database).await?;
                other_nodes.push(dsn.others);
                Some(dsn.text)
            }
            RouteTarget::Service { .. } => None,
        };
        places.insert(name.clone(), RoutePlace { address, dsn });
    }
    Ok(Known { places, other_nodes })
}

fn spec(
    shared: &Shared,
    system: &System,
    name: &ServiceName,
    service: &Service,
    id: &str,
    place: &Placed,
    known: &Known,
) -> Result<InstanceSpec, String> {
    let routes = &known.places;
    let own = system.nodes.get(&shared.me).ok_or("this node is not in the system file")?;
    let home = service_home(&shared.places, name);
    let (cwd, port) = (home.join(id), place.port);
    let dir = cwd.display().to_string();
    let unpacked =
        match &place.release {
            Some(of) => Some(artefacts::directory(&shared.places, &of.digest).ok_or_else(|| {
                format!("{id}: the artefact of release {} is not on this node yet", of.number)
            })?),
            None => None,
        };
    let with = Surroundings {
        address: own.address(),
        port,
        node: &shared.me,
        instance: id,
        dir: &dir,
        release: unpacked.as_deref(),
        routes,
    };
    let fill = |text: &String| expand(text, &with).map_err(|error| format!("{id}: {error}"));
    let mut command = service.command.iter().map(fill).collect::<Result<Vec<_>, _>>()?;
    if let Some(program) = command.first_mut().filter(|_| service.image.is_none()) {
        *program = in_home(&home, program);
    }
    let env = service
        .env
        .iter()
        .map(|(key, value)| Ok((key.clone(), fill(value)?)))
        .collect::<Result<_, String>>()?;
    Ok(InstanceSpec {
        service: name.clone(),
        command,
        container: None,
        env,
        cwd,
        user: user(service.user.as_ref(), &shared.me)?,
        address: SocketAddr::new(own.address(), port),
        health: service.health.clone(),
        stop_grace: service.stop_grace,
        log: logs::path(&shared.places.root.join("log"), name, id),
        ready: service.ready.clone(),
        memory: service.memory,
        hold: None,
        dispensable: known.other_nodes.clone(),
        replace: false,
        id: id.to_owned(),
    })
}

/// Where a service's files lie on a node.
pub(crate) fn service_home(places: &Places, service: &ServiceName) -> PathBuf {
    places.root.join("services").join(service.as_str())
}

/// A program given as a relative path lies in the service's directory on the node.
pub(super) fn in_home(home: &Path, program: &str) -> String {
    match program.contains('/') && !program.starts_with('/') {
        true => home.join(program.trim_start_matches("./")).display().to_string(),
        false => program.to_owned(),
    }
}

/// Whom a program runs as for which the file says `wanted`.
pub(super) fn user(wanted: Option<&String>, node: &NodeName) -> Result<Option<OsUser>, String> {
    let own = OsUser::current().map_err(|error| error.to_string())?;
    let name = match (wanted, own.is_root()) {
        (Some(name), _) if *name == own.name => return Ok(None),
        (Some(name), true) => name.as_str(),
        (Some(name), false) => return Err(format!("only root can run a program as {name}")),
        (None, true) => NOBODY,
        (None, false) => return Ok(None),
    };
    let found = OsUser::lookup(name).map_err(|error| error.to_string())?;
    found.map(Some).ok_or_else(|| format!("there is no operating-system user {name} on {node}"))
}

fn restart_matching(supervisor: &Supervisor, subject: &str) -> Vec<String> {
    let ids: Vec<String> =
        supervisor.states().borrow().keys().filter(|id| matches(id, subject)).cloned().collect();
    ids.into_iter().filter(|id| supervisor.restart(id)).collect()
}

/// Whether `service/web` or `instance/web-1` means the instance `web-1@e1`.
fn matches(id: &str, subject: &str) -> bool {
    let instance = id.split('@').next().unwrap_or(id);
    match subject.split_once('/') {
        Some(("service", service)) => instance.rsplit_once('-').is_some_and(|(of, _)| of == service),
        Some(("instance", wanted)) => instance == wanted || id == wanted,
        Some(_) | None => false,
    }
}

/// Restarts the instances on this node that `subject` means.
pub(super) async fn restart(_shared: &Shared, subject: &str) -> Result<String, Refused> {
    let (answer, answered) = oneshot::channel();
    let sent = ORDERS
        .get()
        .is_some_and(|orders| orders.send(Order::Restart { subject: subject.to_owned(), answer }).is_ok());
    let ids = if sent { answered.await.unwrap_or_default() } else { vec![] };
    match ids.as_slice() {
        [] => Err(Refused {
            because: format!("nothing called {subject} runs on this node"),
            hint: "`mainstay status` lists instances".to_owned(),
        }),
        ids => Ok(format!("restarting {}", ids.join(", "))),
    }
}

/// The last lines of what `subject` logged on this node.
pub(super) async fn logs(shared: &Shared, subject: &str, lines: usize) -> Reply {
    let directory = shared.places.root.join("log");
    let subject = subject.to_owned();
    let read =
        effects::disposable::run("read logs", LOGS_LIMIT, move || read_logs(&directory, &subject, lines))
            .await;
    match read {
        Ok(Ok(lines)) => Reply::Logs(lines),
        Ok(Err(because)) => {
            Reply::refused(because, "`mainstay logs` takes agent, proxy, database/NAME or service/NAME")
        }
        Err(error) => Reply::refused(error.to_string(), "try again"),
    }
}

fn read_logs(directory: &Path, subject: &str, lines: usize) -> Result<Vec<String>, String> {
    let wanted = |name: &str| match subject.split_once('/') {
        None => name.starts_with(&format!("{subject}.")),
        Some(("database", database)) => {
            name == format!("{database}.log") || name == format!("postgres-{database}.log")
        }
        Some(("service", service)) => name.starts_with(&format!("{service}.")) && name.ends_with(".log"),
        Some(("job", run)) => name == format!("{}.log", super::jobs::log_name(&run.replace('/', "."))),
        Some(("instance", instance)) => name.contains(&format!(".{instance}")) && name.ends_with(".log"),
        Some(_) => false,
    };
    let entries =
        std::fs::read_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let mut found = vec![];
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if wanted(&name) {
            found.push((name, entry.path()));
        }
    }
    found.sort();
    let several = found.len() > 1;
    let mut all = vec![];
    for (name, path) in found {
        let tail = logs::tail(&path, lines).map_err(|error| format!("{}: {error}", path.display()))?;
        all.extend(tail.into_iter().map(|line| if several { format!("{name}: {line}") } else { line }));
    }
    Ok(all)
}
