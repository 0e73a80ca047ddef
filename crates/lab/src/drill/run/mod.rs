//! One drill from the first question to the verdict.

mod readers;
mod verdict;
mod watch;

use std::net::SocketAddr;
use std::time::Duration;

use effects::clock;
use model::NodeName;
use model::time::Moment;
use tokio::runtime::Handle;
use tokio::time::sleep;
use tokio_postgres::Config;

use super::catalogue::{Drill, Plan, Step, Victim};
use super::client::{Client, Ids, Target, WRITE_EVERY};
use super::history::{History, Member};
use super::prober::Prober;
use super::report::{Report, Run};
use super::session::Deadlines;
use super::table::RunName;
use verdict::Course;
use watch::Watch;

/// How long a system may take to come to rest before a drill is refused.
const SETTLE: Duration = Duration::from_secs(5);

/// What the system says of itself at one moment, asked for by the caller in whatever way there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemView {
    /// The node of the member that is primary and accepts writes.
    pub primary: Option<NodeName>,
    /// What is missing from full redundancy, in a sentence; `None` when nothing is.
    pub missing: Option<String>,
    /// The database's members.
    pub members: Vec<Member>,
    /// Where the route to the primary is served.
    pub routes: Vec<Entry>,
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
    /// User, password and database for the route and for members.
    pub login: Config,
    /// How long a member may serve as primary without renewing its lease.
    pub lease: Duration,
    /// Load before the fault.
    pub warm_up: Duration,
    /// How long a lasting fault lasts at least: longer than the lease, so that what wakes up is out of date.
    pub hold: Duration,
    /// How long to wait for writes to flow again, and for full redundancy.
    pub patience: Duration,
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
    /// The ordinary way: 2 s of load, 2 s of lease, faults that last 3 s, a minute of patience.
    pub fn new(runtime: Handle, login: Config) -> Self {
        Self {
            runtime,
            login,
            lease: Duration::from_secs(2),
            warm_up: Duration::from_secs(2),
            hold: Duration::from_secs(3),
            patience: Duration::from_secs(60),
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
    drill: Drill,
    count: usize,
    options: &Options,
    view: impl AsyncFn() -> Result<SystemView, String>,
    apply: impl AsyncFn(&Step) -> Result<String, String>,
) -> Result<Report, DrillError> {
    let mut runs = Vec::new();
    for number in 1..=count {
        (options.tell)(&format!("{drill}, run {number} of {count}"));
        match once(drill, options, &view, &apply).await {
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

/// Everything one run works with.
struct Stage {
    plan: Plan,
    before: SystemView,
    primary: NodeName,
    victim: NodeName,
    name: RunName,
    client: Client,
    prober: Prober,
}

async fn once(
    drill: Drill,
    options: &Options,
    view: &impl AsyncFn() -> Result<SystemView, String>,
    apply: &impl AsyncFn(&Step) -> Result<String, String>,
) -> Result<Run, DrillError> {
    let stage = set_up(drill.plan(), options, view).await?;
    let mut watch = Watch::new(view);
    warm_up(&stage, options, &mut watch).await;
    let course = play(&stage, options, &mut watch, apply).await;
    let Stage { plan, before, primary, victim, name, client, prober } = stage;
    let writes = client.stop().await.map_err(DrillError::NoLoad)?;
    let mut history: History = prober.stop().await.map_err(DrillError::NoLoad)?;
    history.writes.extend(writes);
    let course = course?;
    let (copies, unread) = readers::read_copies(options, &before, &name).await;
    Ok(verdict::judge(&verdict::Case {
        plan: &plan,
        options,
        primary: &primary,
        victim: &victim,
        members: &before.members,
        course: &course,
        watched: watch.seen(),
        history: &history,
        copies: &copies,
        unread: &unread,
    }))
}

/// The system's state once nothing is missing. What is just coming to rest is waited for; what stays missing refuses.
async fn whole(view: &impl AsyncFn() -> Result<SystemView, String>) -> Result<SystemView, DrillError> {
    let begun = clock::now();
    loop {
        let missing = match view().await {
            Ok(SystemView { missing: Some(missing), .. }) => {
                DrillError::Refused(format!("the system is not fully redundant: {missing}"))
            }
            Ok(view) => return Ok(view),
            Err(reason) => DrillError::NoView(reason),
        };
        if clock::now().since(begun) >= SETTLE {
            return Err(missing);
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Refuses what is not safe, chooses the victim, and starts client and prober.
async fn set_up(
    plan: Plan,
    options: &Options,
    view: &impl AsyncFn() -> Result<SystemView, String>,
) -> Result<Stage, DrillError> {
    let before = whole(view).await?;
    let Some(primary) = before.primary.clone() else {
        return Err(DrillError::Refused("there is no primary".to_owned()));
    };
    let standby =
        before.members.iter().find(|member| member.node != primary).map(|member| member.node.clone());
    let Some(standby) = standby else {
        return Err(DrillError::Refused("there is no standby".to_owned()));
    };
    let victim = match plan.victim {
        Victim::Primary => primary.clone(),
        Victim::Standby => standby,
    };
    readers::create_table(options, &before).await.map_err(DrillError::NoLoad)?;
    let name = RunName::new();
    let ids = Ids::default();
    let target = Target {
        entries: entries(&before, &victim),
        login: options.login.clone(),
        run: name.clone(),
        deadlines: Deadlines::default(),
        every: WRITE_EVERY,
    };
    let client = Client::start(&options.runtime, target, ids.clone());
    let prober = Prober::start(&options.runtime, &before.members, &options.login, &name, &ids);
    Ok(Stage { plan, before, primary, victim, name, client, prober })
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

/// The route's addresses in the order in which the client tries them: the victim's node last, the primary's before it.
/// The client is an outside one; that its own entry dies with the fault is another drill.
fn entries(view: &SystemView, victim: &NodeName) -> Vec<SocketAddr> {
    let mut entries: Vec<&Entry> = view.routes.iter().collect();
    entries.sort_by_key(|entry| (entry.node == *victim, Some(&entry.node) == view.primary.as_ref()));
    entries.into_iter().map(|entry| entry.address).collect()
}

/// Fault, effect, recovery, redundancy. A fault that began is taken back whatever happens.
async fn play<V: AsyncFn() -> Result<SystemView, String>>(
    stage: &Stage,
    options: &Options,
    watch: &mut Watch<'_, V>,
    apply: &impl AsyncFn(&Step) -> Result<String, String>,
) -> Result<Course, DrillError> {
    let warm = stage.client.acknowledged();
    if warm < FLOW {
        return Err(DrillError::NoLoad(format!("only {warm} writes were acknowledged before the fault")));
    }
    let fault = (stage.plan.fault)(stage.victim.clone());
    let recovery = stage.plan.recovery.map(|step| step(stage.victim.clone()));
    let mut evidence = Vec::new();
    let begun = clock::now();
    let done = carry_out(&fault, options, apply, &mut evidence).await;
    if let (Err(error), recovery) = (done, &recovery) {
        if let Some(step) = recovery {
            let _ = carry_out(step, options, apply, &mut evidence).await;
        }
        return Err(error);
    }
    let struck = clock::now();
    let flows = writes_flow(stage, options, watch, struck).await;
    let healing = clock::now();
    if let Some(step) = &recovery {
        carry_out(step, options, apply, &mut evidence).await?;
    }
    let returned = if recovery.is_some() { clock::now() } else { begun };
    (options.tell)("waiting for full redundancy");
    watch.until_settled(options.patience, returned).await;
    let settled = clock::now();
    // Let the client show that writes go on.
    sleep(SETTLING).await;
    Ok(Course { begun, struck, healing, returned, settled, flows, evidence })
}

/// Load after all is well again, so that the end of the measurement is not the end of a gap.
const SETTLING: Duration = Duration::from_millis(500);

/// Acknowledgements that count as writes flowing, before the fault and again after it.
const FLOW: u64 = 50;

async fn carry_out(
    step: &Step,
    options: &Options,
    apply: &impl AsyncFn(&Step) -> Result<String, String>,
    evidence: &mut Vec<String>,
) -> Result<(), DrillError> {
    (options.tell)(&step.to_string());
    let proof = apply(step).await.map_err(|reason| DrillError::Step { step: step.clone(), reason })?;
    evidence.push(format!("{step}: {proof}"));
    Ok(())
}

/// Waits until the system did what is expected of it and writes flow; false when patience runs out.
async fn writes_flow<V: AsyncFn() -> Result<SystemView, String>>(
    stage: &Stage,
    options: &Options,
    watch: &mut Watch<'_, V>,
    struck: Moment,
) -> bool {
    let hold = if stage.plan.recovery.is_some() { options.hold } else { Duration::ZERO };
    let mut enough = None;
    watch
        .until(options.patience, |now| {
            let moved = now.primary.as_ref().is_some_and(|primary| *primary != stage.primary);
            if moved == stage.plan.expectation.primary_changes {
                // Counted from here, so that what was acknowledged before the change does not count.
                let flowing = enough.get_or_insert_with(|| stage.client.acknowledged() + FLOW);
                return stage.client.acknowledged() >= *flowing && now.at.since(struck) >= hold;
            }
            false
        })
        .await
}
