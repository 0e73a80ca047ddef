//! Keeps one instance: carries out what its state machine says. The task waits in one place and steps the machine in
//! another, synchronous one; starts, checks and records are child futures whose results are events.

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use model::system::Probe;
use model::time::Moment;
use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};

use super::health::{self, Target};
use super::logs::{self, Limits};
use super::machine::{Action, Event, Instance, Rules};
use super::supervisor::States;
use super::{InstanceSpec, InstanceState, InstanceStatus};
use crate::process::{Exit, Found, OsUser, Process, Registry, Signal, Spawn, spawn};
use crate::{clock, disposable};

/// How long a start may take up to the program's first instruction.
const START_DEADLINE: Duration = Duration::from_secs(10);

/// How long a record on the agent's own disk may take.
pub(super) const RECORD_DEADLINE: Duration = Duration::from_secs(2);

/// How often a log's size is looked at.
const ROTATE_EVERY: Duration = Duration::from_secs(5);

/// Prefix of the instances' keys in the registry of processes.
pub(super) const KEY: &str = "service.";

/// What an instance's task is told.
#[derive(Debug)]
pub(super) enum Order {
    /// Run like this.
    Run(Box<InstanceSpec>),
    /// End and start again.
    Restart,
    /// Say that everything before this was taken in.
    Answer(oneshot::Sender<()>),
    /// End, and say when it has.
    Stop(Option<oneshot::Sender<()>>),
}

/// The task that keeps one instance.
pub(super) struct Keeper {
    spec: InstanceSpec,
    /// What the running process was started with.
    launched: Option<u64>,
    registry: Registry,
    limits: Limits,
    states: watch::Sender<States>,
    instance: Instance,
    process: Option<Process>,
    /// A process that has ended and may have left others of its session behind.
    ended: Option<Process>,
    /// Done when those are gone.
    swept: Option<oneshot::Receiver<usize>>,
    starts: u32,
    stop_asked: Vec<oneshot::Sender<()>>,
    starting: Pending<io::Result<Process>>,
    checking: Pending<Result<(), String>>,
    rotating: Pending<()>,
    rotate_at: Moment,
}

/// A child future, or none.
type Pending<T> = Option<Pin<Box<dyn Future<Output = T> + Send>>>;

/// Waits for a child future; for ever when there is none.
async fn pending<T>(slot: &mut Pending<T>) -> T {
    match slot {
        Some(future) => {
            let result = future.as_mut().await;
            *slot = None;
            result
        }
        None => std::future::pending().await,
    }
}

/// What the task woke up for.
enum Input {
    Order(Option<Order>),
    Started(io::Result<Process>),
    Exited(Exit),
    Checked(Result<(), String>),
    Woken,
    Rotated,
}

impl Keeper {
    pub(super) fn new(
        spec: InstanceSpec,
        registry: Registry,
        limits: Limits,
        states: watch::Sender<States>,
    ) -> Self {
        let instance = Instance::new(rules(&spec));
        Self {
            spec,
            launched: None,
            registry,
            limits,
            states,
            instance,
            process: None,
            ended: None,
            swept: None,
            starts: 0,
            stop_asked: Vec::new(),
            starting: None,
            checking: None,
            rotating: None,
            rotate_at: clock::now(),
        }
    }

