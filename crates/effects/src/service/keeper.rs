//! Keeps one instance: carries out what its state machine says. The task waits in one place and steps the machine in
//! another, synchronous one; starts, checks and records are child futures whose results are events.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use model::system::{Health, Probe, size};
use model::time::Moment;
use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};

use super::container::Remains;
use super::health::{self, Target, Wrong};
use super::logs::{self, Limits};
use super::machine::{Action, Ask, Event, Instance, Rules};
use super::supervisor::States;
use super::{InstanceSpec, InstanceState, InstanceStatus, container};
use crate::process::{
    Exit, Found, Launch, Launched, MemoryGroup, Process, RECORD_DEADLINE, Registry, Signal, forget, group_of,
    launch,
};
use crate::{clock, disposable};

/// How often a log's size is looked at.
const ROTATE_EVERY: Duration = Duration::from_secs(5);

/// How many of the last lines of an instance that ended by itself are told, and how much of each.
const LAST_LINES: usize = 5;
const LAST_LINE_LENGTH: usize = 200;

/// How long reading them may take.
const TAIL_DEADLINE: Duration = Duration::from_secs(2);

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
    /// Whether a container that has ended was killed for want of memory, to be told with its last lines.
    ran_out: Option<oneshot::Receiver<bool>>,
    /// Done when those are gone.
    swept: Option<oneshot::Receiver<usize>>,
    /// What limits the memory of the running process.
    memory: Option<MemoryGroup>,
    /// The container that may be left when the running process, its client, has ended.
    remains: Option<Remains>,
    /// Why nothing does although the file wants it.
    unlimited: Option<String>,
    /// What it printed last before it ended by itself.
    last_lines: Vec<String>,
    starts: u32,
    stop_asked: Vec<oneshot::Sender<()>>,
    starting: Pending<io::Result<Launched>>,
    checking: Pending<Result<(), Wrong>>,
    asking: Pending<Result<(), Wrong>>,
    tailing: Pending<Vec<String>>,
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
    Started(io::Result<Launched>),
    Exited(Exit),
    Checked(Result<(), Wrong>),
    Asked(Result<(), Wrong>),
    Tailed(Vec<String>),
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
            ran_out: None,
            swept: None,
            memory: None,
            remains: None,
            unlimited: None,
            last_lines: Vec::new(),
            starts: 0,
            stop_asked: Vec::new(),
            starting: None,
            checking: None,
            asking: None,
            tailing: None,
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
        if self.remains.take().is_some()
            && let Some(swept) = self.swept.take()
        {
            // Only then may its record go. An error means that the task died.
            let _ = swept.await;
        }
        if let Some(group) = self.memory.take() {
            group.remove();
        }
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
        let recorded = found.as_ref().and_then(|found| Remains::of(&found.record.facts));
        match found.and_then(|found| found.process.map(|process| (process, found.record.facts))) {
            Some((process, facts)) => {
                self.process = Some(process);
                // The record of one whose agent died right behind its start says nothing.
                self.remains = recorded.or_else(|| self.own_remains()?.ok());
                self.memory = group_of(&facts);
                self.step(Event::Adopted);
                // What it was started with is unknown when the agent died before it wrote that down: then it is right.
                let launched = facts["launch"].as_u64().unwrap_or_else(|| self.spec.launch_digest());
                self.launched = Some(launched);
                if launched != self.spec.launch_digest() && self.spec.replace {
                    self.step(Event::Replaced);
                }
            }
            None => {
                // Its client is gone, as after a loss of power; the container may not be.
                self.swept = recorded.map(|remains| container::swept(remains, None).0);
                self.step(self.wanted());
            }
        }
    }

    /// Whether it may start for the first time.
    fn wanted(&self) -> Event {
        self.spec.hold.clone().map_or(Event::Wanted, Event::Held)
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
            asked = pending(&mut self.asking) => Input::Asked(asked),
            lines = pending(&mut self.tailing) => Input::Tailed(lines),
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
            Input::Started(Ok(Launched { process, memory, unlimited })) => {
                (self.process, self.memory, self.unlimited) = (Some(process), memory, unlimited);
                self.step(Event::Started);
            }
            Input::Started(Err(error)) => self.step(Event::StartFailed(error.to_string())),
            Input::Exited(exit) => {
                self.ended = self.process.take();
                let words = self.in_words(exit);
                self.step(Event::Exited(words));
                self.read_last_lines(exit);
            }
            Input::Checked(Ok(())) => self.step(Event::CheckGood),
            Input::Checked(Err(wrong)) => self.step(Event::CheckBad(wrong)),
            Input::Asked(Ok(())) => self.step(Event::ReadyGood),
            Input::Asked(Err(wrong)) => self.step(Event::ReadyBad(wrong.to_string())),
            Input::Tailed(lines) => {
                self.last_lines = lines;
                self.publish();
            }
            Input::Woken => self.step(Event::Woken),
            Input::Rotated => self.rotate(),
        }
    }

    /// How it ended; the kernel's word about memory says more than the signal that it used.
    fn in_words(&self, exit: Exit) -> String {
        match (&self.memory, self.spec.memory) {
            (Some(group), Some(bytes)) if group.ran_out() => {
                format!("an out-of-memory kill: it needs more than its limit of {}", size::format(bytes))
            }
            (Some(_) | None, _) => exit.to_string(),
        }
    }

    /// Reads what it printed last, unless it was told to end.
    fn read_last_lines(&mut self, exit: Exit) {
        if !matches!(self.instance.state(), InstanceState::Backoff { .. }) {
            return;
        }
        let (log, limit, ran_out) = (self.spec.log.clone(), self.spec.memory, self.ran_out.take());
        self.tailing = Some(Box::pin(async move {
            let read = disposable::run("tail", TAIL_DEADLINE, move || logs::tail(&log, LAST_LINES)).await;
            let mut lines = read.ok().and_then(Result::ok).unwrap_or_default();
            if let (Some(limit), Some(ran_out)) = (limit, ran_out) {
                // An error means that it is not known.
                lines.extend(container::killed_for_memory(exit, limit, ran_out.await.unwrap_or(false)));
            }
            lines.into_iter().map(|line| line.chars().take(LAST_LINE_LENGTH).collect()).collect()
        }));
    }

    fn change(&mut self, spec: InstanceSpec) {
        let same = self.launched.is_none_or(|launched| launched == spec.launch_digest());
        // What serves nobody anyway need not wait for its turn.
        let serves = match self.instance.state() {
            InstanceState::Ready | InstanceState::Stopping => true,
            InstanceState::Starting { .. }
            | InstanceState::NotReady { .. }
            | InstanceState::Backoff { .. }
            | InstanceState::Waiting { .. }
            | InstanceState::Stopped { .. } => false,
        };
        let stays = same || (serves && !spec.replace);
        self.instance.set_rules(rules(&spec));
        self.spec = spec;
        let wanted = self.wanted();
        self.step(if stays || self.instance.is_held() { wanted } else { Event::Replaced });
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
                let (start, registry) = (self.launch(), self.registry.clone());
                self.remains = start.as_ref().ok().and_then(|start| start.1.clone());
                let (swept, left) = (self.swept.take(), self.memory.take());
                self.starting = Some(Box::pin(async move {
                    if let Some(swept) = swept {
                        // An error means that its thread died: then nothing was left to wait for.
                        let _ = swept.await;
                    }
                    if let Some(group) = left {
                        group.remove();
                    }
                    let (start, remains) = start?;
                    if let Some(remains) = remains {
                        remains.remove().await;
                    }
                    launch(start, registry).await
                }));
            }
            Action::Check => self.checking = Some(self.question(&self.spec.health)),
            Action::CheckReady => {
                self.asking = self.spec.ready.as_ref().map(|ready| self.question(ready));
            }
            Action::Terminate => {
                (self.checking, self.asking) = (None, None);
                if let Some(process) = &self.process {
                    // An error means that it has ended, which is seen next.
                    let _ = process.signal(Signal::TERM);
                }
            }
            Action::Kill => match (&self.process, &self.remains) {
                // Its client ends with it; alone it would leave it behind.
                (process, Some(remains)) => drop(container::killed(remains.clone(), process.clone())),
                (Some(process), None) => drop(process.kill_session()),
                (None, None) => {}
            },
            Action::Sweep => {
                (self.checking, self.asking) = (None, None);
                let ended = self.ended.take();
                match self.remains.clone() {
                    Some(remains) => {
                        let (swept, ran_out) = container::swept(remains, ended);
                        (self.swept, self.ran_out) = (Some(swept), Some(ran_out));
                    }
                    None => self.swept = ended.map(|process| process.kill_session()),
                }
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
            let (last_lines, unlimited) = (self.last_lines.clone(), self.unlimited.clone());
            let after = InstanceStatus {
                service,
                address,
                state,
                since,
                process,
                outdated,
                starts,
                last_lines,
                unlimited,
            };
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

    /// One question, to be waited for.
    fn question(&self, health: &Health) -> Pin<Box<dyn Future<Output = Result<(), Wrong>> + Send>> {
        let (health, target) = (health.clone(), target(&self.spec));
        let process = self.process.as_ref().map(Process::id);
        Box::pin(async move {
            health::moves(process)?;
            health::check(&health.probe, &target, health.timeout).await
        })
    }

    /// The container that it is, if it is one.
    fn own_remains(&self) -> Option<io::Result<Remains>> {
        let container = self.spec.container.as_ref()?;
        Some(container.remains(&self.spec.id, &self.registry.mark(&self.key())))
    }

    /// How it is started, and what may be left of it if it is a container.
    fn launch(&self) -> io::Result<(Launch, Option<Remains>)> {
        let grace = self.spec.stop_grace.as_millis() as u64;
        let mut launch = Launch {
            key: self.key(),
            command: self.spec.command.clone(),
            env: self.spec.env.clone(),
            cwd: self.spec.cwd.clone(),
            user: self.spec.user.clone(),
            owner: self.spec.user.clone(),
            log: self.spec.log.clone(),
            memory: self.spec.memory,
            facts: [("launch", json!(self.spec.launch_digest())), ("stop_grace_ms", json!(grace))]
                .map(|(name, fact)| (name.to_owned(), fact))
                .into(),
        };
        let (Some(container), Some(remains)) = (&self.spec.container, self.own_remains()) else {
            return Ok((launch, None));
        };
        let remains = remains?;
        launch.command = container.command(&self.spec, &remains);
        launch.env = remains.client_env(&self.spec);
        // The engine becomes the user and keeps the limit.
        (launch.user, launch.memory) = (None, None);
        launch.owner = container.user.clone();
        launch.facts.extend([remains.fact()]);
        Ok((launch, Some(remains)))
    }

    fn key(&self) -> String {
        format!("{KEY}{}", self.spec.id)
    }
}

fn log_change(id: &str, state: &InstanceState) {
    tracing::info!(instance = id, %state, "instance");
}

fn rules(spec: &InstanceSpec) -> Rules {
    let health = ask(&spec.health);
    Rules {
        rise: health.rise,
        fall: health.fall,
        interval: health.interval,
        grace: spec.stop_grace,
        restart_after: spec.health.restart_after,
        ready: spec.ready.as_ref().map(ask),
    }
}

fn ask(health: &Health) -> Ask {
    let rise = match health.probe {
        Probe::Process => 0,
        Probe::Http { .. } | Probe::Tcp | Probe::Command { .. } => health.healthy_after.max(1),
    };
    Ask { rise, fall: health.unhealthy_after.max(1), interval: health.interval }
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
