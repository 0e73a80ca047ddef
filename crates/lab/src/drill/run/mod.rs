//! One drill from the first question to the verdict.

mod course;
mod loads;
mod readers;
mod verdict;
mod watch;
mod writing;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use effects::clock;
use model::time::Moment;
use model::{NodeName, SiteName};
use tokio::runtime::Handle;
use tokio::time::sleep;
use tokio_postgres::Config;

use super::act::Shows;
use super::catalogue::Drill;
use super::client::{Client, Ids, Target, WRITE_EVERY};
use super::history::{History, Member};
use super::mix::Mix;
use super::plan::{Cast, Change, Manner, Plan};
use super::prober::Prober;
use super::report::{Report, Run};
use super::sabotage::{Control, Sabotage};
use super::session::Deadlines;
use super::soak::Order;
use super::step::Step;
use super::table::RunName;
use crate::workload::{Kind, Workloads};
use course::{FLOW, play};
use watch::Watch;

pub use writing::{Account, Writing};

/// How long a system may take to come to rest before a drill is refused.
const SETTLE: Duration = Duration::from_secs(5);

/// What the system says of itself at one moment, asked for by the caller in whatever way there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SystemView {
    /// The node of the member that is primary and accepts writes.
    pub primary: Option<NodeName>,
    /// The node that leads the coordination.
    pub leader: Option<NodeName>,
    /// The members that may confirm commits; `None` when nobody says so now.
    pub confirming: Option<Vec<NodeName>>,
    /// The nodes whose agents answer, and which run of the agent it is.
    pub answering: BTreeMap<NodeName, u64>,
    /// What is missing from full redundancy, in a sentence; `None` when nothing is.
    pub missing: Option<String>,
    /// The database's members.
    pub members: Vec<Member>,
    /// Where the route to the primary is served, the best address of each node first.
    pub routes: Vec<Entry>,
    /// Which site a node belongs to.
    pub sites: BTreeMap<NodeName, SiteName>,
}

/// The route to the primary on one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The node.
    pub node: NodeName,
    /// The route's address there.
    pub address: SocketAddr,
}

/// How drills are run.
#[derive(Clone, Debug)]
pub struct Options {
    /// A runtime whose threads are where outside clients stand (in the lab: inside the clients' network namespace).
    pub runtime: Handle,
    /// User, password and database for the route and for members; `target_session_attrs` counts at the route alone.
    pub login: Config,
    /// How long a member may serve as primary without renewing its lease.
    pub lease: Duration,
    /// Load before the fault.
    pub warm_up: Duration,
    /// How long to wait for writes to flow again, and for full redundancy.
    pub patience: Duration,
    /// How the run is spoiled, where it is a control of the drill.
    pub sabotage: Option<Sabotage>,
    /// What clients do while the fault lasts; the set is what the client does that measures the outage.
    pub workloads: Vec<Kind>,
    /// Where histories are saved, if anywhere: a directory that exists.
    pub history: Option<PathBuf>,
    /// What must become of the primary instead of what the drill expects: another system may have other ways.
    pub primary: Option<Change>,
    /// Told what is being done, in a few words.
    pub tell: fn(&str),
}

/// Why there is no verdict.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DrillError {
    /// The system is not fully redundant: a drill would be a risk, not a rehearsal.
    #[error("the drill is refused: {0}")]
    Refused(String),
    /// The system's state cannot be asked for.
    #[error("the system's state is not to be had: {0}")]
    NoView(String),
    /// Load or measurement did not work.
    #[error("nothing can be measured: {0}")]
    NoLoad(String),
    /// A step could not be done. What lasts has been taken back as far as that was possible.
    #[error("could not {step}: {reason}")]
    Step {
        /// The step.
        step: Step,
        /// Why not.
        reason: String,
    },
}

