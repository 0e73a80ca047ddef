//! One service route: its balancer and its instances' connections, shared by all requests.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::header::{HeaderMap, HeaderValue};
use model::routes::{InstanceEndpoint, InstanceRouteState, RouteReport, ServiceTarget};
use model::system::traffic::Traffic;
use model::time::Moment;
use model::{RouteName, SiteName};
use tokio::net::TcpStream;
use tokio::sync::{Notify, OwnedSemaphorePermit, watch};

use super::upstream::Upstream;
use super::{answer, probe, server};
use crate::core::service::sticky::{self, Cookies};
use crate::core::service::{Balancer, Choice, Failure, Key, Wish};
use crate::{clock, dice, farewell};

/// Cookies of one name that are looked at: a client has one, somebody else may send any number.
const COOKIES_MOST: usize = 4;

/// One service route of this node.
#[derive(Debug)]
pub(crate) struct ServiceRoute {
    name: RouteName,
    shared: Mutex<Shared>,
    open: AtomicU64,
    /// Wakes a waiting request when an instance may have room for it.
    room: Notify,
    removed: watch::Sender<bool>,
}

#[derive(Debug)]
struct Shared {
    service: String,
    health_path: Option<String>,
    balancer: Balancer,
    cookies: Option<Arc<Cookies>>,
    upstreams: HashMap<Key, Arc<Upstream>>,
    /// Instances of former tables whose connections may not all have ended.
    leaving: Vec<Arc<Upstream>>,
}

/// A request that counts as under way at an instance for as long as this lives.
#[derive(Debug)]
pub(super) struct Flight {
    route: Arc<ServiceRoute>,
    pub(super) key: Key,
    is_tunnel: bool,
}

/// Who takes a request.
pub(super) enum Chosen {
    /// This instance.
    Instance(Destination),
    /// All instances are at their limits.
    Full,
    /// There is no instance.
    Nobody,
}

/// A request's place in the queue, for as long as this lives.
pub(super) struct Waiting {
    route: Arc<ServiceRoute>,
    /// How long it may wait.
    pub(super) longest: Duration,
}

/// A chosen instance.
pub(super) struct Destination {
    pub(super) flight: Flight,
    pub(super) upstream: Arc<Upstream>,
    /// How long to wait for it alone.
    pub(super) deadline: Duration,
}

/// A client's connection, counted as open for as long as this lives.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) route: Arc<ServiceRoute>,
    pub(super) client: IpAddr,
}

impl ServiceRoute {
    pub(crate) fn new(name: RouteName, target: &ServiceTarget, site: Option<&SiteName>) -> Self {
        let mut shared = Shared {
            service: target.service.to_string(),
            health_path: target.health_path.clone(),
            balancer: Balancer::new(target, site, clock::now()),
            cookies: None,
            upstreams: HashMap::new(),
            leaving: Vec::new(),
        };
        shared.match_upstreams();
        Self {
            name,
            shared: Mutex::new(shared),
            open: AtomicU64::new(0),
            room: Notify::new(),
            removed: watch::Sender::new(false),
        }
    }

    /// Puts a new table in force for every request from now on. Connections to instances that are gone are closed, no
    /// other one.
    pub(crate) fn swap(&self, target: &ServiceTarget, site: Option<&SiteName>) {
        let mut shared = self.lock();
        shared.service = target.service.to_string();
        shared.health_path.clone_from(&target.health_path);
        shared.balancer.swap(target, site, clock::now());
        shared.match_upstreams();
        drop(shared);
        self.room.notify_one();
    }

    /// What keeps clients at their instances, where the file asks for it.
    pub(crate) fn set_cookies(&self, cookies: Option<Arc<Cookies>>) {
        self.lock().cookies = cookies;
    }

    /// The route is not in the table any more: clients' connections end after the request under way.
    pub(crate) fn remove(&self) {
        self.removed.send_replace(true);
    }

    /// Returns when nothing is connected to instances that are gone.
    pub(crate) async fn cleared(&self) {
        let upstreams: Vec<_> = {
            let shared = self.lock();
            shared.upstreams.values().chain(&shared.leaving).cloned().collect()
        };
        for upstream in upstreams {
            upstream.cleared().await;
        }
        self.lock().leaving.clear();
    }

