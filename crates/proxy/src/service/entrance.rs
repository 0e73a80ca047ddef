//! One place where service routes listen: the door through which clients come, and who they mean.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use model::system::{Limits, Protocol, SourceRange};
use rustls::ServerConfig;
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_rustls::TlsAcceptor;

use super::guarded::Patience;
use super::route::ServiceRoute;
use super::{answer, server, stream, tls};
use crate::core::service::directory::Directory;
use crate::crowd::Crowd;
use crate::farewell;
use crate::journal::Journal;

/// One place where service routes listen. Connections keep it, also when its address is closed.
#[derive(Debug)]
pub(crate) struct Entrance {
    door: watch::Sender<Arc<Door>>,
    acceptor: OnceLock<Option<Arc<ServerConfig>>>,
    house: House,
}

/// What all entrances of a proxy share.
#[derive(Clone, Debug)]
pub(crate) struct House {
    /// Connections of clients; those without a request under way make room when there is none.
    pub(crate) guests: Arc<Crowd>,
    /// Connections in the middle of a TLS handshake.
    pub(crate) handshakes: Arc<Crowd>,
    /// The access log.
    pub(crate) journal: Journal,
    /// Whether another process serves whoever comes from now on, so that connections end when they can.
    pub(crate) leaving: watch::Receiver<bool>,
}

/// The routes behind an entrance, as the table in force has them. None: it is shut, and connections end.
#[derive(Debug, Default)]
pub(super) struct Door {
    routes: Directory<Arc<ServiceRoute>>,
    protocol: Protocol,
    is_secure: bool,
    pub(super) limits: Limits,
    /// Who begins connections with a PROXY header.
    balancers: Vec<SourceRange>,
}

impl Entrance {
    pub(crate) fn new(routes: &[Arc<ServiceRoute>], house: House) -> Arc<Self> {
        let door = watch::Sender::new(Arc::new(Door::new(routes)));
        Arc::new(Self { door, acceptor: OnceLock::new(), house })
    }

    /// Puts new routes in force for every request from now on; none shuts the entrance.
    pub(crate) fn swap(&self, routes: &[Arc<ServiceRoute>]) {
        self.door.send_replace(Arc::new(Door::new(routes)));
    }

    /// The routes behind it, each once.
    pub(crate) fn routes(&self) -> Vec<Arc<ServiceRoute>> {
        self.door.borrow().routes()
    }

    /// Takes over an accepted connection.
    pub(crate) fn receive(self: Arc<Self>, stream: TcpStream, room: OwnedSemaphorePermit) {
        let Ok(peer) = stream.peer_addr() else { return };
        match self.door().protocol {
            Protocol::Tcp => drop(tokio::spawn(stream::serve(stream, peer, self, room))),
            Protocol::Http | Protocol::H2 => drop(tokio::spawn(server::serve(stream, peer, self, room))),
        }
    }

    /// Turns a connection away because the proxy is full.
    pub(crate) fn turn_away(&self, stream: TcpStream, limit: usize) {
        let door = self.door();
        if let Some(route) = door.routes.values().next() {
            route.count_failed();
        }
        // A client that expects TLS or another protocol would not understand the words.
        if door.protocol != Protocol::Tcp && !door.is_secure {
            tokio::spawn(farewell::say(stream, answer::crowded(limit)));
        }
    }

    pub(super) fn door(&self) -> Arc<Door> {
        self.door.borrow().clone()
    }

    pub(super) fn house(&self) -> &House {
        &self.house
    }

    /// Returns when no route is left.
    pub(crate) async fn shut(&self) {
        let mut door = self.door.subscribe();
        // The entrance outlives its connections, so its door always tells.
        drop(door.wait_for(|door| door.routes.is_empty()).await);
    }

    /// What shakes hands here, if connections begin with that.
    pub(super) fn acceptor(self: &Arc<Self>) -> Option<TlsAcceptor> {
        let make = || {
            let made = tls::config(Arc::downgrade(self));
            made.inspect_err(|error| tracing::error!(%error, "TLS cannot be set up")).ok()
        };
        self.acceptor.get_or_init(make).clone().map(TlsAcceptor::from)
    }

    /// The certificate for a client that asks for `name`: that of a route for this host, else of any that has one.
    pub(super) fn certificate(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let door = self.door();
        let asked = name.into_iter().flat_map(|name| door.routes.for_host(name));
        asked.chain(door.routes.values()).find_map(|route| route.certificate())
    }
}

impl Door {
    /// What holds before a route is known is that of the first; the file lets no others share its place.
    fn new(routes: &[Arc<ServiceRoute>]) -> Self {
        let mut directory = Directory::default();
        for route in routes {
            let carriage = route.carriage();
            directory.add(&carriage.hosts, &carriage.path, route);
        }
        let Some(first) = routes.first() else { return Self::default() };
        let carriage = first.carriage();
        Self {
            routes: directory,
            protocol: first.protocol(),
            is_secure: carriage.tls.is_some(),
            limits: carriage.limits,
            balancers: carriage.proxy_protocol.clone(),
        }
    }

    /// Every route once.
    pub(super) fn routes(&self) -> Vec<Arc<ServiceRoute>> {
        let mut routes: Vec<Arc<ServiceRoute>> = Vec::new();
        for route in self.routes.values() {
            if !routes.iter().any(|known| Arc::ptr_eq(known, route)) {
                routes.push(route.clone());
            }
        }
        routes
    }

    /// The route for a request.
    pub(super) fn find(&self, host: Option<&str>, path: &str) -> Option<&Arc<ServiceRoute>> {
        self.routes.find(host, path)
    }

    /// The route for a connection about whose content nothing is known.
    pub(crate) fn only(&self) -> Option<&Arc<ServiceRoute>> {
        self.routes.values().next()
    }

    pub(super) fn is_secure(&self) -> bool {
        self.is_secure
    }

    /// Whether a connection from here begins with a PROXY header.
    pub(super) fn is_balancer(&self, peer: IpAddr) -> bool {
        self.balancers.iter().any(|range| range.contains(peer))
    }

    pub(super) fn patience(&self) -> Patience {
        Patience { head: self.limits.header_timeout, idle: self.limits.idle_timeout }
    }
}
