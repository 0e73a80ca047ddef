//! The supervisor of one node: makes exactly the wanted instances run, each kept by a task of its own (see `keeper.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::container::Remains;
use super::keeper::{KEY, Keeper, Order};
use super::logs::Limits;
use super::{InstanceSpec, InstanceStatus};
use crate::disposable;
use crate::process::{Found, RECORD_DEADLINE, Registry, Signal, forget, group_of};

/// All instances of one node by id.
pub type States = BTreeMap<String, InstanceStatus>;

/// Supervises the instances of one node. Dropping it leaves them running, to be adopted by the next one.
#[derive(Debug)]
pub struct Supervisor {
    registry: Registry,
    limits: Limits,
    states: watch::Sender<States>,
    tasks: BTreeMap<String, Handle>,
    wanted: BTreeSet<String>,
}

#[derive(Debug)]
struct Handle {
    orders: mpsc::UnboundedSender<Order>,
    task: JoinHandle<()>,
}

impl Handle {
    fn order(&self, order: Order) {
        // The task ends only with us, or by a defect of its own.
        if self.orders.send(order).is_err() {
            tracing::error!("the task of an instance is gone");
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // The task, not the instance.
        self.task.abort();
    }
}

impl Supervisor {
    /// A supervisor with nothing to do. Must be called inside a tokio runtime.
    pub fn new(registry: Registry, limits: Limits) -> Self {
        Self {
            registry,
            limits,
            states: watch::Sender::new(States::new()),
            tasks: BTreeMap::new(),
            wanted: BTreeSet::new(),
        }
    }

    /// The states of all instances, with every change as it happens.
    pub fn states(&self) -> watch::Receiver<States> {
        self.states.subscribe()
    }

    /// Makes exactly these instances run: starts or adopts what is missing, replaces what was started with something else,
    /// stops the others. What runs as it should is not touched.
    pub fn apply(&mut self, wanted: Vec<InstanceSpec>) {
        self.apply_but(wanted, &BTreeSet::new());
    }

    /// As [`Supervisor::apply`], but those in `alone` are neither started nor stopped.
    pub fn apply_but(&mut self, wanted: Vec<InstanceSpec>, alone: &BTreeSet<String>) {
        self.wanted = wanted.iter().map(|spec| spec.id.clone()).collect();
        let is_over = |id: &String| !self.wanted.contains(id) && !alone.contains(id);
        for (_, handle) in self.tasks.iter().filter(|(id, _)| is_over(id)) {
            handle.order(Order::Stop(None));
        }
        for spec in wanted {
            match self.tasks.get(&spec.id) {
                Some(handle) => handle.order(Order::Run(Box::new(spec))),
                None => self.keep(spec),
            }
        }
    }

    /// Waits until every instance given to [`Supervisor::apply`] has a state: until it is known what runs already.
    pub async fn settled(&self) {
        let mut states = self.states();
        let all = |states: &States| self.wanted.iter().all(|id| states.contains_key(id));
        // The sender lives as long as we do.
        let _ = states.wait_for(all).await;
    }

    /// Waits until every task has taken in what [`Supervisor::apply`] said last, so that what is outdated is known.
    pub async fn considered(&self) {
        let ask = |handle: &Handle| {
            let (sender, answered) = oneshot::channel();
            handle.order(Order::Answer(sender));
            answered
        };
        let all: Vec<_> = self.tasks.values().map(ask).collect();
        for answered in all {
            // A task that panicked has nothing to say.
            let _ = answered.await;
        }
    }

    /// Ends an instance gracefully and starts it again; whether it is known.
    pub fn restart(&self, id: &str) -> bool {
        let known = self.states.borrow().contains_key(id);
        if let Some(handle) = self.tasks.get(id).filter(|_| known) {
            handle.order(Order::Restart);
        }
        known
    }

    /// Stops everything that an earlier run of the agent started and that is neither among `wanted` nor in `alone`. Call it
    /// once at start.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub async fn stop_leftovers(&self, wanted: &[InstanceSpec], alone: &BTreeSet<String>) -> io::Result<()> {
        let registry = self.registry.clone();
        let all = disposable::run("registry", RECORD_DEADLINE, move || registry.load()).await;
        for found in all.map_err(io::Error::other)?? {
            let Some(id) = found.key.strip_prefix(KEY) else { continue };
            if !wanted.iter().any(|spec| spec.id == id) && !alone.contains(id) {
                tokio::spawn(stop_leftover(self.registry.clone(), found));
            }
        }
        Ok(())
    }

    /// Stops every instance gracefully and waits until all have ended.
    pub async fn stop_all(self) {
        let stop = |handle: &Handle| {
            let (sender, stopped) = oneshot::channel();
            handle.order(Order::Stop(Some(sender)));
            stopped
        };
        let all: Vec<_> = self.tasks.values().map(stop).collect();
        for stopped in all {
            // A task that panicked answers nothing; there is nothing to wait for.
            let _ = stopped.await;
        }
    }

    fn keep(&mut self, spec: InstanceSpec) {
        let (orders, inbox) = mpsc::unbounded_channel();
        let id = spec.id.clone();
        let keeper = Keeper::new(spec, self.registry.clone(), self.limits, self.states.clone());
        self.tasks.insert(id, Handle { orders, task: tokio::spawn(keeper.run(inbox)) });
    }
}

/// Ends a process whose instance is wanted no more and forgets it.
async fn stop_leftover(registry: Registry, found: Found) {
    if let Some(process) = &found.process {
        let grace = found.record.facts["stop_grace_ms"].as_u64().unwrap_or(10_000);
        // It may have ended meanwhile.
        let _ = process.signal(Signal::TERM);
        if tokio::time::timeout(Duration::from_millis(grace), process.exited()).await.is_err() {
            drop(process.kill_session());
            process.exited().await;
        }
        // What it left behind.
        let _ = process.kill_session().await;
    }
    if let Some(remains) = Remains::of(&found.record.facts) {
        remains.remove().await;
    }
    if let Some(group) = group_of(&found.record.facts) {
        group.remove();
    }
    forget(registry, found.key).await;
}
