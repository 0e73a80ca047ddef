//! What becomes of the routes in force when another process takes over, or has been taken over from.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use model::routes::RouteTable;
use tokio::net::TcpListener;

use super::Plane;
use crate::listeners::Stance;
use crate::succession::Estate;

impl Plane {
    /// What a successor needs to go on where this proxy is.
    pub(crate) fn estate(&self) -> io::Result<Estate> {
        let routes = self.lock();
        let listeners = routes.listeners.descriptors()?;
        Ok(Estate { table: routes.table.clone(), cookies: routes.cookie_key.clone(), listeners })
    }

    /// Puts what the proxy before this one had in force, but leaves its clients to it for now.
    pub(crate) fn inherit(self: &Arc<Self>, estate: Estate) -> io::Result<()> {
        let listeners: io::Result<BTreeMap<SocketAddr, TcpListener>> = estate
            .listeners
            .into_iter()
            .map(|(address, descriptor)| {
                let listener = std::net::TcpListener::from(descriptor);
                listener.set_nonblocking(true)?;
                Ok((address, TcpListener::from_std(listener)?))
            })
            .collect();
        {
            let mut routes = self.lock();
            routes.listeners.take(Stance::Holding);
            routes.listeners.inherit(listeners?);
        }
        if let Some(key) = estate.cookies {
            self.set_cookies(&key);
        }
        self.restore(estate.table);
        Ok(())
    }

    /// The routes in force.
    pub(crate) fn table(&self) -> RouteTable {
        self.lock().table.clone()
    }

    /// Clients who come are served here from now on.
    pub(crate) fn serve(self: &Arc<Self>) {
        self.leaving.send_replace(false);
        let mut routes = self.lock();
        routes.listeners.take(Stance::Accepting);
        // Addresses that could not be opened while others had them.
        let wanted = routes.wanted.clone();
        routes.swap_listeners(self, &wanted);
        self.state_file.keep(routes.table.clone());
    }

    /// Clients who come are left to another process. Requests under way are answered, each as the last one of its
    /// connection; sessions go on.
    pub(crate) fn leave(&self) {
        self.lock().listeners.take(Stance::Holding);
        self.leaving.send_replace(true);
    }

    /// Never serves new clients again.
    pub(crate) fn release(&self) {
        self.lock().listeners.release();
    }

    /// Tells the sessions of databases to leave when they are idle.
    pub(crate) fn send_away(self: &Arc<Self>) {
        let mut routes = self.lock();
        routes.sends_away = true;
        let table = routes.table.clone();
        self.swap(&mut routes, table);
    }

    /// Connections that are left.
    pub(crate) fn connections(&self) -> usize {
        let in_use = self.limit - self.room.available_permits();
        // Upgraded ones have given their room back.
        in_use.max(self.house.guests.len())
    }

    pub(super) fn is_leaving(&self) -> bool {
        *self.leaving.borrow()
    }
}