    /// Takes over an accepted connection.
    pub(crate) fn receive(self: Arc<Self>, stream: TcpStream, room: OwnedSemaphorePermit) {
        let Ok(peer) = stream.peer_addr() else { return };
        self.open.fetch_add(1, Ordering::Relaxed);
        let removed = self.removed.subscribe();
        let visit = Visit { route: self, client: peer.ip() };
        tokio::spawn(server::serve(stream, visit, removed, room));
    }

    /// Turns a connection away because the proxy is full.
    pub(crate) fn turn_away(&self, stream: TcpStream, limit: usize) {
        self.lock().balancer.failed_request();
        tokio::spawn(farewell::say(stream, answer::crowded(limit)));
    }

    pub(crate) fn report(&self) -> RouteReport {
        let shared = self.lock();
        let counters = shared.balancer.counters();
        RouteReport {
            route: self.name.clone(),
            open: self.open.load(Ordering::Relaxed),
            parked: u64::from(shared.balancer.waiting()),
            accepted: counters.accepted,
            failed: counters.failed,
            retried: counters.retried,
            ejected: shared.balancer.ejected().map(str::to_owned).collect(),
            panic: shared.balancer.is_in_panic(),
        }
    }

    /// Counts a request.
    pub(super) fn request(&self) {
        self.lock().balancer.request(clock::now());
    }

    /// Chooses an instance.
    pub(super) fn choose(self: &Arc<Self>, wish: &Wish<'_>) -> Chosen {
        let mut shared = self.lock();
        let pick = match shared.balancer.choose(wish, clock::now(), dice::draw()) {
            Choice::Instance(pick) => pick,
            Choice::Full => return Chosen::Full,
            Choice::Nobody => return Chosen::Nobody,
        };
        let Some(upstream) = shared.upstreams.get(&pick.key).cloned() else { return Chosen::Nobody };
        let flight = Flight { route: self.clone(), key: pick.key, is_tunnel: false };
        Chosen::Instance(Destination { flight, upstream, deadline: pick.deadline })
    }

    /// The instance at which the client of a request has been, by its cookie.
    pub(super) fn stay(&self, headers: &HeaderMap) -> Option<Key> {
        let shared = self.lock();
        let (name, cookies) = (shared.balancer.traffic().sticky.as_ref()?, shared.cookies.as_ref()?);
        let instances = || shared.balancer.instances().map(|(key, endpoint)| (key, endpoint.id.as_str()));
        sticky::values(headers, name)
            .take(COOKIES_MOST)
            .find_map(|value| cookies.open(&shared.service, value, instances()))
    }

    /// The cookie for a client that was at `stay` and has been answered by `by`; `None`: it keeps what it has. A client whose
    /// instance merely had too much to do, or failed one request, goes back to it.
    pub(super) fn new_cookie(&self, stay: Option<Key>, by: Key) -> Option<HeaderValue> {
        let shared = self.lock();
        let (name, cookies) = (shared.balancer.traffic().sticky.as_ref()?, shared.cookies.as_ref()?);
        if stay.is_some_and(|stay| stay == by || shared.balancer.is_fit(stay)) {
            return None;
        }
        let (_, endpoint) = shared.balancer.instances().find(|(key, _)| *key == by)?;
        let value = cookies.seal(&shared.service, &endpoint.id, dice::nonce())?;
        format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax").parse().ok()
    }

    /// Takes a place in the queue; `None` when that is full.
    pub(super) fn enter_queue(self: &Arc<Self>) -> Option<Waiting> {
        let mut shared = self.lock();
        let longest = shared.balancer.traffic().queue_wait;
        shared.balancer.enter_queue().then(|| Waiting { route: self.clone(), longest })
    }

    /// How requests are spread.
    pub(super) fn traffic<T>(&self, read: impl FnOnce(&Traffic) -> T) -> T {
        read(self.lock().balancer.traffic())
    }

    /// Takes the right to send a request once more that the instance `from` has had, to none of `avoid`.
    pub(super) fn may_repeat(&self, from: Key, avoid: &[Key]) -> bool {
        self.lock().balancer.repeat(from, avoid, clock::now())
    }

