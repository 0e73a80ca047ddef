//! How long may each member on this node be reached? The kernel closes its port when nobody says so any more.

use std::collections::BTreeMap;
use std::time::Duration;

use model::leadership::Leadership;
use model::status::Server;
use model::time::Moment;
use model::{DatabaseName, NodeName};

use super::member::Own;
use super::{Agent, Command};
use crate::lease::{self, Confirmation};
use crate::view::{LEASE, Rules};

/// How often an open gate is renewed.
const RENEW_EVERY: Duration = Duration::from_millis(250);

impl Agent {
    pub(super) fn renew_gates(&mut self, commands: &mut Vec<Command>) {
        let names: Vec<DatabaseName> = self.own.keys().cloned().collect();
        for name in names {
            let until = self.open_until(&name);
            let now = self.now;
            let Some(own) = self.own.get_mut(&name) else { continue };
            let due = match (until, own.gate_until) {
                (None, None) => false,
                (None, Some(_)) | (Some(_), None) => true,
                // What is proved for less long than before (a standby is being promoted) counts at once.
                (Some(until), Some(current)) => {
                    until < current || (until > current && now >= own.gate_set_at + RENEW_EVERY)
                }
            };
            if due {
                own.gate_until = until;
                own.gate_set_at = now;
                commands.push(Command::Gate { database: name, until });
            }
        }
    }

    /// Until when the member may be reached; `None` closes its gate at once.
    fn open_until(&self, database: &DatabaseName) -> Option<Moment> {
        let own = self.own.get(database)?;
        let record = self.records.get(database).map(|stored| &stored.value)?;
        match own.visible_server().as_ref() {
            // It may be out of recovery long before its agent sees it, above all when the machine stood still meanwhile.
            Server::Standby(_) if own.is_being_promoted() => self.proved_until(database, own, record),
            Server::Standby(_) => Some(self.now + LEASE),
            Server::Primary(_) | Server::Sick { primary: true, .. } => {
                let tenured = own.durable.tenure.as_ref().is_some_and(|tenure| tenure.term == record.term);
                tenured.then(|| self.proved_until(database, own, record)).flatten()
            }
            // Not knowing is no reason to cut off a member that was reachable: what is proved runs out by itself.
            Server::Unknown => own.gate_until.filter(|until| *until > self.now),
            Server::Empty
            | Server::Stopped { .. }
            | Server::Busy { .. }
            | Server::Sick { primary: false, .. } => None,
        }
    }

    /// Until when it is proved that this member is the primary of `record`.
    fn proved_until(&self, database: &DatabaseName, own: &Own, record: &Leadership) -> Option<Moment> {
        if own.durable.promised > record.term {
            return None;
        }
        let rules = Rules::of(self.system.databases.get(database)?);
        let confirmations: BTreeMap<NodeName, Confirmation> = self
            .peers
            .iter()
            .filter_map(|(name, peer)| Some((name.clone(), peer.confirmation(database)?)))
            .collect();
        let until = lease::valid_until(&rules, record, &self.me, &confirmations, &own.received, own.read)?;
        // A lease that has run out is not closed again and again: the kernel has done it.
        (until > self.now).then_some(until)
    }

    /// Whether this node's member is open as a primary now: for the routes of this node.
    pub(super) fn holds_lease(&self, database: &DatabaseName) -> bool {
        self.own.get(database).and_then(|own| own.gate_until).is_some_and(|until| until > self.now)
    }

    /// Whether a primary of this node is closed until something confirms that it leads.
    pub(super) fn lacks_lease(&self) -> bool {
        let leads = |own: &Own| {
            own.durable.tenure.is_some() && matches!(own.visible_server().as_ref(), Server::Primary(_))
        };
        self.own.iter().any(|(database, own)| leads(own) && !self.holds_lease(database))
    }
}
