//! A member of a database on this node: carries out what the mind decides, looks at the server, tells the mind.
//!
//! `actor` does one thing at a time (a fence takes its place); `observer` looks all the time; `durable` is what outlives
//! the agent.

mod actor;
mod durable;
mod observer;
mod rejoin;
mod settings;
mod stalls;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use decide::agent::Input;
use decide::member::Action;
use effects::postgres::{
    self, Application, Facts, Installation, MemberConfig, Postmaster, Secrets, Settings, Source,
};
use effects::process::Registry;
use model::status::Server;
use model::system::{Database, Durability, System};
use model::{DatabaseName, NodeName, RouteName};
use tokio::sync::{mpsc, watch};

use super::Shared;
use super::store::{WITHIN, secrets_key};
use coordination::{JsonCoordinator, Revision, TxnOutcome};
use settings::ServerSeen;

/// Time between two attempts to find PostgreSQL and open the member.
const OPEN_PAUSE: Duration = Duration::from_secs(2);

/// How long a checkpoint before a switchover may take.
const CHECKPOINT_LIMIT: Duration = Duration::from_secs(60);

/// How long SQL that keeps replication slots may take.
const SLOTS_LIMIT: Duration = Duration::from_secs(2);

/// The handle that the mind's hands hold.
pub(super) struct Member {
    actions: mpsc::UnboundedSender<Action>,
    config: watch::Sender<Database>,
}

/// What actor and observer share.
#[derive(Clone)]
struct Ground {
    shared: Shared,
    database: DatabaseName,
    config: watch::Receiver<Database>,
    member: postgres::Member,
    registry: Registry,
    server: Arc<Mutex<Option<Postmaster>>>,
    /// The server that answered last.
    seen: Arc<Mutex<Option<ServerSeen>>>,
    /// Changes whenever the actor begins or ends something: what was seen across a change is not told.
    epoch: Arc<AtomicU64>,
}

impl Member {
    /// Starts the tasks of a member.
    pub(super) fn start(shared: &Shared, database: &DatabaseName, config: Database) -> Self {
        let (actions, orders) = mpsc::unbounded_channel();
        let (config, configs) = watch::channel(config);
        tokio::spawn(run(shared.clone(), database.clone(), configs, orders));
        Self { actions, config }
    }

    pub(super) fn act(&self, action: Action) {
        // The receiver lives as long as the process.
        let _ = self.actions.send(action);
    }

    pub(super) fn reconfigure(&self, config: Database) {
        self.config.send_if_modified(|current| {
            let changed = *current != config;
            *current = config;
            changed
        });
    }
}

async fn run(
    shared: Shared,
    database: DatabaseName,
    config: watch::Receiver<Database>,
    orders: mpsc::UnboundedReceiver<Action>,
) {
    let member = open(&shared, &database, &config).await;
    let durable = durable::load_for_ever(&shared, &database).await;
    let registry = loop {
        match Registry::open(&shared.places.state("processes")) {
            Ok(registry) => break registry,
            Err(error) => {
                tell_trouble(&shared, &database, format!("the records of processes cannot be used: {error}"))
            }
        }
        tokio::time::sleep(OPEN_PAUSE).await;
    };
    let ground = Ground {
        shared: shared.clone(),
        database: database.clone(),
        config,
        member,
        registry,
        server: Arc::default(),
        seen: Arc::default(),
        epoch: Arc::default(),
    };
    ground.adopt().await;
    SERVERS.lock().unwrap_or_else(PoisonError::into_inner).insert(database.clone(), ground.clone());
    shared.inputs.send(Input::Recovered { database, durable: durable.clone() });
    tokio::spawn(observer::observe(ground.clone()));
    actor::run(ground, durable, orders).await;
}

/// The members of this process, for requests that ask one directly.
static SERVERS: Mutex<BTreeMap<DatabaseName, Ground>> = Mutex::new(BTreeMap::new());

