//! The system under drill: what it says of itself, and what is done to it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use decide::agent::Overview;
use lab::drill::{self, Drill, Entry, Member, Needs, Step, SystemView};
use lab::fault::Door;
use lab::{ClientRuntime, Lab};
use mainstay::api::client::ask;
use mainstay::api::{Reply, Request};
use model::event::Event;
use model::leadership::{Leadership, Phase};
use model::status::Server;
use model::system::{Database, Durability, Role, RouteTarget, System};
use model::{DatabaseName, NodeName, RouteName, SiteName};
use tokio::task::JoinSet;

use super::super::connect::Connection;
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::output::note;
use super::super::status::verdict::Verdict;
use super::super::target::Target;
use super::super::up::in_words;

/// How long an agent may take to say what it knows.
const ASK_LIMIT: Duration = Duration::from_millis(500);

/// How long a switchover may take to be accepted.
const SWITCHOVER_LIMIT: Duration = Duration::from_secs(30);

/// How long is waited for a primary that something is to be done to.
const PRIMARY_LIMIT: Duration = Duration::from_secs(60);

/// The system under drill, and how to ask it.
pub(super) struct Stage {
    lab: Arc<Mutex<Lab>>,
    target: Target,
    sockets: BTreeMap<NodeName, std::path::PathBuf>,
    system: System,
    name: DatabaseName,
    database: Database,
    route: (RouteName, u16),
}

