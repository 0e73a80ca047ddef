//! One service route: its balancer and its instances' connections, shared by all requests.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::Response;
use hyper::header::{HeaderMap, HeaderValue};
use model::routes::{InstanceRouteState, RouteReport, ServiceTarget, Trial};
use model::system::traffic::Traffic;
use model::system::{Carriage, Health, Limits, Protocol};
use model::time::Moment;
use model::{RouteName, SiteName};
use rustls::sign::CertifiedKey;
use tokio::sync::Notify;

use super::answer::{self, Body};
use super::entrance::{Door, Entrance};
use super::furnishing::Furnishing;
use super::guarded::Patience;
use super::line::Line;
use super::probe;
use super::trust::Trust;
use super::upstream::Upstream;
use crate::core::service::sticky::{self, Cookies};
use crate::core::service::{Balancer, Choice, Endpoint, Failure, Key, Wish};
use crate::crowd::Place;
use crate::{clock, dice};

/// A connection that takes back so many requests more than it lets be answered ends: each costs an instance a connection
/// ("rapid reset").
const TAKEN_BACK_MOST: u64 = 100;

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
    /// Requests that could be written to the access log.
    asked: AtomicU64,
    /// It is in no table any more.
    removed: AtomicBool,
}

#[derive(Debug)]
struct Shared {
    service: String,
    health_path: Option<String>,
    balancer: Balancer,
    cookies: Option<Arc<Cookies>>,
    /// Instances of a release that is being tried, with their part of all requests.
    trial: Option<Trial>,
    upstreams: HashMap<Key, Arc<Upstream>>,
    /// Instances of former tables whose connections may not all have ended.
    leaving: Vec<Arc<Upstream>>,
    protocol: Protocol,
    send_proxy_protocol: bool,
    /// How instances prove that they are such, where they speak TLS.
    trust: Option<Arc<Trust>>,
    furnishing: Furnishing,
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
    /// The routes that it may ask.
    routes: Vec<Arc<ServiceRoute>>,
    pub(super) client: IpAddr,
    pub(super) is_secure: bool,
    pub(super) limits: Limits,
    pub(super) patience: Patience,
    pub(super) entrance: Arc<Entrance>,
    pub(super) place: Place,
    /// The connection itself while it rests.
    resting: Mutex<Option<Line>>,
    /// Requests that were answered, and such that the client took back before.
    answered: AtomicU64,
    taken_back: AtomicU64,
}

/// A request until its answer begins. Dropped before, it was taken back by its client.
pub(super) struct Question(Option<Arc<Visit>>);

impl ServiceRoute {
    pub(crate) fn new(name: RouteName, target: &ServiceTarget, site: Option<&SiteName>) -> Self {
        let mut shared = Shared {
            service: target.service.to_string(),
            health_path: target.health_path.clone(),
            balancer: Balancer::new(target, site, clock::now()),
            cookies: None,
            trial: target.trial.clone(),
            upstreams: HashMap::new(),
            leaving: Vec::new(),
            protocol: target.protocol,
            send_proxy_protocol: target.send_proxy_protocol,
            trust: target.tls.as_ref().map(|tls| Arc::new(Trust::new(tls, target.protocol))),
            furnishing: Furnishing::default(),
        };
        shared.match_upstreams();
        shared.furnishing.take_over(&target.carriage);
        Self {
            name,
            shared: Mutex::new(shared),
            open: AtomicU64::new(0),
            room: Notify::new(),
            asked: AtomicU64::new(0),
            removed: AtomicBool::new(false),
        }
    }

    /// Puts a new table in force for every request from now on. Connections to instances that are gone are closed, no
    /// other one.
    pub(crate) fn swap(&self, target: &ServiceTarget, site: Option<&SiteName>) {
        let mut shared = self.lock();
        shared.service = target.service.to_string();
        shared.health_path.clone_from(&target.health_path);
        shared.balancer.swap(target, site, clock::now());
        shared.speak(target);
        shared.send_proxy_protocol = target.send_proxy_protocol;
        shared.trial.clone_from(&target.trial);
        shared.match_upstreams();
        shared.furnishing.take_over(&target.carriage);
        drop(shared);
        self.room.notify_one();
    }

    /// What keeps clients at their instances, where the file asks for it.
    pub(crate) fn set_cookies(&self, cookies: Option<Arc<Cookies>>) {
        self.lock().cookies = cookies;
    }

