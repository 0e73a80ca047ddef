//! The hand on the kernel gate. Renewing is a netlink message of some microseconds, done where the decision is made.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use decide::agent::Input;
use effects::network::gate::{Gate, GateError, Protection};
use model::DatabaseName;
use model::system::System;
use model::time::Moment;

use super::{Inputs, Shared};

/// The nftables table of this node's gate.
const TABLE: &str = "mainstay_gate";

/// Time between two attempts to install a gate that is missing or damaged.
const REINSTALL_PAUSE: Duration = Duration::from_millis(500);

/// This node's gate, if the machine allows one.
pub(super) struct GateKeeper {
    ports: BTreeMap<DatabaseName, u16>,
    gate: Option<Arc<Gate>>,
    repairs: tokio::sync::mpsc::Sender<()>,
}

impl GateKeeper {
    pub(super) async fn start(shared: &Shared, system: &System) -> Self {
        let ports: BTreeMap<DatabaseName, u16> =
            system.databases_on(&shared.me).map(|(name, database)| (name.clone(), database.port)).collect();
        let guarded: BTreeSet<u16> = ports.values().copied().collect();
        let gate = match Gate::probe() {
            Protection::Full if guarded.is_empty() => None,
            Protection::Full => install(&guarded, &shared.inputs).await,
            missing @ Protection::Missing { .. } => {
                if !guarded.is_empty() {
                    shared.inputs.send(tell(Some(missing.to_string())));
                }
                None
            }
        };
        let (repairs, wanted) = tokio::sync::mpsc::channel(1);
        if gate.is_some() {
            tokio::spawn(repair(wanted, guarded, shared.inputs.clone()));
        }
        Self { ports, gate, repairs }
    }

    /// Keeps the gate to a database's member open until this moment, or closes it.
    pub(super) fn set(&self, database: &DatabaseName, until: Option<Moment>) {
        let (Some(gate), Some(port)) = (&self.gate, self.ports.get(database)) else { return };
        let result = match until {
            Some(until) => gate.renew_until(*port, until).map(|_| ()),
            None => gate.close(*port),
        };
        if let Err(error) = result {
            tracing::warn!(%error, %database, "the gate could not be moved");
            if matches!(error, GateError::Damaged { .. }) {
                let _ = self.repairs.try_send(());
            }
        }
    }

    /// Guards the ports of a changed system file.
    pub(super) fn cover(&mut self, system: &System) {
        for (name, database) in &system.databases {
            if let Some(port) = self.ports.get_mut(name) {
                *port = database.port;
            }
        }
    }
}

fn tell(because: Option<String>) -> Input {
    Input::Missing { part: "gate".to_owned(), because }
}

async fn install(guarded: &BTreeSet<u16>, inputs: &Inputs) -> Option<Arc<Gate>> {
    match Gate::install(TABLE, guarded).await {
        Ok(gate) => {
            inputs.send(tell(None));
            Some(Arc::new(gate))
        }
        Err(error) => {
            inputs.send(tell(Some(format!("the kernel gate before the database's port: {error}"))));
            None
        }
    }
}

/// Puts a gate that somebody else damaged in place again; the next renewals then open it.
async fn repair(mut wanted: tokio::sync::mpsc::Receiver<()>, guarded: BTreeSet<u16>, inputs: Inputs) {
    while wanted.recv().await.is_some() {
        drop(install(&guarded, &inputs).await);
        tokio::time::sleep(REINSTALL_PAUSE).await;
    }
}