impl Options {
    /// The ordinary way: 2 s of load, 2 s of lease, a minute of patience, no clients but the one that measures.
    pub fn new(runtime: Handle, login: Config) -> Self {
        Self {
            runtime,
            login,
            lease: Duration::from_secs(2),
            warm_up: Duration::from_secs(2),
            patience: Duration::from_secs(60),
            sabotage: None,
            workloads: vec![Kind::Set],
            history: None,
            primary: None,
            tell: |_| {},
        }
    }
}

/// Runs a drill `count` times in a row and sums it up.
///
/// `view` asks the system for its state; `apply` does one step and says by what it knows that it is done (a process id
/// that is gone, a counter that moved). Every fault that began is taken back before this returns, also with an error.
///
/// # Errors
/// When the first run is refused or cannot be measured. A refusal before a later run ends the drill and is part of the
/// report.
pub async fn run(
    drill: &'static Drill,
    count: usize,
    options: &Options,
    view: impl AsyncFn() -> Result<SystemView, String>,
    apply: impl AsyncFn(&Step) -> Result<String, String>,
) -> Result<Report, DrillError> {
    let mut runs = Vec::new();
    for number in 1..=count {
        (options.tell)(&format!("{drill}, run {number} of {count}"));
        match once(&drill.into(), number, options, &view, &apply).await {
            Ok(run) => runs.push(run),
            Err(error) if runs.is_empty() => return Err(error),
            Err(error) => {
                runs.push(Run { failures: vec![error.to_string()], ..Run::default() });
                break;
            }
        }
    }
    if let Ok(view) = view().await {
        readers::remove_table(options, &view).await.unwrap_or_else(|reason| (options.tell)(&reason));
    }
    Ok(Report::new(drill, runs))
}

/// Runs a drill spoiled on purpose, once: its verdict must be red.
///
/// # Errors
/// As [`run`].
pub async fn control(
    drill: &'static Drill,
    sabotage: Sabotage,
    options: &Options,
    view: impl AsyncFn() -> Result<SystemView, String>,
    apply: impl AsyncFn(&Step) -> Result<String, String>,
) -> Result<Control, DrillError> {
    let patience = match sabotage {
        // What is only pretended never has its effect. It is given the time that the fault would last, or the run would be red
        // for that alone.
        Sabotage::PretendedFault => options.patience.min(PRETENCE + drill.expectation().hold),
        Sabotage::LostWrite | Sabotage::DoubledWrite => options.patience,
    };
    (options.tell)(&format!("{drill} with {sabotage}"));
    let spoiled = Options { sabotage: Some(sabotage), patience, ..options.clone() };
    let run = once(&drill.into(), 1, &spoiled, &view, &apply).await;
    if let Ok(view) = view().await {
        readers::remove_table(options, &view).await.unwrap_or_else(|reason| (options.tell)(&reason));
    }
    Ok(sabotage.judge(drill, run?))
}

/// Runs drills one after another until they have gone on for `length`, of which `spent` is over already and `done` runs
/// are behind; tells `add` what came of each and how much is over then. A run that does not pass, or a step of which could
/// not be done, ends nothing.
///
/// # Errors
/// When the system does not come back to full redundancy or cannot be measured, or steps fail in three runs in a row.
pub async fn soak(
    order: Order,
    (length, spent, done): (Duration, Duration, usize),
    options: &Options,
    view: impl AsyncFn() -> Result<SystemView, String>,
    apply: impl AsyncFn(&Step) -> Result<String, String>,
    mut add: impl FnMut(&Mix, &Run, Duration),
) -> Result<(), DrillError> {
    let begun = clock::now();
    let mut undone = 0;
    for (number, mix) in order.enumerate().skip(done) {
        let over = spent + clock::now().since(begun);
        if over >= length {
            break;
        }
        (options.tell)(&format!(
            "run {} after {} of {} s: {mix}",
            number + 1,
            over.as_secs(),
            length.as_secs()
        ));
        let run = match once(&mix, number + 1, options, &view, &apply).await {
            Err(error @ DrillError::Step { .. }) if undone < MOST_UNDONE => {
                undone += 1;
                Run { failures: vec![error.to_string()], ..Run::default() }
            }
            other => {
                undone = 0;
                other?
            }
        };
        if !run.passed {
            (options.tell)(&format!("NOT PASSED: {}", run.failures.join("; ")));
        }
        add(&mix, &run, spent + clock::now().since(begun));
    }
    if let Ok(view) = view().await {
        readers::remove_table(options, &view).await.unwrap_or_else(|reason| (options.tell)(&reason));
    }
    Ok(())
}

