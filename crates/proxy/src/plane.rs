//! The routes in force on this node.
//!
//! A table is put in force in one synchronous step under a lock; what it forbids then ends in its own tasks. A task of
//! its own waits for that end and only then tells the agents that the generation is in force.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::routes::{DatabaseTarget, FromProxy, ProxyReport, RouteTable, RouteTarget, ServiceTarget};
use model::{RouteName, SiteName};
use tokio::net::TcpStream;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, broadcast, watch};
use tokio::time::timeout;

use crate::clock;
use crate::control::state_file::StateFile;
use crate::core::database::{self, Attendance};
use crate::core::listen::{self, Wanted};
use crate::core::service::sticky::Cookies;
use crate::crowd::Crowd;
use crate::database::DatabaseRoute;
use crate::journal::Journal;
use crate::listeners::Listeners;
use crate::service::{Entrance, House, ServiceRoute};
use crate::socket;

mod succession;

/// TLS handshakes under way at once; with more, the oldest ones go.
const HANDSHAKES_MOST: usize = 1024;
/// How long a newcomer waits for the room that an unused connection leaves.
const ROOM_LONGEST: Duration = Duration::from_millis(500);
/// News that an agent may be behind before it is only told the present state.
const NEWS_KEPT: usize = 256;

/// All that one proxy serves.
#[derive(Debug)]
pub(crate) struct Plane {
    routes: Mutex<Routes>,
    news: broadcast::Sender<FromProxy>,
    attendance: watch::Sender<Attendance>,
    listeners_changed: Notify,
    state_file: StateFile,
    room: Arc<Semaphore>,
    limit: usize,
    house: House,
    /// Another process serves whoever comes; what is under way here is finished.
    leaving: watch::Sender<bool>,
}

/// The presence of one agent.
#[derive(Debug)]
pub(crate) struct Attended(Arc<Plane>);

impl Drop for Attended {
    fn drop(&mut self) {
        self.0.attendance.send_modify(|attendance| attendance.left(clock::now()));
    }
}

#[derive(Debug, Default)]
struct Routes {
    table: RouteTable,
    /// The last generation that was reported to be in force.
    settled: u64,
    databases: HashMap<RouteName, Arc<DatabaseRoute>>,
    services: HashMap<RouteName, Arc<ServiceRoute>>,
    /// What keeps clients at their instances, once the agent has said it, and the key that it is made of.
    cookies: Option<Arc<Cookies>>,
    cookie_key: Option<String>,
    /// Sessions of databases are told to leave, whatever tables say.
    sends_away: bool,
    entrances: BTreeMap<SocketAddr, Arc<Entrance>>,
    /// Entrances whose address is closed, but not all of whose connections have ended.
    closed: Vec<Arc<Entrance>>,
    /// Routes of former tables whose connections may not all have ended.
    leaving: Vec<Arc<DatabaseRoute>>,
    wanted: Wanted,
    clashes: Vec<String>,
    listeners: Listeners,
}

/// Who serves a connection.
#[derive(Clone, Debug)]
pub(crate) enum Guest {
    /// Layer 4.
    Database(Arc<DatabaseRoute>),
    /// Services: layer 7, or what they speak instead.
    Service(Arc<Entrance>),
}

impl Plane {
    /// A proxy without routes that carries at most `limit` connections.
    pub(crate) fn new(limit: usize, state_file: StateFile, journal: Journal) -> Arc<Self> {
        let leaving = watch::Sender::new(false);
        let house = House {
            guests: Crowd::new(limit),
            handshakes: Crowd::new(HANDSHAKES_MOST.min(limit)),
            journal,
            leaving: leaving.subscribe(),
        };
        Arc::new(Self {
            routes: Mutex::default(),
            news: broadcast::Sender::new(NEWS_KEPT),
            attendance: watch::Sender::new(Attendance::new(clock::now())),
            listeners_changed: Notify::new(),
            state_file,
            room: Arc::new(Semaphore::new(limit)),
            limit,
            house,
            leaving,
        })
    }

    /// Puts the table of the last run in force.
    pub(crate) fn restore(self: &Arc<Self>, table: RouteTable) {
        self.swap(&mut self.lock(), table);
    }

    /// Puts an agent's table in force, or says why not.
    pub(crate) fn apply(self: &Arc<Self>, table: RouteTable) -> Option<FromProxy> {
        let mut routes = self.lock();
        let (generation, current) = (table.generation, routes.table.generation);
        if generation < current || (generation == current && table != routes.table) {
            let because = format!("generation {generation} is not newer than {current}, which is in force");
            return Some(FromProxy::Refused { generation, current, because });
        }
        if !self.is_leaving() {
            self.state_file.keep(table.clone());
        }
        self.swap(&mut routes, table);
        None
    }

    /// Makes and reads clients' cookies with this key from now on.
    pub(crate) fn set_cookies(&self, key: &str) {
        let mut routes = self.lock();
        routes.cookies = Cookies::new(key).map(Arc::new);
        routes.cookie_key = routes.cookies.is_some().then(|| key.to_owned());
        if routes.cookies.is_none() {
            tracing::warn!("what the agent sent is no key for cookies");
        }
        routes.share_cookies();
    }

