//! Jobs: what the leader decides about them, what this node runs of them, and what is asked about them.
//!
//! Decisions are [`decide::jobs`]; each is committed by compare-and-set, so that a leader that is none any more, or an
//! agent that was frozen, begins nothing that somebody else has begun.

mod lead;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use coordination::{Change, Entry, JsonCoordinator, Revision, TxnOutcome};
use decide::agent::Input;
use decide::jobs::{self, OPERATOR, Outcome};
use decide::release::before;
use effects::clock::wall_us;
use effects::job::{self, Begun, End};
use effects::process::{Found, Launch, Registry, forget, group_of};
use effects::service::logs;
use model::JobName;
use model::event::{Event, Severity};
use model::jobs::{JobRecord, KEPT, RunState};
use model::system::placeholder::{Surroundings, expand};
use model::system::{Job, System};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use super::instances::{in_home, route_places, user};
use super::store::WITHIN;
use super::{Shared, api, artefacts};
use crate::api::{JobSummary, Reply};

/// How often it is looked whether a job is due.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How long to wait before something that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How long a run waits for what its placeholders need, such as the secrets of a database.
const PREPARE_LIMIT: Duration = Duration::from_secs(60);

/// How many lines of a run that failed are remembered, and how much of each.
const LAST_LINES: usize = 10;
const LAST_LINE_LENGTH: usize = 200;

/// How long reading or removing logs may take.
const LOGS_LIMIT: Duration = Duration::from_secs(5);

/// How often a request is decided anew when something else was committed first.
const COMMIT_TRIES: u32 = 5;

/// Before the name of a job among the keys of the coordination.
const PREFIX: &str = "jobs/";

/// Before the name of a job among the keys of processes.
const KEY: &str = "job.";

/// What is agreed on about each job, with the revision of each.
type Records = BTreeMap<JobName, (Revision, JobRecord)>;

/// Looks after the jobs of this node, and of the system while this node leads; for ever.
pub(super) async fn run(shared: Shared, incarnation: u64) {
    let registry = match Registry::open(&shared.places.state("processes")) {
        Ok(registry) => registry,
        Err(error) => {
            tracing::error!(%error, "jobs cannot be run: the records of processes cannot be used");
            return;
        }
    };
    let (sender, mut records) = watch::channel(None);
    tokio::spawn(follow(shared.clone(), sender));
    let mut keeper =
        Keeper { shared, incarnation, registry, begun: BTreeSet::new(), unbegun: BTreeMap::new() };
    keeper.adopt().await;
    loop {
        // Without changes it is still to be seen what is due.
        let news = tokio::time::timeout(LOOK_EVERY, records.changed()).await.is_ok();
        let Some(known) = records.borrow_and_update().clone() else { continue };
        if news {
            let runs = known.iter().map(|(name, (_, record))| (name.clone(), record.clone())).collect();
            keeper.shared.inputs.send(Input::Runs(runs));
        }
        keeper.look(&known).await;
    }
}

/// Keeps `sender` at what the coordination holds about jobs.
async fn follow(shared: Shared, sender: watch::Sender<Option<Records>>) {
    let coordinator = &shared.store.coordinator;
    loop {
        let Ok(listing) = coordinator.list(PREFIX, WITHIN).await else {
            tokio::time::sleep(RETRY).await;
            continue;
        };
        let mut records: Records = listing.entries.iter().filter_map(read).collect();
        sender.send_replace(Some(records.clone()));
        let mut watch = coordinator.watch(PREFIX, listing.revision.next());
        while let Ok(changes) = watch.next().await {
            for change in &changes.changes {
                match change {
                    Change::Put(entry) => records.extend(read(entry)),
                    Change::Deleted { key } => {
                        records.remove(key.strip_prefix(PREFIX).unwrap_or_default());
                    }
                }
            }
            sender.send_replace(Some(records.clone()));
        }
    }
}