/// In so many runs in a row a step may fail before a soak gives up.
const MOST_UNDONE: u32 = 2;

/// How long the effect of a pretended fault is waited for, beside the time that it would last.
const PRETENCE: Duration = Duration::from_secs(5);

/// Everything one run works with.
struct Stage {
    plan: Plan,
    cast: Cast,
    before: SystemView,
    name: RunName,
    client: Client,
    prober: Prober,
    workloads: Workloads,
}

async fn once(
    mix: &Mix,
    number: usize,
    options: &Options,
    view: &impl AsyncFn() -> Result<SystemView, String>,
    apply: &impl AsyncFn(&Step) -> Result<String, String>,
) -> Result<Run, DrillError> {
    let stage = set_up(mix, number, options, view, apply).await?;
    let mut watch = Watch::new(view);
    warm_up(&stage, options, &mut watch).await;
    let pretends = options.sabotage == Some(Sabotage::PretendedFault);
    let act = async |step: &Step| match pretends && *step != Step::AskStatus {
        true => Ok("it says so".to_owned()),
        false => apply(step).await,
    };
    let senders = senders(&stage, options).await;
    let course = play(&stage, options, &mut watch, &act).await;
    let same_senders = self::senders(&stage, options).await.intersection(&senders).count();
    let Stage { plan, cast, before, name, client, prober, workloads } = stage;
    let writes = client.stop().await.map_err(DrillError::NoLoad)?;
    let mut history: History = prober.stop().await.map_err(DrillError::NoLoad)?;
    history.writes.extend(writes);
    let course = course?;
    let mut recorded = workloads.stop().await.map_err(DrillError::NoLoad)?;
    if let Some((sabotage, victim)) = options.sabotage.and_then(|s| Some((s, s.victim(&history)?))) {
        readers::spoil(options, &before, &name, sabotage, victim).await.map_err(DrillError::NoLoad)?;
    }
    let (copies, unread) = readers::read_copies(options, &before, &name).await;
    recorded.push(loads::set(&history, &copies));
    let workloads =
        loads::judge(options, mix.main.name(), number, recorded).await.map_err(DrillError::NoLoad)?;
    Ok(verdict::judge(&verdict::Case {
        plan: &plan,
        options,
        primary: &cast.primary,
        members: &before.members,
        course: &course,
        watched: watch.seen(),
        history: &history,
        copies: &copies,
        unread: &unread,
        workloads: &workloads,
        same_senders,
    }))
}

/// The processes that send the primary's log, where it matters which; none where nobody says so, as beside another fault.
async fn senders(stage: &Stage, options: &Options) -> BTreeSet<String> {
    if !stage.plan.fault.iter().any(|step| step.shows() == Shows::OtherSenders) {
        return BTreeSet::new();
    }
    readers::senders(options, &stage.before).await.unwrap_or_default()
}