fn ground_of(database: &DatabaseName) -> Option<Ground> {
    SERVERS.lock().unwrap_or_else(PoisonError::into_inner).get(database).cloned()
}

/// Finds PostgreSQL and opens the member; as long as that fails the reason is told.
async fn open(
    shared: &Shared,
    database: &DatabaseName,
    config: &watch::Receiver<Database>,
) -> postgres::Member {
    loop {
        let wanted = config.borrow().clone();
        match try_open(shared, database, &wanted).await {
            Ok(member) => return member,
            Err(because) => tell_trouble(shared, database, because),
        }
        tokio::time::sleep(OPEN_PAUSE).await;
    }
}

async fn try_open(
    shared: &Shared,
    database: &DatabaseName,
    config: &Database,
) -> Result<postgres::Member, String> {
    let installation =
        Installation::find(config.bin_dir.as_deref(), None).await.map_err(|error| error.to_string())?;
    let member = MemberConfig {
        node: shared.me.clone(),
        database: database.clone(),
        root: &shared.places.root,
        port: config.port,
        installation,
    };
    postgres::Member::open(member).await.map_err(|error| error.to_string())
}

fn tell_trouble(shared: &Shared, database: &DatabaseName, because: String) {
    tracing::warn!(%database, %because, "the member cannot do its part");
    let trouble = Some(because);
    shared.inputs.send(Input::Observed {
        database: database.clone(),
        asked: effects::clock::now(),
        server: Server::Unknown,
        system_identifier: None,
        trouble,
    });
}

impl Ground {
    fn key(&self) -> String {
        format!("postgres-{}", self.database)
    }