fn read(entry: &Entry) -> Option<(JobName, (Revision, JobRecord))> {
    let name = JobName::new(entry.key.strip_prefix(PREFIX)?);
    match entry.json() {
        Ok(record) => Some((name, (entry.modified, record))),
        Err(error) => {
            tracing::error!(%error, "what is agreed on about a job cannot be read; it is left alone");
            None
        }
    }
}

/// One run of this node.
type RunKey = (JobName, u64);

struct Keeper {
    shared: Shared,
    incarnation: u64,
    registry: Registry,
    /// The runs that this agent has begun or found running.
    begun: BTreeSet<RunKey>,
    /// Since when runs are to begin, while this node leads.
    unbegun: BTreeMap<RunKey, Instant>,
}

impl Keeper {
    /// Finds what an earlier run of the agent has begun and what still runs.
    async fn adopt(&mut self) {
        let registry = self.registry.clone();
        let all = effects::disposable::run("registry", LOGS_LIMIT, move || registry.load()).await;
        let all = match all {
            Ok(Ok(all)) => all,
            Ok(Err(error)) => return tracing::warn!(%error, "runs of jobs cannot be found again"),
            Err(error) => return tracing::warn!(%error, "runs of jobs cannot be found again"),
        };
        for found in all {
            let Some(key) = run_of(&found.key) else { continue };
            if found.process.is_some() {
                self.begun.insert(key.clone());
                tokio::spawn(see_out(self.shared.clone(), self.registry.clone(), key, found));
            } else {
                forget(self.registry.clone(), found.key).await;
            }
        }
    }

    async fn look(&mut self, known: &Records) {
        let system = self.shared.system.borrow().clone();
        if system.jobs.is_empty() && known.is_empty() {
            return;
        }
        for (name, (revision, record)) in known {
            self.look_at_own(name, *revision, record).await;
        }
        if !system.jobs.is_empty() {
            self.lead(&system, known).await;
        }
    }

    /// Claims what was given to this node, begins what it has claimed, and says what it has lost.
    async fn look_at_own(&mut self, name: &JobName, revision: Revision, record: &JobRecord) {
        let me = &self.shared.me;
        if let Some((next, _)) = jobs::claim(record, me, self.incarnation, wall_us()) {
            // What begins is what the record says then, whoever hears of the commit.
            commit(&self.shared, name, revision, &next).await;
            return;
        }
        let Some(run) = record.open() else { return };
        let RunState::Running { node, incarnation, .. } = &run.state else { return };
        let key = (name.clone(), run.number);
        if node != me || self.begun.contains(&key) {
            return;
        }
        let (shared, registry) = (self.shared.clone(), self.registry.clone());
        self.begun.insert(key.clone());
        if *incarnation == self.incarnation {
            let by = jobs::asked_by(record, run).map(str::to_owned);
            tokio::spawn(perform(shared, registry, key, by));
        } else {
            tokio::spawn(look_for(shared, registry, key));
        }
    }
}

/// Commits by compare-and-set; whether it surely happened.
async fn commit(shared: &Shared, name: &JobName, expected: Revision, next: &JobRecord) -> bool {
    let key = format!("{PREFIX}{name}");
    let outcome = shared.store.coordinator.compare_and_set_json(&key, expected, next, WITHIN).await;
    matches!(outcome, Ok(TxnOutcome::Committed(_)))
}

fn tell(shared: &Shared, job: &JobName, severity: Severity, what: &str, because: &str) {
    shared.journal.add(Event {
        at_us: 0,
        node: shared.me.clone(),
        severity,
        subject: format!("job/{job}"),
        what: what.to_owned(),
        because: because.to_owned(),
    });
}

/// The job and the number in the key of a process.
fn run_of(key: &str) -> Option<RunKey> {
    let (name, number) = key.strip_prefix(KEY)?.rsplit_once('.')?;
    Some((name.into(), number.parse().ok()?))
}