    fn swap(self: &Arc<Self>, routes: &mut Routes, table: RouteTable) {
        routes.swap_targets(&table, &self.news, &self.attendance);
        routes.share_cookies();
        routes.swap_entrances(&table, &self.house);
        let (wanted, clashes) = listen::wanted(&table);
        let former = std::mem::replace(&mut routes.wanted, wanted);
        routes.clashes = clashes;
        routes.table = table;
        routes.swap_listeners(self, &former);
        tokio::spawn(self.clone().settle());
    }

    /// Waits until the table in force is obeyed everywhere, then says so.
    async fn settle(self: Arc<Self>) {
        let (generation, databases, services) = {
            let routes = self.lock();
            let leaving = routes.leaving.iter().cloned();
            let databases: Vec<_> = routes.databases.values().cloned().chain(leaving).collect();
            (routes.table.generation, databases, routes.services.values().cloned().collect::<Vec<_>>())
        };
        for route in &databases {
            route.cleared().await;
        }
        for route in &services {
            route.cleared().await;
            route.furnished().await;
        }
        self.listeners_settled().await;
        let mut routes = self.lock();
        if routes.table.generation != generation {
            return; // A newer table has come meanwhile; its own task speaks for both.
        }
        routes.settled = generation;
        routes.leaving.clear();
        drop(routes);
        self.tell(self.applied());
        databases.iter().for_each(|route| route.settled());
    }

    async fn listeners_settled(&self) {
        loop {
            let mut changed = std::pin::pin!(self.listeners_changed.notified());
            changed.as_mut().enable();
            if self.lock().listeners.are_settled() {
                return;
            }
            changed.await;
        }
    }

    /// A listener has been opened or has failed.
    pub(crate) fn listeners_changed(&self) {
        self.listeners_changed.notify_waiters();
        let settled = self.lock().is_settled();
        if settled {
            self.tell(self.applied());
        }
    }

    /// Passes an accepted connection to the route that listens there.
    pub(crate) fn receive(&self, address: &SocketAddr, stream: TcpStream) {
        let guest = self.lock().guest_at(address);
        match guest {
            Some(guest) => self.receive_for(guest, stream),
            // The address has just been taken out of the table.
            None => socket::reset_on_close(&stream),
        }
    }

    /// Passes an accepted connection to `guest`.
    pub(crate) fn receive_for(&self, guest: Guest, stream: TcpStream) {
        match (self.room.clone().try_acquire_owned(), guest) {
            (Ok(room), guest) => guest.receive(stream, room),
            (Err(_), Guest::Database(route)) => route.turn_away(stream, self.limit),
            (Err(_), Guest::Service(entrance)) => self.squeeze_in(entrance, stream),
        }
    }

    /// The proxy is full: connections that nobody uses make room, if there are any.
    fn squeeze_in(&self, entrance: Arc<Entrance>, stream: TcpStream) {
        if !self.house.guests.make_room() {
            return entrance.turn_away(stream, self.limit);
        }
        let (room, limit) = (self.room.clone(), self.limit);
        tokio::spawn(async move {
            match timeout(ROOM_LONGEST, room.acquire_owned()).await {
                Ok(Ok(room)) => entrance.receive(stream, room),
                Ok(Err(_)) | Err(_) => entrance.turn_away(stream, limit),
            }
        });
    }

    /// An agent has connected. As long as the result lives, what it tells is known here.
    pub(crate) fn attended(self: &Arc<Self>) -> Attended {
        self.attendance.send_modify(Attendance::came);
        Attended(self.clone())
    }

    /// The generation in force.
    pub(crate) fn generation(&self) -> u64 {
        self.lock().table.generation
    }

    /// What is told to an agent that connects, and to all when a table is in force.
    pub(crate) fn applied(&self) -> FromProxy {
        let routes = self.lock();
        FromProxy::Applied { generation: routes.settled, listen_errors: routes.listen_errors() }
    }

    /// What happened on all routes, by name.
    pub(crate) fn report(&self) -> ProxyReport {
        let routes = self.lock();
        let databases = routes.databases.values().map(|route| route.report());
        let services = routes.services.values().map(|route| route.report());
        let mut routes: Vec<_> = databases.chain(services).collect();
        routes.sort_by(|one, other| one.route.cmp(&other.route));
        ProxyReport { routes }
    }

    /// What the proxy tells on its own accord from now on.
    pub(crate) fn news(&self) -> broadcast::Receiver<FromProxy> {
        self.news.subscribe()
    }

    /// Returns when the table in force is obeyed everywhere.
    pub(crate) async fn obeyed(&self) {
        let mut news = self.news();
        loop {
            if self.lock().is_settled() {
                return;
            }
            // Whatever is heard, and also that something was missed: look again.
            drop(news.recv().await);
        }
    }

    fn tell(&self, news: FromProxy) {
        // No receiver: no agent is connected; it will ask.
        drop(self.news.send(news));
    }