    pub(super) async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        self.begin().await;
        loop {
            let input = self.wait(&mut orders).await;
            if matches!(input, Input::Order(None)) {
                // The supervisor is gone: the instance runs on.
                return;
            }
            self.take(input);
            if self.instance.is_stopped() {
                self.stopped().await;
            }
        }
    }

    /// It has ended as it should: nobody needs to know of it any more.
    async fn stopped(&mut self) {
        if self.launched.take().is_some() {
            forget(self.registry.clone(), self.key()).await;
        }
        self.states.send_if_modified(|states| states.remove(&self.spec.id).is_some());
        for sender in self.stop_asked.drain(..) {
            // Nobody waits any more.
            let _ = sender.send(());
        }
    }

    /// Adopts the process of an earlier run of the agent, or starts one.
    async fn begin(&mut self) {
        let (registry, key) = (self.registry.clone(), self.key());
        let found = disposable::run("registry", RECORD_DEADLINE, move || registry.find(&key)).await;
        let found = match found {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => self.not_found(&error.to_string()),
            Err(error) => self.not_found(&error.to_string()),
        };
        match found.and_then(|found| found.process.map(|process| (process, found.record.facts))) {
            Some((process, facts)) => {
                self.process = Some(process);
                self.step(Event::Adopted);
                // What it was started with is unknown when the agent died before it wrote that down: then it is right.
                let launched = facts["launch"].as_u64().unwrap_or_else(|| self.spec.launch_digest());
                self.launched = Some(launched);
                if launched != self.spec.launch_digest() && self.spec.replace {
                    self.step(Event::Replaced);
                }
            }
            None => self.step(Event::Wanted),
        }
    }

    fn not_found(&self, because: &str) -> Option<Found> {
        tracing::warn!(instance = self.spec.id, because, "cannot tell whether it runs already");
        None
    }

    /// The one place where the task waits.
    async fn wait(&mut self, orders: &mut mpsc::UnboundedReceiver<Order>) -> Input {
        let wake = self.instance.wake_at();
        let rotate = (self.rotating.is_none() && self.process.is_some()).then_some(self.rotate_at);
        tokio::select! {
            // Facts before questions: an exit is seen before the check that it made fail.
            biased;
            exit = ended(self.process.as_ref()) => Input::Exited(exit),
            order = orders.recv() => Input::Order(order),
            started = pending(&mut self.starting) => Input::Started(started),
            checked = pending(&mut self.checking) => Input::Checked(checked),
            () = until(wake) => Input::Woken,
            () = pending(&mut self.rotating) => Input::Rotated,
            () = until(rotate) => Input::Rotated,
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Order(Some(Order::Run(spec))) => self.change(*spec),
            Input::Order(Some(Order::Restart)) => self.step(Event::Replaced),
            Input::Order(Some(Order::Stop(asked))) => {
                self.stop_asked.extend(asked);
                self.step(Event::Unwanted);
            }
            // An error means that nobody waits any more.
            Input::Order(Some(Order::Answer(sender))) => drop(sender.send(())),
            Input::Order(None) => {}
            Input::Started(Ok(process)) => {
                self.process = Some(process);
                self.step(Event::Started);
            }
            Input::Started(Err(error)) => self.step(Event::StartFailed(error.to_string())),
            Input::Exited(exit) => {
                self.ended = self.process.take();
                self.step(Event::Exited(exit.to_string()));
            }
            Input::Checked(Ok(())) => self.step(Event::CheckGood),
            Input::Checked(Err(because)) => self.step(Event::CheckBad(because)),
            Input::Woken => self.step(Event::Woken),
            Input::Rotated => self.rotate(),
        }
    }

    fn change(&mut self, spec: InstanceSpec) {
        let same = self.launched.is_none_or(|launched| launched == spec.launch_digest());
        // What serves nobody anyway need not wait for its turn.
        let serves = match self.instance.state() {
            InstanceState::Ready | InstanceState::Stopping => true,
            InstanceState::Starting { .. }
            | InstanceState::NotReady { .. }
            | InstanceState::Backoff { .. }
            | InstanceState::Stopped { .. } => false,
        };
        let stays = same || (serves && !spec.replace);
        self.instance.set_rules(rules(&spec));
        self.spec = spec;
        self.step(if stays { Event::Wanted } else { Event::Replaced });
    }

    fn step(&mut self, event: Event) {
        let (next, actions) = self.instance.clone().step(event, clock::now());
        self.instance = next;
        // First the news: proxies wait for it.
        self.publish();
        for action in actions {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Start => {
                self.starts += 1;
                self.launched = Some(self.spec.launch_digest());
                let (spec, registry, key) = (self.spec.clone(), self.registry.clone(), self.key());
                let swept = self.swept.take();
                self.starting = Some(Box::pin(async move {
                    if let Some(swept) = swept {
                        // An error means that its thread died: then nothing was left to wait for.
                        let _ = swept.await;
                    }
                    start(spec, registry, key).await
                }));
            }
            Action::Check => {
                let (health, target) = (self.spec.health.clone(), target(&self.spec));
                self.checking =
                    Some(Box::pin(
                        async move { health::check(&health.probe, &target, health.timeout).await },
                    ));
            }
            Action::Terminate => {
                self.checking = None;
                if let Some(process) = &self.process {
                    // An error means that it has ended, which is seen next.
                    let _ = process.signal(Signal::TERM);
                }
            }
            Action::Kill => {
                if let Some(process) = &self.process {
                    drop(process.kill_session());
                }
            }
            Action::Sweep => {
                self.checking = None;
                self.swept = self.ended.take().map(|process| process.kill_session());
            }
        }
    }

    /// Tells everybody, if anything changed.
    fn publish(&self) {
        let state = self.instance.state();
        let process = self.process.as_ref().map(Process::id);
        self.states.send_if_modified(|states| {
            let before = states.get(&self.spec.id);
            let same =
                |status: &&InstanceStatus| status.state == state && status.address == self.spec.address;
            let since = before.filter(same).map_or_else(clock::now, |status| status.since);
            let (service, address) = (self.spec.service.clone(), self.spec.address);
            let (outdated, starts) = (self.is_outdated(), self.starts);
            let after = InstanceStatus { service, address, state, since, process, outdated, starts };
            if before == Some(&after) {
                return false;
            }
            log_change(&self.spec.id, &after.state);
            states.insert(self.spec.id.clone(), after);
            true
        });
    }

    fn is_outdated(&self) -> bool {
        self.process.is_some() && self.launched.is_some_and(|launched| launched != self.spec.launch_digest())
    }

    /// Looks after the log on a thread of its own, then again after a while.
    fn rotate(&mut self) {
        if clock::now() < self.rotate_at {
            return;
        }
        self.rotate_at = clock::now() + ROTATE_EVERY;
        let (log, limits) = (self.spec.log.clone(), self.limits);
        let Ok(done) = disposable::start("logs", move || logs::rotate(&log, limits)) else { return };
        self.rotating = Some(Box::pin(async move {
            if let Ok(Err(error)) = done.await {
                tracing::warn!(%error, "a log cannot be rotated");
            }
        }));
    }

    fn key(&self) -> String {
        format!("{KEY}{}", self.spec.id)
    }
}

