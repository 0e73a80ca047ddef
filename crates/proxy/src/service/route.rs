//! One service route: its balancer and its instances' connections, shared by all requests.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::RouteName;
use model::routes::{InstanceEndpoint, InstanceRouteState, RouteReport, ServiceTarget};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::upstream::Upstream;
use super::{answer, server};
use crate::core::service::{Balancer, Failure, Key};
use crate::{clock, dice, farewell};

/// One service route of this node.
#[derive(Debug)]
pub(crate) struct ServiceRoute {
    name: RouteName,
    shared: Mutex<Shared>,
    open: AtomicU64,
    removed: watch::Sender<bool>,
}

#[derive(Debug)]
struct Shared {
    service: String,
    balancer: Balancer,
    upstreams: HashMap<Key, Arc<Upstream>>,
    /// Instances of former tables whose connections may not all have ended.
    leaving: Vec<Arc<Upstream>>,
}

/// A request that counts as under way at an instance for as long as this lives.
#[derive(Debug)]
pub(super) struct Flight {
    route: Arc<ServiceRoute>,
    pub(super) key: Key,
}

/// A chosen instance.
pub(super) struct Chosen {
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
    pub(crate) fn new(name: RouteName, target: &ServiceTarget) -> Self {
        let mut shared = Shared {
            service: target.service.to_string(),
            balancer: Balancer::new(target),
            upstreams: HashMap::new(),
            leaving: Vec::new(),
        };
        shared.match_upstreams();
        Self { name, shared: Mutex::new(shared), open: AtomicU64::new(0), removed: watch::Sender::new(false) }
    }

    /// Puts a new table in force for every request from now on. Connections to instances that are gone are closed, no
    /// other one.
    pub(crate) fn swap(&self, target: &ServiceTarget) {
        let mut shared = self.lock();
        shared.service = target.service.to_string();
        shared.balancer.swap(target);
        shared.match_upstreams();
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
            parked: 0,
            accepted: counters.accepted,
            failed: counters.failed,
            retried: counters.retried,
            ejected: shared.balancer.ejected(),
            panic: shared.balancer.is_in_panic(),
        }
    }

    /// Counts a request.
    pub(super) fn request(&self) {
        self.lock().balancer.request(clock::now());
    }

    /// Chooses an instance that is not in `avoid`.
    pub(super) fn choose(self: &Arc<Self>, avoid: &[Key], repeatable: bool) -> Option<Chosen> {
        let mut shared = self.lock();
        let pick = shared.balancer.choose(avoid, repeatable, clock::now(), dice::draw())?;
        let upstream = shared.upstreams.get(&pick.key)?.clone();
        let flight = Flight { route: self.clone(), key: pick.key };
        Some(Chosen { flight, upstream, deadline: pick.deadline })
    }

    /// Takes the right to send a request once more.
    pub(super) fn may_repeat(&self, was_sent: bool) -> bool {
        self.lock().balancer.repeat(was_sent, clock::now())
    }

    pub(super) fn succeeded(&self, key: Key, taken: Duration) {
        self.lock().balancer.succeeded(key, taken);
    }

    pub(super) fn failed(&self, key: Key, failure: Failure) {
        self.lock().balancer.failed(key, failure, clock::now());
    }

    /// Counts an answer of the proxy's own; says why nobody could take the request.
    pub(super) fn count_failed(&self) -> String {
        let mut shared = self.lock();
        shared.balancer.failed_request();
        format!("Service {} cannot answer: {}.", shared.service, shared.balancer.why_nobody())
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

impl Drop for Flight {
    fn drop(&mut self) {
        self.route.lock().balancer.ended(self.key, clock::now());
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.route.open.fetch_sub(1, Ordering::Relaxed);
    }
}