fn process_key((name, number): &RunKey) -> String {
    format!("{KEY}{name}.{number}")
}

// ---- one run ----

/// Begins a run that somebody asked for `by` these words, waits for its end and reports it.
async fn perform(shared: Shared, registry: Registry, key: RunKey, by: Option<String>) {
    remove_old_logs(&shared, &key).await;
    let end = match prepare(&shared, &key, by.as_deref()).await {
        Ok((launch, limit)) => job::run(launch, registry.clone(), limit).await,
        Err(because) => End::Failed(format!("could not be started: {because}")),
    };
    conclude(shared, registry, key, end).await;
}

/// Waits for the end of a run that an earlier run of the agent has begun.
async fn see_out(shared: Shared, registry: Registry, key: RunKey, found: Found) {
    let Some(process) = found.process else { return };
    let seconds = found.record.facts["timeout_s"].as_u64().unwrap_or(3600);
    let limit = Duration::from_secs(seconds);
    let passed = u64::try_from(wall_us() - found.record.started_us).unwrap_or_default();
    let until = Instant::now() + limit.saturating_sub(Duration::from_micros(passed));
    let (memory, bytes) = (group_of(&found.record.facts), found.record.facts["memory"].as_u64());
    let end = job::finish(Begun { process, memory, bytes }, until, limit).await;
    conclude(shared, registry, key, end).await;
}

/// Looks for a run that an earlier run of the agent began, and may have had no time to write down.
async fn look_for(shared: Shared, registry: Registry, key: RunKey) {
    let (of, name) = (registry.clone(), process_key(&key));
    let found = effects::disposable::run("registry", LOGS_LIMIT, move || of.find(&name)).await;
    if let Ok(Ok(Some(found))) = found
        && found.process.is_some()
    {
        return see_out(shared, registry, key, found).await;
    }
    let because = format!("the agent of {} ended while it ran, and its process is gone", shared.me);
    report(&shared, &key, Outcome::Unknown { because }).await;
}

async fn conclude(shared: Shared, registry: Registry, key: RunKey, end: End) {
    let outcome = match end {
        End::Succeeded => Outcome::Succeeded,
        End::Failed(because) => Outcome::Failed { because, last_lines: last_lines(&shared, &key).await },
        End::Unknown(because) => Outcome::Unknown { because },
    };
    report(&shared, &key, outcome).await;
    forget(registry, process_key(&key)).await;
}