    /// The route is not in the table any more: its entrances end, and nobody is probed for it.
    pub(crate) fn remove(&self) {
        self.removed.store(true, Ordering::Relaxed);
    }

    /// Its name in the system file.
    pub(crate) fn name(&self) -> &RouteName {
        &self.name
    }

    /// How it speaks with its clients.
    pub(crate) fn carriage(&self) -> Arc<Carriage> {
        self.lock().furnishing.carriage.clone()
    }

    /// What its instances speak.
    pub(crate) fn protocol(&self) -> Protocol {
        self.lock().protocol
    }

    /// Whether its instances want to hear of each connection's client first.
    pub(super) fn sends_proxy_protocol(&self) -> bool {
        self.lock().send_proxy_protocol
    }

    /// Its certificate.
    pub(super) fn certificate(&self) -> Option<Arc<CertifiedKey>> {
        self.lock().furnishing.shown().map(|shown| shown.key.clone())
    }

    /// Whether the next request is written to the access log; `None`: not even if it fails.
    pub(super) fn samples(&self) -> Option<bool> {
        let every = u64::from(self.lock().furnishing.carriage.access_log?);
        Some(self.asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(every))
    }

    /// Returns when the route's files have been read.
    pub(crate) async fn furnished(&self) {
        let (furnishing, trust) = {
            let shared = self.lock();
            (shared.furnishing.clone(), shared.trust.clone())
        };
        furnishing.looked().await;
        if let Some(trust) = trust {
            trust.looked().await;
        }
    }