    pub(super) fn succeeded(&self, key: Key, taken: Duration) {
        self.lock().balancer.succeeded(key, taken, clock::now());
    }

    pub(super) fn failed(self: &Arc<Self>, key: Key, failure: Failure) {
        if self.lock().balancer.failed(key, failure, clock::now()) {
            tokio::spawn(probe::keep(self.clone(), key));
        }
    }

    /// When the instance is to be probed next; `None` when it need not be.
    pub(super) fn probe_at(&self, key: Key) -> Option<Moment> {
        if *self.removed.borrow() {
            return None;
        }
        self.lock().balancer.probe_at(key)
    }

    /// Begins a probe if it is due: whom to ask for which page.
    pub(super) fn begin_probe(&self, key: Key) -> Option<(Arc<Upstream>, Option<String>)> {
        let mut shared = self.lock();
        let upstream = shared.upstreams.get(&key)?.clone();
        shared.balancer.begin_probe(key, clock::now()).then(|| (upstream, shared.health_path.clone()))
    }

    pub(super) fn probed(&self, key: Key, answered: bool) {
        self.lock().balancer.probed(key, answered, clock::now());
        self.room.notify_one();
    }

    /// Counts an answer of the proxy's own; says why nobody could take the request.
    pub(super) fn count_failed(&self) -> String {
        let mut shared = self.lock();
        shared.balancer.failed_request();
        format!("Service {} cannot answer: {}.", shared.service, shared.balancer.why_nobody())
    }

    /// Counts a request that is refused because there is too much to do; says so.
    pub(super) fn count_refused(&self) -> String {
        let mut shared = self.lock();
        shared.balancer.failed_request();
        let limit = shared.balancer.traffic().limit.unwrap_or(0);
        let service = &shared.service;
        format!(
            "Service {service} is busy: every instance has the {limit} requests under way that it may have."
        )
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // Nothing panics while it holds the lock; a poisoned one would still hold consistent counts.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Makes the connections' state that of the balancer's instances.
    fn match_upstreams(&mut self) {
        let mut former = std::mem::take(&mut self.upstreams);
        for (key, endpoint) in self.balancer.instances() {
            let is_gone = endpoint.state == InstanceRouteState::Gone;
            let present = former.remove(&key);
            let usable = present.as_ref().filter(|upstream| is_gone || !upstream.is_cut()).cloned();
            if usable.is_none() {
                self.leaving.extend(present);
            }
            let upstream = usable.unwrap_or_else(|| Arc::new(Upstream::new(endpoint.address)));
            tell(&upstream, endpoint);
            self.upstreams.insert(key, upstream);
        }
        for upstream in former.into_values() {
            upstream.retire();
            self.leaving.push(upstream);
        }
    }
}

fn tell(upstream: &Upstream, endpoint: &InstanceEndpoint) {
    match endpoint.state {
        InstanceRouteState::Ready | InstanceRouteState::NotReady => upstream.welcome(),
        InstanceRouteState::Draining => upstream.retire(),
        InstanceRouteState::Gone => upstream.cut(),
    }
}

impl Flight {
    /// The request has become a tunnel: it still tells how much the instance has to do, but not for how long it will, so
    /// it does not count against the limit.
    pub(super) fn into_tunnel(mut self) -> Self {
        self.is_tunnel = true;
        self.route.lock().balancer.becomes_tunnel(self.key);
        self.route.room.notify_one();
        self
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut shared = self.route.lock();
        shared.balancer.ended(self.key, self.is_tunnel);
        let waited_for = shared.balancer.waiting() > 0;
        drop(shared);
        if waited_for {
            self.route.room.notify_one();
        }
    }
}

impl Waiting {
    /// Waits until it is this request's turn to look whether there is room.
    pub(super) async fn turn(&self) {
        self.route.room.notified().await;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut shared = self.route.lock();
        shared.balancer.leave_queue();
        let more = shared.balancer.waiting() > 0;
        drop(shared);
        // There may be room for more than one.
        if more {
            self.route.room.notify_one();
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.route.open.fetch_sub(1, Ordering::Relaxed);
    }
}
