//! One database route: its admission state shared by its sessions, and the view they follow.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::RouteName;
use model::routes::{DatabaseEndpoint, DatabaseRouteState, DatabaseTarget, FromProxy, RouteReport};
use tokio::net::TcpStream;
use tokio::sync::{Notify, OwnedSemaphorePermit, broadcast, watch};

use super::visit;
use crate::core::database::answer::Fatal;
use crate::core::database::{Admission, Attendance, ParkFull, View};
use crate::{clock, dice, farewell};

/// One database route of this node.
#[derive(Debug)]
pub(crate) struct DatabaseRoute {
    name: RouteName,
    admission: Mutex<Admission>,
    view: watch::Sender<Arc<View>>,
    left: Notify,
    news: broadcast::Sender<FromProxy>,
    attendance: watch::Receiver<Attendance>,
}

/// A place on a member, from the attempt to connect until both sockets are closed.
#[derive(Debug)]
pub(super) struct Seat {
    route: Arc<DatabaseRoute>,
    endpoint: DatabaseEndpoint,
}

/// A place among the waiting clients.
#[derive(Debug)]
pub(super) struct Bench {
    route: Arc<DatabaseRoute>,
}

impl DatabaseRoute {
    pub(crate) fn new(
        name: RouteName,
        generation: u64,
        target: DatabaseTarget,
        news: broadcast::Sender<FromProxy>,
        attendance: watch::Receiver<Attendance>,
    ) -> Self {
        let admission = Admission::new(generation, target, clock::now());
        let view = watch::Sender::new(admission.view().clone());
        Self { name, admission: Mutex::new(admission), view, left: Notify::new(), news, attendance }
    }

    /// Puts a new table in force: from here on no seat is given that it forbids, and sessions it forbids end.
    pub(crate) fn swap(&self, generation: u64, target: DatabaseTarget) {
        let mut admission = self.lock();
        admission.swap(generation, target, clock::now());
        // Within the lock, so that views are seen in the order of tables.
        self.view.send_replace(admission.view().clone());
    }

    /// The route is not in the table any more: nobody may connect and all sessions end.
    pub(crate) fn remove(&self, generation: u64) {
        let mut target = self.lock().view().target.clone();
        target.state = DatabaseRouteState::Parked { because: "the route was removed".to_owned() };
        target.park_limit_ms = 0;
        self.swap(generation, target);
    }

    /// Takes over an accepted connection.
    pub(crate) fn receive(self: Arc<Self>, client: TcpStream, room: OwnedSemaphorePermit) {
        self.lock().count(|counters| counters.accepted += 1);
        tokio::spawn(visit::serve(client, self, room));
    }

    /// Turns a connection away because the proxy is full.
    pub(crate) fn turn_away(&self, client: TcpStream, limit: usize) {
        self.lock().count(|counters| {
            (counters.accepted, counters.failed) = (counters.accepted + 1, counters.failed + 1)
        });
        tokio::spawn(farewell::say(client, Fatal::too_many_connections(limit).encode()));
    }

    /// Returns when no connection is left that the table in force forbids.
    pub(crate) async fn cleared(&self) {
        loop {
            let mut left = std::pin::pin!(self.left.notified());
            left.as_mut().enable();
            if self.lock().forbidden() == 0 {
                return;
            }
            left.await;
        }
    }

    /// The agent has been told that the table is in force.
    pub(crate) fn settled(&self) {
        self.lock().settled();
        self.tell_drained();
    }

    pub(crate) fn report(&self) -> RouteReport {
        let admission = self.lock();
        let counters = admission.counters();
        RouteReport {
            route: self.name.clone(),
            open: admission.open(),
            parked: u64::from(admission.parked()),
            accepted: counters.accepted,
            failed: counters.failed,
            retried: counters.retried,
            ejected: Vec::new(),
            panic: false,
            troubles: Vec::new(),
            certificate: None,
            instances: Vec::new(),
        }
    }

    pub(super) fn views(&self) -> watch::Receiver<Arc<View>> {
        self.view.subscribe()
    }

    pub(super) fn attendance(&self) -> watch::Receiver<Attendance> {
        self.attendance.clone()
    }

    pub(super) fn take_seat(self: &Arc<Self>, avoid: &[DatabaseEndpoint]) -> Option<Seat> {
        let endpoint = self.lock().take_seat(avoid, dice::draw())?;
        Some(Seat { route: self.clone(), endpoint })
    }

    pub(super) fn park(self: &Arc<Self>) -> Result<Bench, ParkFull> {
        self.lock().park()?;
        Ok(Bench { route: self.clone() })
    }

    pub(super) fn count_failed(&self) {
        self.lock().count(|counters| counters.failed += 1);
    }

    pub(super) fn count_retried(&self) {
        self.lock().count(|counters| counters.retried += 1);
    }

    pub(super) fn count_drained(&self, idle: bool) {
        self.lock().count_drained(idle);
    }

    fn leave(&self, endpoint: &DatabaseEndpoint) {
        let mut admission = self.lock();
        admission.leave_seat(endpoint);
        let clear = admission.forbidden() == 0;
        drop(admission);
        if clear {
            self.left.notify_waiters();
            self.tell_drained();
        }
    }

    fn tell_drained(&self) {
        let mut admission = self.lock();
        if let Some(drained) = admission.take_drained() {
            let generation = admission.view().generation;
            let (route, idle, cut) = (self.name.clone(), drained.idle, drained.cut);
            // No receiver: no agent is connected, and nobody needs to know.
            drop(self.news.send(FromProxy::Drained { generation, route, idle, cut }));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Admission> {
        // Nothing panics while it holds the lock; a poisoned one would still hold consistent counts.
        self.admission.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    pub(super) fn endpoint(&self) -> &DatabaseEndpoint {
        &self.endpoint
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.route.leave(&self.endpoint);
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.route.lock().unpark();
    }
}