fn log_change(id: &str, state: &InstanceState) {
    tracing::info!(instance = id, %state, "instance");
}

fn rules(spec: &InstanceSpec) -> Rules {
    let rise = match spec.health.probe {
        Probe::Process => 0,
        Probe::Http { .. } | Probe::Tcp | Probe::Command { .. } => spec.health.healthy_after.max(1),
    };
    let fall = spec.health.unhealthy_after.max(1);
    Rules { rise, fall, interval: spec.health.interval, grace: spec.stop_grace }
}

fn target(spec: &InstanceSpec) -> Target {
    Target { address: spec.address, env: spec.env.clone(), cwd: spec.cwd.clone(), user: spec.user.clone() }
}

async fn ended(process: Option<&Process>) -> Exit {
    match process {
        Some(process) => process.exited().await,
        None => std::future::pending().await,
    }
}

/// Waits until `moment`; for ever when there is none.
async fn until(moment: Option<Moment>) {
    match moment {
        Some(moment) => tokio::time::sleep(clock::remaining(moment)).await,
        None => std::future::pending().await,
    }
}

/// Starts the process and records it.
async fn start(spec: InstanceSpec, registry: Registry, key: String) -> io::Result<Process> {
    let (program, args) =
        spec.command.split_first().ok_or_else(|| io::Error::other("the command is empty"))?;
    let (cwd, log, user) = (spec.cwd.clone(), spec.log.clone(), spec.user.clone());
    let made = disposable::run("make directories", START_DEADLINE, move || {
        make_directories(&cwd, &log, user.as_ref())
    });
    made.await.map_err(io::Error::other)??;
    let detached = Spawn {
        env: spec.env.clone().into_iter().collect(),
        cwd: Some(spec.cwd.clone()),
        user: spec.user.clone(),
        log: Some(spec.log.clone()),
        mark: Some(registry.mark(&key)),
        ..Spawn::new(program, args.iter().cloned())
    };
    let process = spawn(detached, START_DEADLINE).await?;
    let facts =
        json!({ "launch": spec.launch_digest(), "stop_grace_ms": spec.stop_grace.as_millis() as u64 });
    let id = process.id();
    let recorded =
        disposable::run("registry", RECORD_DEADLINE, move || registry.record(&key, id, facts)).await;
    match recorded {
        Ok(Ok(())) => {}
        // It runs, and is found again by its mark.
        Ok(Err(error)) => tracing::warn!(instance = spec.id, %error, "its process could not be recorded"),
        Err(error) => tracing::warn!(instance = spec.id, %error, "its process could not be recorded"),
    }
    Ok(process)
}

fn make_directories(cwd: &Path, log: &Path, user: Option<&OsUser>) -> io::Result<()> {
    if !cwd.exists() {
        std::fs::create_dir_all(cwd)?;
        if let Some(user) = user.filter(|_| rustix::process::geteuid().is_root()) {
            std::os::unix::fs::chown(cwd, Some(user.uid), Some(user.gid))?;
        }
    }
    log.parent().map_or(Ok(()), std::fs::create_dir_all)
}

pub(super) async fn forget(registry: Registry, key: String) {
    let text = key.clone();
    let forgotten = disposable::run("registry", RECORD_DEADLINE, move || registry.forget(&key)).await;
    if !matches!(forgotten, Ok(Ok(()))) {
        // Harmless: the process is gone, and a record of a process that is gone is ignored.
        tracing::warn!(key = text, "the record of an ended process could not be removed");
    }
}
