//! A peer that runs in the lab: up, struck, asked, down.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lab::drill::{self, Change, Options, Run, Step, SystemView};
use lab::{ClientRuntime, Lab};
use model::SystemName;

use crate::Outcome;
use crate::layout;
use crate::peer::Peer;
use crate::raise::{Software, in_words, raise, remove};
use crate::variant::Fault;

/// How long a peer may take to be whole: after its start, and after a fault.
const PATIENCE: Duration = Duration::from_secs(150);

/// A peer that is up.
pub(crate) struct Field {
    peer: Peer,
    name: SystemName,
    lab: Arc<Mutex<Lab>>,
    /// There until the end.
    clients: Option<ClientRuntime>,
    /// From the first act to full redundancy.
    pub(crate) set_up: Duration,
}

impl Field {
    /// Brings a peer up and waits until it is whole.
    pub(crate) async fn up(name: SystemName, peer: Peer, software: &Software) -> Outcome<Self> {
        let begun = Instant::now();
        let (described, same, software) = (name.clone(), peer.clone(), software.clone());
        let lab = Arc::new(Mutex::new(blocking(move || raise(&described, same, software)).await?));
        let held = lab.clone();
        let clients = blocking(move || lock(&held).client_runtime().map_err(|e| in_words(&e))).await?;
        let clients = Some(clients);
        let mut field = Self { peer, name, lab, clients, set_up: Duration::ZERO };
        field.wait_until_whole().await?;
        field.set_up = begun.elapsed();
        Ok(field)
    }

    /// One run of a fault.
    pub(crate) async fn measure(&self, fault: Fault) -> Outcome<Run> {
        self.wait_until_whole().await?;
        let options = Options {
            lease: self.peer.lease(),
            patience: PATIENCE,
            // With default timers both start a dead postmaster again where it is; that is as good.
            primary: (fault == Fault::Postmaster).then_some(Change::Any),
            ..Options::new(self.clients()?.handle().clone(), self.peer.login())
        };
        let view = async || self.view().await;
        let apply = async |step: &Step| self.apply(step).await;
        let report = drill::run(fault.drill()?, 1, &options, view, apply).await;
        self.take_back().await;
        report.map_err(|e| e.to_string())?.runs.pop().ok_or_else(|| "there was no run".to_owned())
    }

    /// The lab, for a look at its nodes.
    pub(crate) fn lab(&self) -> MutexGuard<'_, Lab> {
        lock(&self.lab)
    }

    /// Removes it with all it left.
    pub(crate) async fn down(self) -> Outcome<()> {
        self.take_back().await;
        let name = self.name.clone();
        // Its threads are in the clients' network.
        drop(self);
        blocking(move || remove(&name)).await
    }

    async fn wait_until_whole(&self) -> Outcome<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            let missing = match self.view().await {
                Ok(SystemView { missing: None, .. }) => return Ok(()),
                Ok(SystemView { missing: Some(missing), .. }) | Err(missing) => missing,
            };
            if Instant::now() >= end {
                return Err(format!("{} is not whole after {} s: {missing}", self.name, PATIENCE.as_secs()));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// What the system says of itself.
    async fn view(&self) -> Outcome<SystemView> {
        self.inside(self.peer.clone().view()).await?
    }

    /// Does a step and says by what it is known.
    async fn apply(&self, step: &Step) -> Outcome<String> {
        if let Step::Switchover(from) = step {
            self.inside(self.peer.clone().switch_over(from.clone())).await?
        } else {
            // To the nodes, or refused by the lab.
            self.act(step.clone()).await
        }
    }

    /// Takes back what was done and lasts.
    async fn take_back(&self) {
        let lab = self.lab.clone();
        if let Err(reason) = blocking(move || lock(&lab).take_back().map_err(|e| in_words(&e))).await {
            eprintln!("    the fault could not be taken back: {reason}");
        }
    }

    async fn act(&self, step: Step) -> Outcome<String> {
        let lab = self.lab.clone();
        blocking(move || drill::act(&mut lock(&lab), &layout::database(), &step).map_err(|e| in_words(&e)))
            .await
    }

    /// Runs where the outside clients are.
    async fn inside<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Outcome<T> {
        self.clients()?.spawn(work).await.map_err(|e| format!("the clients' runtime broke down: {e}"))
    }

    fn clients(&self) -> Outcome<&ClientRuntime> {
        self.clients.as_ref().ok_or_else(|| "the clients have ended".to_owned())
    }
}

impl Drop for Field {
    fn drop(&mut self) {
        // A runtime that is dropped inside another one must not be waited for.
        if let Some(clients) = self.clients.take() {
            clients.shutdown();
        }
    }
}

fn lock(lab: &Mutex<Lab>) -> MutexGuard<'_, Lab> {
    lab.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Outcome<T> + Send + 'static) -> Outcome<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| e.to_string())?
}