/// Commits how a run ended, however long that takes.
async fn report(shared: &Shared, (name, number): &RunKey, outcome: Outcome) {
    let key = format!("{PREFIX}{name}");
    loop {
        let stored = shared.store.coordinator.get_json::<JobRecord>(&key, WITHIN).await;
        let (record, revision) = match stored {
            Ok(Some(stored)) => stored,
            Ok(None) => return,
            Err(_) => {
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        let Some(next) = jobs::ended(&record, *number, &shared.me, &outcome, wall_us()) else { return };
        if commit(shared, name, revision, &next).await {
            let (severity, because) = match &outcome {
                Outcome::Succeeded => (Severity::Info, "it ended with exit code 0".to_owned()),
                Outcome::Failed { because, .. } => (Severity::Warning, format!("it {because}")),
                Outcome::Unknown { because } => (Severity::Warning, because.clone()),
            };
            let what = match &outcome {
                Outcome::Succeeded => "succeeded",
                Outcome::Failed { .. } => "failed",
                Outcome::Unknown { .. } => "has an unknown outcome",
            };
            tell(shared, name, severity, &format!("run {number} {what}"), &because);
            return;
        }
        tokio::time::sleep(RETRY / 10).await;
    }
}

/// Fills in what the run needs, waiting for it for a while.
async fn prepare(shared: &Shared, key: &RunKey, by: Option<&str>) -> Result<(Launch, Duration), String> {
    let until = Instant::now() + PREPARE_LIMIT;
    loop {
        let system = shared.system.borrow().clone();
        let Some(job) = system.jobs.get(&key.0) else {
            return Err("the system file does not describe it any more".to_owned());
        };
        match fill_in(shared, &system, job, key, by).await {
            Ok(launch) => return Ok((launch, job.timeout)),
            Err(because) if Instant::now() > until => return Err(because),
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    }
}

/// The directory of the release that a run of a job starts from, if it names one.
async fn unpacked(
    shared: &Shared,
    system: &System,
    job: &Job,
    name: &JobName,
    by: Option<&str>,
) -> Result<Option<String>, String> {
    if !job.needs_release() {
        return Ok(None);
    }
    let releases = shared.inputs.ask(|agent| agent.releases().value.clone()).await.unwrap_or_default();
    let digest = before::artefact(&releases, system, name, by).ok_or("there is no release yet")?;
    let directory = artefacts::directory(&shared.places, digest);
    directory.map(Some).ok_or_else(|| format!("the artefact {} is not on this node yet", digest.short()))
}

async fn fill_in(
    shared: &Shared,
    system: &System,
    job: &Job,
    key: &RunKey,
    by: Option<&str>,
) -> Result<Launch, String> {
    let unpacked = unpacked(shared, system, job, &key.0, by).await?;
    let known = route_places(shared, system).await?;
    let own = system.nodes.get(&shared.me).ok_or("this node is not in the system file")?;
    let cwd = shared.places.root.join("jobs").join(key.0.as_str());
    let (dir, instance) = (cwd.display().to_string(), format!("{}-{}", key.0, key.1));
    let with = Surroundings {
        address: own.address(),
        port: 0,
        node: &shared.me,
        instance: &instance,
        release: unpacked.as_deref(),
        dir: &dir,
        routes: &known.places,
    };
    let fill = |text: &String| expand(text, &with).map_err(|error| error.to_string());
    let mut command = job.command.iter().map(fill).collect::<Result<Vec<_>, _>>()?;
    if let Some(program) = command.first_mut() {
        *program = in_home(&cwd, program);
    }
    let env = job.env.iter().map(|(name, value)| Ok((name.clone(), fill(value)?)));
    let facts = [("timeout_s", json!(job.timeout.as_secs())), ("memory", json!(job.memory))];
    let runs_as = user(job.user.as_ref(), &shared.me)?;
    Ok(Launch {
        key: process_key(key),
        command,
        env: env.collect::<Result<_, String>>()?,
        owner: runs_as.clone(),
        user: runs_as,
        log: log_of(shared, key),
        cwd,
        memory: job.memory,
        facts: facts.map(|(name, fact)| (name.to_owned(), fact)).into(),
    })
}

/// The file name of a run's log without its end, for `NAME.NUMBER`.
pub(super) fn log_name(run: &str) -> String {
    let (name, number) = run.rsplit_once('.').unwrap_or((run, ""));
    job::log_name(name, number.parse().unwrap_or_default())
}

fn log_of(shared: &Shared, (name, number): &RunKey) -> std::path::PathBuf {
    shared.places.log(&format!("{}.log", job::log_name(name.as_str(), *number)))
}

async fn last_lines(shared: &Shared, key: &RunKey) -> Vec<String> {
    let log = log_of(shared, key);
    let read = effects::disposable::run("tail", LOGS_LIMIT, move || logs::tail(&log, LAST_LINES)).await;
    let lines = read.ok().and_then(Result::ok).unwrap_or_default();
    lines.into_iter().map(|line| line.chars().take(LAST_LINE_LENGTH).collect()).collect()
}

/// Runs that are not remembered any more leave no logs either.
async fn remove_old_logs(shared: &Shared, (name, number): &RunKey) {
    let (directory, name) = (shared.places.root.join("log"), name.to_string());
    let oldest = number.saturating_sub(u64::try_from(KEPT).unwrap_or(u64::MAX));
    let work = move || job::remove_logs(&directory, &name, oldest);
    if !matches!(effects::disposable::run("remove logs", LOGS_LIMIT, work).await, Ok(Ok(()))) {
        tracing::warn!("old logs of a job could not be removed");
    }
}

// ---- what is asked ----

/// Every job with its runs, as a majority knows them.
pub(super) async fn summaries(shared: &Shared) -> Reply {
    let listing = match shared.store.coordinator.list(PREFIX, WITHIN).await {
        Ok(listing) => listing,
        Err(error) => return Reply::refused(error.to_string(), api::MAJORITY_HINT),
    };
    let mut records: Records = listing.entries.iter().filter_map(read).collect();
    let system = shared.system.borrow().clone();
    let now = wall_us().div_euclid(1_000_000);
    let described = system.jobs.iter().map(|(name, job)| JobSummary {
        name: name.clone(),
        schedule: job.schedule,
        described: true,
        next: job.schedule.map(|schedule| schedule.next(now)),
        runs: records.remove(name).map(|(_, record)| record.runs).unwrap_or_default(),
    });
    let mut all: Vec<JobSummary> = described.collect();
    all.extend(records.into_iter().map(|(name, (_, record))| JobSummary {
        name,
        schedule: None,
        described: false,
        next: None,
        runs: record.runs,
    }));
    Reply::Jobs(all)
}

/// Lets a job run once, for an operator.
pub(super) async fn ask_for(shared: &Shared, name: &JobName) -> Reply {
    let system = shared.system.borrow().clone();
    if !system.jobs.contains_key(name) {
        let names: Vec<&str> = system.jobs.keys().map(JobName::as_str).collect();
        let hint = match names.as_slice() {
            [] => "the system file describes no job: add a section `[jobs.NAME]`".to_owned(),
            names => format!("jobs are: {}", names.join(", ")),
        };
        return Reply::refused(format!("there is no job {name}"), hint);
    }
    if shared.inputs.ask(|agent| agent.overview().paused).await.flatten().is_some() {
        return Reply::refused(
            "the automation is paused, so that no run begins",
            "`mainstay resume` ends the pause",
        );
    }
    let releases = shared.inputs.ask(|agent| agent.releases().value.clone()).await.unwrap_or_default();
    let needs_release = system.jobs.get(name).is_some_and(Job::needs_release);
    if needs_release && before::artefact(&releases, &system, name, None).is_none() {
        return Reply::refused(
            format!("{name} runs from a release, and there is none yet"),
            "`mainstay release SERVICE --from ...` of the service that names the job runs it first",
        );
    }
    match request(shared, name, OPERATOR, true).await {
        Ok(number) => Reply::JobRun(number),
        Err(reply) => *reply,
    }
}

/// Asks for one run and returns its number; who is no operator gets the same run for the same words.
async fn request(shared: &Shared, name: &JobName, by: &str, is_operator: bool) -> Result<u64, Box<Reply>> {
    let key = format!("{PREFIX}{name}");
    for _ in 0..COMMIT_TRIES {
        let stored = shared.store.coordinator.get_json::<JobRecord>(&key, WITHIN).await;
        let stored =
            stored.map_err(|error| Box::new(Reply::refused(error.to_string(), api::MAJORITY_HINT)))?;
        let revision = stored.as_ref().map_or(Revision(0), |(_, revision)| *revision);
        let record = stored.map(|(record, _)| record);
        let asked = jobs::request(name, record.as_ref(), by, is_operator);
        let (next, number) =
            asked.map_err(|refusal| Box::new(Reply::refused(refusal.because, refusal.hint)))?;
        match next {
            Some(next) if !commit(shared, name, revision, &next).await => {}
            Some(_) | None => return Ok(number),
        }
    }
    Err(Box::new(Reply::refused("the run could not be agreed on", api::MAJORITY_HINT)))
}