/// The system's state once nothing is missing. What is just coming to rest is waited for; what stays missing refuses.
async fn whole(
    view: &impl AsyncFn() -> Result<SystemView, String>,
    patience: Duration,
) -> Result<SystemView, DrillError> {
    let begun = clock::now();
    loop {
        let missing = match view().await {
            Ok(SystemView { missing: Some(missing), .. }) => {
                DrillError::Refused(format!("the system is not fully redundant: {missing}"))
            }
            Ok(view) => return Ok(view),
            Err(reason) => DrillError::NoView(reason),
        };
        if clock::now().since(begun) >= patience {
            return Err(missing);
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Who is who now.
fn cast(view: &SystemView, run: usize) -> Result<Cast, DrillError> {
    let Some(primary) = view.primary.clone() else {
        return Err(DrillError::Refused("there is no primary".to_owned()));
    };
    let others = view.members.iter().filter(|member| member.node != primary);
    let standbys: Vec<NodeName> = others.map(|member| member.node.clone()).collect();
    if standbys.is_empty() {
        return Err(DrillError::Refused("there is no standby".to_owned()));
    }
    Ok(Cast { primary, standbys, leader: view.leader.clone(), sites: view.sites.clone(), run })
}

/// Refuses what is not safe and brings about what the drill presupposes.
async fn prepare(
    mix: &Mix,
    number: usize,
    options: &Options,
    view: &impl AsyncFn() -> Result<SystemView, String>,
    apply: &impl AsyncFn(&Step) -> Result<String, String>,
) -> Result<(SystemView, Cast, Plan), DrillError> {
    let mut before = whole(view, SETTLE).await?;
    for _ in 0..PREPARATIONS {
        let cast = cast(&before, number)?;
        let mut plan = mix.plan(&cast);
        plan.expectation.primary = options.primary.unwrap_or(plan.expectation.primary);
        if plan.prepare.is_empty() {
            return Ok((before, cast, plan));
        }
        for step in &plan.prepare {
            course::carry_out(step, options, apply, &mut Vec::new()).await?;
        }
        before = whole(view, options.patience).await?;
    }
    Err(DrillError::Refused("what it presupposes could not be brought about".to_owned()))
}

/// How often the preparation may have to be repeated because something else moved meanwhile.
const PREPARATIONS: u32 = 4;

/// Refuses what is not safe, and starts client and prober.
async fn set_up(
    mix: &Mix,
    number: usize,
    options: &Options,
    view: &impl AsyncFn() -> Result<SystemView, String>,
    apply: &impl AsyncFn(&Step) -> Result<String, String>,
) -> Result<Stage, DrillError> {
    let (before, cast, plan) = prepare(mix, number, options, view, apply).await?;
    readers::create_table(options, &before).await.map_err(DrillError::NoLoad)?;
    let name = RunName::new();
    let workloads = loads::start(options, &before, &plan, &name).await.map_err(DrillError::NoLoad)?;
    let ids = Ids::default();
    let target = Target {
        entries: entries(&before, &plan),
        login: options.login.clone(),
        run: name.clone(),
        deadlines: Deadlines::default(),
        every: WRITE_EVERY,
        anew: plan.manner == Manner::ConnectsAnew,
    };
    let client = Client::start(&options.runtime, target, ids.clone());
    let prober = Prober::start(&options.runtime, &before.members, &options.login, &name, &ids);
    Ok(Stage { plan, cast, before, name, client, prober, workloads })
}

/// Load before the fault, for as long as was asked and until writes flow.
async fn warm_up<V: AsyncFn() -> Result<SystemView, String>>(
    stage: &Stage,
    options: &Options,
    watch: &mut Watch<'_, V>,
) {
    let begun = clock::now();
    let warm = |at: Moment| at.since(begun) >= options.warm_up && stage.client.acknowledged() >= FLOW;
    watch.until(options.patience, |now| warm(now.at)).await;
}

/// The route's addresses in the order in which the client tries them: the nodes that are struck most last, or first where
/// the drill is about them, the primary's before them. Beside a fault that strikes all nodes the other one counts.
fn entries(view: &SystemView, plan: &Plan) -> Vec<SocketAddr> {
    let most = plan.victims().len();
    let mut entries: Vec<&Entry> = view.routes.iter().collect();
    entries.sort_by_key(|entry| {
        let blows = plan.blows(&entry.node);
        let order = if plan.manner == Manner::ThroughVictim { most - blows } else { blows };
        (order, Some(&entry.node) == view.primary.as_ref())
    });
    entries.into_iter().map(|entry| entry.address).collect()
}