    fn postmaster(&self) -> Option<Postmaster> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_postmaster(&self, postmaster: Option<Postmaster>) {
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = postmaster;
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    fn server_seen(&self) -> Option<ServerSeen> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_server(&self, facts: &Facts) {
        let Facts { started_us, in_recovery, altered, .. } = *facts;
        let seen = ServerSeen { started_us, in_recovery, altered };
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
    }

    fn turn_epoch(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// Takes over a server that an earlier run of the agent started.
    async fn adopt(&self) {
        let recorded = self.registry.find(&self.key()).ok().flatten().and_then(|found| found.process);
        let adopted = match recorded {
            Some(process) => self.member.adopt(process.id()).await,
            None => None,
        };
        let adopted = match adopted {
            Some(postmaster) => Some(postmaster),
            None => self.member.running().await,
        };
        self.set_postmaster(adopted);
    }

    fn application(&self) -> Application {
        let config = self.config.borrow();
        Application { role: config.owner.clone(), database: config.dbname.clone() }
    }

    fn settings(&self) -> Settings {
        let system = self.shared.system.borrow();
        let listen: Vec<IpAddr> = system
            .nodes
            .get(&self.shared.me)
            .map(|node| node.lines.values().copied().collect())
            .unwrap_or_default();
        let config = self.config.borrow();
        Settings {
            listen,
            clients: vec![],
            parameters: config.parameters.clone(),
            asynchronous: matches!(config.durability, Durability::Async { .. }),
            tls: None,
        }
    }

    /// Another member as something to stream, clone or rewind from; the line that both prefer comes first.
    fn source(&self, node: &NodeName) -> Option<Source> {
        let system = self.shared.system.borrow();
        let there = system.nodes.get(node)?;
        let mut addresses = vec![there.address()];
        addresses.extend(there.lines.values().copied().filter(|ip| *ip != there.address()));
        Some(Source { node: node.clone(), addresses, port: self.config.borrow().port, tls: false })
    }

    /// Makes the replication slots of the other members, on a standby too: whoever is promoted has them already.
    async fn keep_slots(&self) -> Result<(), String> {
        let Some(postmaster) = self.postmaster() else { return Ok(()) };
        let members = self.config.borrow().members.clone();
        let database = self.database.clone();
        let flushed = self.shared.inputs.ask(move |agent| agent.standby_positions(&database)).await;
        let flushed = flushed.unwrap_or_default();
        let others: BTreeMap<NodeName, _> = members
            .into_iter()
            .filter(|node| *node != self.shared.me)
            .map(|node| (node.clone(), flushed.get(&node).copied()))
            .collect();
        postmaster.keep_slots(&others, SLOTS_LIMIT).await.map_err(|error| error.to_string())?;
        let database = self.database.clone();
        let record = self.shared.inputs.ask(move |agent| agent.record(&database).cloned()).await.flatten();
        match record.as_ref().and_then(|stored| stored.value.primary()) {
            Some(primary) if others.contains_key(primary) => {
                let released = postmaster.release_log_of_primary(primary, SLOTS_LIMIT).await;
                released.map_err(|error| error.to_string())
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The database's secrets as the system agreed on them, made now if there are none.
    async fn secrets(&self) -> Result<Secrets, String> {
        let (key, coordinator) = (secrets_key(&self.database), &self.shared.store.coordinator);
        if let Some((secrets, _)) =
            coordinator.get_json::<Secrets>(&key, WITHIN).await.map_err(|error| error.to_string())?
        {
            return Ok(secrets);
        }
        let secrets = Secrets::generate().map_err(|error| error.to_string())?;
        match coordinator.compare_and_set_json(&key, Revision(0), &secrets, WITHIN).await {
            Ok(TxnOutcome::Committed(_)) => Ok(secrets),
            Ok(TxnOutcome::Conflict { .. }) => {
                Err("another member made the secrets at the same moment".to_owned())
            }
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Flushes the dirty pages of this node's member.
pub(super) async fn checkpoint(_shared: &Shared, database: &DatabaseName) -> Result<(), String> {
    let postmaster = ground_of(database).and_then(|ground| ground.postmaster());
    let postmaster = postmaster.ok_or_else(|| format!("PostgreSQL of {database} does not run here"))?;
    postmaster.checkpoint(CHECKPOINT_LIMIT).await.map_err(|error| error.to_string())
}

/// How to connect to a database.
pub(super) struct Dsn {
    /// A connection string.
    pub(super) text: String,
    /// The part of it that names other nodes than this one: it works without.
    pub(super) others: String,
}

/// How to connect to a database through a route as its owner: this node's proxy first, then the others'.
pub(super) async fn dsn(
    shared: &Shared,
    system: &System,
    route: &RouteName,
    database: &DatabaseName,
) -> Result<Dsn, String> {
    let (Some(listen), Some(config)) =
        (system.routes.get(route).map(|route| route.listen), system.databases.get(database))
    else {
        return Err(format!("there is no route {route}"));
    };
    let secrets = shared.store.coordinator.get_json::<Secrets>(&secrets_key(database), WITHIN).await;
    let Some((secrets, _)) = secrets.map_err(|error| error.to_string())? else {
        return Err(format!("the database {database} has not been created yet"));
    };
    let address = |node: &model::system::Node| listen.address.unwrap_or_else(|| node.address());
    let place = |node: &model::system::Node| format!("{}:{}", host(address(node)), listen.port);
    let others = system.workers().filter(|(name, _)| **name != shared.me).map(|(_, node)| place(node));
    let own = system.nodes.get(&shared.me).filter(|_| !system.is_witness(&shared.me)).map(place);
    let (first, others) = match own {
        Some(own) => (own, others.map(|other| format!(",{other}")).collect()),
        None => (others.collect::<Vec<_>>().join(","), String::new()),
    };
    let (owner, password, dbname) = (&config.owner, &secrets.owner, &config.dbname);
    Ok(Dsn { text: format!("postgresql://{owner}:{password}@{first}{others}/{dbname}"), others })
}

/// An address as it stands in a URL.
fn host(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}
