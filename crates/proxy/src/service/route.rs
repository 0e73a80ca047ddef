//! One service route.

use std::sync::Arc;

use model::RouteName;
use model::routes::{RouteReport, ServiceTarget};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use crate::socket;

/// One service route of this node.
#[derive(Debug)]
pub(crate) struct ServiceRoute {
    name: RouteName,
}

impl ServiceRoute {
    pub(crate) fn new(name: RouteName, _target: &ServiceTarget) -> Self {
        Self { name }
    }

    pub(crate) fn swap(&self, _target: &ServiceTarget) {}

    pub(crate) fn remove(&self) {}

    pub(crate) async fn cleared(&self) {}

    pub(crate) fn receive(self: Arc<Self>, stream: TcpStream, _room: OwnedSemaphorePermit) {
        socket::reset_on_close(&stream);
    }

    pub(crate) fn turn_away(&self, stream: TcpStream, _limit: usize) {
        socket::reset_on_close(&stream);
    }

    pub(crate) fn report(&self) -> RouteReport {
        RouteReport {
            route: self.name.clone(),
            open: 0,
            parked: 0,
            accepted: 0,
            failed: 0,
            retried: 0,
            ejected: Vec::new(),
            panic: false,
        }
    }
}