    /// What a client is told when no instance can answer.
    pub(super) fn unavailable(&self, sentence: &str) -> Response<Body> {
        match self.lock().furnishing.page() {
            Some(page) => answer::maintenance((*page).clone()),
            None => answer::plain(hyper::StatusCode::SERVICE_UNAVAILABLE, sentence),
        }
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
            troubles: shared.troubles(),
            certificate: shared.furnishing.shown().map(|shown| shown.report.clone()),
            instances: shared.balancer.tallies(),
        }
    }

    /// Counts a request.
    pub(super) fn request(&self) {
        self.lock().balancer.request(clock::now());
    }

    /// Chooses an instance.
    pub(super) fn choose(self: &Arc<Self>, wish: &Wish<'_>) -> Chosen {
        let mut shared = self.lock();
        let (now, others) = (clock::now(), shared.not_its_turn(wish));
        let choice = match others.is_empty() {
            true => shared.balancer.choose(wish, now, dice::draw()),
            // Whoever's turn it is may be unable to: then the others are better than nobody.
            false => match shared.balancer.choose(&Wish { avoid: &others, ..*wish }, now, dice::draw()) {
                Choice::Nobody => shared.balancer.choose(wish, now, dice::draw()),
                choice @ (Choice::Instance(_) | Choice::Full) => choice,
            },
        };
        let pick = match choice {
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
    pub(super) fn new_cookie(&self, stay: Option<Key>, by: Key, is_secure: bool) -> Option<HeaderValue> {
        let shared = self.lock();
        let (name, cookies) = (shared.balancer.traffic().sticky.as_ref()?, shared.cookies.as_ref()?);
        if stay.is_some_and(|stay| stay == by || shared.balancer.is_fit(stay)) {
            return None;
        }
        let (_, endpoint) = shared.balancer.instances().find(|(key, _)| *key == by)?;
        let value = cookies.seal(&shared.service, &endpoint.id, dice::nonce())?;
        // A client that came by TLS never shows it to who listens on a line without.
        let secure = if is_secure { "; Secure" } else { "" };
        format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax{secure}").parse().ok()
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

    /// Asks the instances that nobody supervises, each for as long as it is in the table.
    pub(crate) fn attend(self: &Arc<Self>) {
        for key in self.lock().balancer.unattended() {
            tokio::spawn(probe::attend(self.clone(), key));
        }
    }

    /// Whom to ask, and what, of an instance that nobody supervises; `None` when it is not asked any more.
    pub(super) fn question(&self, key: Key) -> Option<(Arc<Upstream>, Health)> {
        if self.removed.load(Ordering::Relaxed) {
            return None;
        }
        let shared = self.lock();
        let health = shared.balancer.question(key)?.clone();
        Some((shared.upstreams.get(&key)?.clone(), health))
    }

    /// What it answered.
    pub(super) fn answered(&self, key: Key, answer: Result<(), String>) {
        self.lock().balancer.answered(key, answer, clock::now());
        self.room.notify_one();
    }

    /// When the instance is to be probed next; `None` when it need not be.
    pub(super) fn probe_at(&self, key: Key) -> Option<Moment> {
        if self.removed.load(Ordering::Relaxed) {
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
    /// Takes over what instances speak; connections that speak otherwise serve no further request.
    fn speak(&mut self, target: &ServiceTarget) {
        let is_same = match (&self.trust, &target.tls) {
            (Some(trust), Some(tls)) => trust.is_of(tls, target.protocol),
            (None, None) => self.protocol == target.protocol,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if !is_same {
            self.protocol = target.protocol;
            self.trust = target.tls.as_ref().map(|tls| Arc::new(Trust::new(tls, target.protocol)));
            self.retire_all();
        }
    }

    /// What the route lacks although it serves.
    fn troubles(&self) -> Vec<String> {
        let mut troubles = self.furnishing.troubles();
        let authorities = self.trust.as_ref().and_then(|trust| trust.trouble());
        troubles.extend(authorities.map(|why| format!("TLS to instances: {why}")));
        let mut distrusted: Vec<String> = self
            .upstreams
            .values()
            .filter(|upstream| !upstream.is_cut())
            .filter_map(|upstream| Some(format!("TLS to {}: {}", upstream.id, upstream.distrust()?)))
            .collect();
        distrusted.sort();
        troubles.extend(distrusted);
        troubles
    }

    /// No connection of now serves another request.
    fn retire_all(&mut self) {
        for upstream in self.upstreams.drain().map(|(_, upstream)| upstream) {
            upstream.retire();
            self.leaving.push(upstream);
        }
    }

    /// While a release is tried: the instances that do not get this request, because it is the other ones' turn. A
    /// request that is repeated may go to any, a client with a cookie stays where it is.
    fn not_its_turn(&self, wish: &Wish<'_>) -> Vec<Key> {
        let is_new = wish.avoid.is_empty() && wish.stay.is_none();
        let Some(trial) = self.trial.as_ref().filter(|_| is_new) else { return vec![] };
        let tried = dice::draw() % 1000 < u64::from(trial.share);
        let is_other = |endpoint: &Endpoint| trial.instances.contains(&endpoint.id) != tried;
        let takes = |endpoint: &Endpoint| !is_other(endpoint) && endpoint.state == InstanceRouteState::Ready;
        // An instance that is still starting must not get a request only because it is its turn.
        if !self.balancer.instances().any(|(_, endpoint)| takes(endpoint)) {
            return vec![];
        }
        let others = self.balancer.instances().filter(|(_, endpoint)| is_other(endpoint));
        others.map(|(key, _)| key).collect()
    }

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
            let upstream = usable
                .unwrap_or_else(|| Arc::new(Upstream::new(endpoint, self.protocol, self.trust.clone())));
            tell(&upstream, endpoint);
            self.upstreams.insert(key, upstream);
        }
        for upstream in former.into_values() {
            upstream.retire();
            self.leaving.push(upstream);
        }
    }
}

fn tell(upstream: &Upstream, endpoint: &Endpoint) {
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

impl Visit {
    pub(super) fn new(
        door: &Door,
        from: SocketAddr,
        is_secure: bool,
        entrance: Arc<Entrance>,
        place: Place,
    ) -> Self {
        let routes = door.routes();
        for route in &routes {
            route.open.fetch_add(1, Ordering::Relaxed);
        }
        let (limits, patience) = (door.limits, door.patience());
        let client = from.ip().to_canonical();
        let (resting, answered, taken_back) = Default::default();
        Self { routes, client, is_secure, limits, patience, entrance, place, resting, answered, taken_back }
    }

    /// Keeps a connection on which nothing is asked.
    pub(super) fn lay_to_rest(&self, line: Option<Line>) {
        *self.resting() = line;
    }

    /// Takes the connection if it rests.
    pub(super) fn wake(&self) -> Option<Line> {
        self.resting().take()
    }

    fn resting(&self) -> MutexGuard<'_, Option<Line>> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Question {
    pub(super) fn new(visit: Arc<Visit>) -> Self {
        Self(Some(visit))
    }

    pub(super) fn answered(mut self) {
        if let Some(visit) = self.0.take() {
            visit.answered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        let Some(visit) = &self.0 else { return };
        let taken_back = visit.taken_back.fetch_add(1, Ordering::Relaxed) + 1;
        if taken_back >= TAKEN_BACK_MOST + visit.answered.load(Ordering::Relaxed) {
            visit.place.evict();
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        for route in &self.routes {
            route.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