fn lock(lab: &Mutex<Lab>) -> std::sync::MutexGuard<'_, Lab> {
    lab.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stage {
    /// The system that runs in `lab`.
    pub(super) async fn open(lab: Lab, database: Option<&str>, target: &Target) -> Result<Self, CliError> {
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
            target: target.clone(),
            sockets,
            system: *system,
            name,
            database,
            route: (route, listen),
        })
    }

    /// Refuses a drill that this system cannot show.
    pub(super) fn is_suitable(&self, drill: &Drill) -> Result<(), CliError> {
        let refused = |words: String| CliError::with(Exit::Refused, words);
        let is_async = matches!(self.database.durability, Durability::Async { .. });
        let lab = lock(&self.lab);
        let off: Vec<&str> =
            lab.nodes().filter(|(_, node)| !node.is_on()).map(|(name, _)| name.as_str()).collect();
        if let Some(first) = off.first() {
            return Err(refused(format!(
                "the drill is refused: not every node is on: {} is off",
                off.join(", ")
            ))
            .hint(format!("mainstay lab start {first}")));
        }
        let has_volume = |node: &NodeName| lab.node(node).is_ok_and(|node| node.volume.is_some());
        let has_clocks = |node: &NodeName| lab.node(node).is_ok_and(|node| node.own_clocks);
        let lacks = match drill.needs() {
            Needs::Volume if !self.database.members.iter().all(has_volume) => {
                Some(("nodes whose databases lie on volumes of their own", "--data-volume 512"))
            }
            Needs::TwoLines if lab.manifest().lines.len() < 2 => Some(("nodes with two lines", "")),
            Needs::Clock if !self.database.members.iter().all(has_clocks) => {
                Some(("nodes whose clocks can be changed", "--own-clocks"))
            }
            Needs::Nothing | Needs::Volume | Needs::TwoLines | Needs::Clock => None,
        };
        if let Some((what, option)) = lacks {
            return Err(refused(format!("the drill is refused: {drill} needs {what}"))
                .hint(format!("mainstay down {0} && mainstay up FILE {option}", lab.system())));
        }
        match (drill.is_for_async(), is_async) {
            (true, false) => Err(refused(format!(
                "the drill is refused: {drill} loses writes on purpose, and {} promises to lose none",
                self.name
            ))
            .hint("it is for a database with durability = \"async\"")),
            (false, true) => Err(refused(format!(
                "the drill is refused: {} has durability \"async\" and may lose writes, which every drill but {} would call a \
                 failure",
                self.name, "async-loss"
            ))),
            (true, true) | (false, false) => Ok(()),
        }
    }

    /// The database under drill.
    pub(super) const fn database(&self) -> &Database {
        &self.database
    }

    /// Its name.
    pub(super) const fn database_name(&self) -> &DatabaseName {
        &self.name
    }

    /// The system under drill.
    pub(super) const fn system(&self) -> &System {
        &self.system
    }

    /// Where its agents answer.
    pub(super) const fn sockets(&self) -> &BTreeMap<NodeName, std::path::PathBuf> {
        &self.sockets
    }

    /// How long writes may stand still, as the file promises.
    pub(super) const fn rto(&self) -> Duration {
        self.system.objectives.rto
    }

    /// Where outside clients run.
    pub(super) async fn client_runtime(&self) -> Result<ClientRuntime, CliError> {
        let lab = self.lab.clone();
        let runtime = tokio::task::spawn_blocking(move || lock(&lab).client_runtime()).await;
        let runtime =
            runtime.map_err(|error| CliError::failed("no client could be started").because(&error))?;
        runtime.map_err(|error| in_words(&error))
    }

    /// User, password and database; faults that are clients come through the route too.
    pub(super) async fn login(&self) -> Result<tokio_postgres::Config, CliError> {
        let request = Request::Dsn { route: self.route.0.clone() };
        let failed = || CliError::failed("the database's connection string is not to be had");
        let Some(Reply::Dsn(dsn)) = first_answer(&self.sockets, &request).await else { return Err(failed()) };
        let parsed: tokio_postgres::Config = dsn.parse().map_err(|error| failed().because(&error))?;
        let mut login = tokio_postgres::Config::new();
        login.user(parsed.get_user().unwrap_or_default());
        login.password(parsed.get_password().unwrap_or_default());
        login.dbname(parsed.get_dbname().unwrap_or_default());
        let entries = self.entries().into_iter().map(|entry| (entry.node, entry.address)).collect();
        lock(&self.lab).use_door(Door { entries, login: login.clone() });
        Ok(login)
    }

    /// What the system says of itself, by the word of the leader; a node that is cut off answers too, and is not believed.
    pub(super) async fn view(&self) -> Result<SystemView, String> {
        let mut asked = JoinSet::new();
        for (node, socket) in self.sockets.clone() {
            asked.spawn(async move { (node, ask(&socket, &Request::Overview, ASK_LIMIT).await) });
        }
        let (mut leading, mut answering) = (None, BTreeMap::new());
        for (node, answer) in asked.join_all().await {
            let Ok(Reply::Overview(overview)) = answer else { continue };
            answering.insert(node, overview.incarnation);
            if overview.leader.as_ref() == Some(&overview.node) {
                leading = Some(overview);
            }
        }
        let blank = SystemView {
            answering,
            members: self.members(),
            routes: self.entries(),
            sites: self.sites(),
            missing: Some("no agent leads now".to_owned()),
            ..SystemView::default()
        };
        let Some(overview) = leading else { return Ok(blank) };
        let record = overview.databases.get(&self.name);
        Ok(SystemView {
            primary: record.and_then(|record| self.settled_primary(&overview, record)),
            leader: overview.leader.clone(),
            confirming: record.map(|record| record.sync.members.iter().cloned().collect()),
            missing: self.missing(&overview),
            ..blank
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

    /// The route on every node, at the addresses of all its lines.
    fn entries(&self) -> Vec<Entry> {
        let on = |(name, node): (&NodeName, &model::system::Node)| -> Vec<Entry> {
            let others = node.lines.values().copied().filter(|ip| *ip != node.address());
            let addresses = std::iter::once(node.address()).chain(others);
            let entry = |ip| Entry { node: name.clone(), address: SocketAddr::new(ip, self.route.1) };
            addresses.map(entry).collect()
        };
        self.system.workers().flat_map(on).collect()
    }

    fn sites(&self) -> BTreeMap<NodeName, SiteName> {
        self.system.nodes.iter().map(|(name, node)| (name.clone(), node.site.clone())).collect()
    }

    fn settled_primary(&self, overview: &Overview, record: &Leadership) -> Option<NodeName> {
        let Phase::Led { primary } = &record.phase else { return None };
        let tenure = overview.members.get(&self.name)?.get(primary)?.status.tenure.as_ref()?;
        (tenure.term == record.term && tenure.sync_applied.is_some()).then(|| primary.clone())
    }

    /// One of several lines over which the leader does not reach a node.
    fn dead_line(&self, overview: &Overview) -> Option<String> {
        let others = overview.nodes.iter().filter(|(name, _)| **name != overview.node);
        others.filter_map(|(name, seen)| Some((name, &self.system.nodes.get(name)?.lines, seen))).find_map(
            |(name, lines, seen)| {
                let dead = lines.keys().find(|line| lines.len() > 1 && !seen.lines.contains(*line))?;
                Some(format!("node {name} is not reached over line {dead}"))
            },
        )
    }

    /// What is missing from full redundancy.
    fn missing(&self, overview: &Overview) -> Option<String> {
        if let Some((node, _)) = overview.nodes.iter().find(|(_, node)| node.silent.is_some() || !node.heard)
        {
            return Some(format!("node {node} is not heard"));
        }
        if let Some(dead) = self.dead_line(overview) {
            return Some(dead);
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

    /// What all nodes wrote down since then (microseconds since the Unix epoch).
    pub(super) async fn events(&self, since_us: i64) -> Vec<Event> {
        match first_answer(&self.sockets, &Request::Events { since_us, everywhere: true }).await {
            Some(Reply::Events(events)) => events,
            Some(_) | None => vec![],
        }
    }

    /// Does a step and says by what it is known.
    pub(super) async fn apply(&self, step: &Step) -> Result<String, String> {
        if let Step::OnPrimary { act } = step {
            let step = Step::Do { act, node: self.present_primary().await? };
            return Box::pin(self.apply(&step)).await.map(|proof| format!("{step}: {proof}"));
        }
        if let Step::Switchover(_) = step {
            self.switch(None).await
        } else if let Step::HandTo(node) = step {
            self.switch(Some(node.clone())).await
        } else if *step == Step::AskStatus {
            self.status().await
        } else {
            self.act(step).await
        }
    }

    /// The node of whoever is the primary now, or will be soon.
    async fn present_primary(&self) -> Result<NodeName, String> {
        let begun = tokio::time::Instant::now();
        loop {
            if let Some(primary) = self.view().await?.primary {
                return Ok(primary);
            }
            if begun.elapsed() >= PRIMARY_LIMIT {
                return Err(format!("there was no primary for {} s", PRIMARY_LIMIT.as_secs()));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Takes back what was done and lasts.
    pub(super) async fn take_back(&self) {
        let lab = self.lab.clone();
        match tokio::task::spawn_blocking(move || lock(&lab).take_back()).await {
            Ok(Ok(taken)) => taken.iter().for_each(|taken| note(&format!("{}\n", taken.step))),
            Ok(Err(error)) => note(&format!("the fault could not be taken back: {error}\n")),
            Err(error) => note(&format!("the fault could not be taken back: {error}\n")),
        }
    }

    async fn act(&self, step: &Step) -> Result<String, String> {
        let (lab, name, step) = (self.lab.clone(), self.name.clone(), step.clone());
        let done = tokio::task::spawn_blocking(move || drill::act(&mut lock(&lab), &name, &step)).await;
        done.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }

    async fn switch(&self, to: Option<NodeName>) -> Result<String, String> {
        let request = Request::Switchover { database: self.name.clone(), to };
        for socket in self.sockets.values() {
            match ask(socket, &request, SWITCHOVER_LIMIT).await {
                Ok(Reply::Done(because)) => return Ok(because),
                Ok(Reply::Refused(refused)) => return Err(refused.because),
                Ok(_) | Err(_) => {}
            }
        }
        Err("no agent answers".to_owned())
    }

    /// What `mainstay status` says of writes to the database, and what would help.
    async fn status(&self) -> Result<String, String> {
        let words = |error: CliError| error.sentence().to_owned();
        let mut connection = Connection::open(&self.target).map_err(words)?;
        let verdict = Verdict::of(&connection.view().await.map_err(words)?);
        let subject = format!("database/{}", self.name);
        let about = verdict.troubles.iter().filter(|trouble| trouble.subject == subject);
        let said = about.map(|trouble| {
            let help = trouble.unblock.as_ref().map(|help| format!("; {help}")).unwrap_or_default();
            format!("{}{help}", trouble.what)
        });
        Ok(said.collect::<Vec<_>>().join(". "))
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