    fn lock(&self) -> MutexGuard<'_, Routes> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Routes {
    /// Changes every route to what `table` says. Routes that are not in it lose their connections.
    fn swap_targets(
        &mut self,
        table: &RouteTable,
        news: &broadcast::Sender<FromProxy>,
        attendance: &watch::Sender<Attendance>,
    ) {
        let generation = table.generation;
        let mut databases = std::mem::take(&mut self.databases);
        let mut services = std::mem::take(&mut self.services);
        for route in &table.routes {
            let name = route.name.clone();
            match &route.target {
                RouteTarget::Database(target) => {
                    let target = &if self.sends_away { database::sent_away(target) } else { target.clone() };
                    let present = databases.remove(&name);
                    let new = || {
                        let (news, attendance) = (news.clone(), attendance.subscribe());
                        DatabaseRoute::new(route.name.clone(), generation, target.clone(), news, attendance)
                    };
                    self.databases.insert(name, database(present, generation, target, new));
                }
                RouteTarget::Service(target) => {
                    let present = services.remove(&name);
                    self.services.insert(name, service(present, &route.name, target, table.site.as_ref()));
                }
            }
        }
        for route in databases.into_values() {
            route.remove(generation);
            self.leaving.push(route);
        }
        services.into_values().for_each(|route| route.remove());
    }

    /// Puts the table's services behind the addresses where they listen. Connections of an address that is closed go on
    /// as long as their routes exist.
    fn swap_entrances(&mut self, table: &RouteTable, house: &House) {
        let mut former = std::mem::take(&mut self.entrances);
        for (address, names) in listen::shared(table) {
            let routes: Vec<_> = names.iter().filter_map(|name| self.services.get(name).cloned()).collect();
            let entrance = match former.remove(&address) {
                Some(entrance) => {
                    entrance.swap(&routes);
                    entrance
                }
                None => Entrance::new(&routes, house.clone()),
            };
            self.entrances.insert(address, entrance);
        }
        self.closed.extend(former.into_values());
        self.closed.retain(|entrance| Arc::strong_count(entrance) > 1);
        for entrance in &self.closed {
            let mut routes = entrance.routes();
            routes.retain(|route| self.services.values().any(|present| Arc::ptr_eq(present, route)));
            entrance.swap(&routes);
        }
    }

    /// The table in force is obeyed, and that was said.
    fn is_settled(&self) -> bool {
        self.settled == self.table.generation
    }

    fn share_cookies(&self) {
        self.services.values().for_each(|route| route.set_cookies(self.cookies.clone()));
    }

    fn swap_listeners(&mut self, plane: &Arc<Plane>, former: &Wanted) {
        let mut listeners = std::mem::take(&mut self.listeners);
        let heir = |address: &SocketAddr| former.get(address).and_then(|name| self.heir(name));
        listeners.change(plane, &self.wanted, heir);
        self.listeners = listeners;
    }

    fn guest_at(&self, address: &SocketAddr) -> Option<Guest> {
        let database = self.wanted.get(address).and_then(|name| self.databases.get(name));
        let service = || self.entrances.get(address).cloned().map(Guest::Service);
        database.cloned().map(Guest::Database).or_else(service)
    }

    /// Who serves the clients that still came to a closing address of this route: the route, wherever it listens now.
    fn heir(&self, name: &RouteName) -> Option<Guest> {
        let database = self.databases.get(name).cloned().map(Guest::Database);
        let serves = |entrance: &&Arc<Entrance>| entrance.routes().iter().any(|route| route.name() == name);
        database.or_else(|| self.entrances.values().find(serves).cloned().map(Guest::Service))
    }

    fn listen_errors(&self) -> Vec<String> {
        let named = |(address, reason): (SocketAddr, String)| {
            let route = self.wanted.get(&address).map_or("?", RouteName::as_str);
            format!("{route} {address}: {reason}")
        };
        self.clashes.iter().cloned().chain(self.listeners.failures().into_iter().map(named)).collect()
    }
}

impl Guest {
    fn receive(self, stream: TcpStream, room: OwnedSemaphorePermit) {
        match self {
            Self::Database(route) => route.receive(stream, room),
            Self::Service(route) => route.receive(stream, room),
        }
    }
}

fn database(
    present: Option<Arc<DatabaseRoute>>,
    generation: u64,
    target: &DatabaseTarget,
    new: impl FnOnce() -> DatabaseRoute,
) -> Arc<DatabaseRoute> {
    match present {
        Some(route) => {
            route.swap(generation, target.clone());
            route
        }
        None => Arc::new(new()),
    }
}

fn service(
    present: Option<Arc<ServiceRoute>>,
    name: &RouteName,
    target: &ServiceTarget,
    site: Option<&SiteName>,
) -> Arc<ServiceRoute> {
    let route = match present {
        Some(route) => {
            route.swap(target, site);
            route
        }
        None => Arc::new(ServiceRoute::new(name.clone(), target, site)),
    };
    route.attend();
    route
}
