//! The middle of a run: faults, their effect, recovery, redundancy.

use std::fmt;
use std::time::Duration;

use effects::clock;
use model::NodeName;
use model::time::Moment;
use tokio::time::sleep;

use super::super::plan::{Change, Writes};
use super::super::step::Step;
use super::watch::{Watch, Watched};
use super::{DrillError, Options, Stage, SystemView};

/// Load after all is well again, so that the end of the measurement is not the end of a gap.
const SETTLING: Duration = Duration::from_millis(500);

/// Acknowledgements that count as writes flowing, before the fault and again after it.
pub(super) const FLOW: u64 = 50;

/// Acknowledgements that count as writes flowing between two acts of a fault, where links may be slow.
const SOME: u64 = 10;

/// The moments of a run, and what was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Course {
    /// Before the fault's first act.
    pub(super) begun: Moment,
    /// After its last.
    pub(super) struck: Moment,
    /// Before the recovery's first act.
    pub(super) healing: Moment,
    /// The node that was started first, where writes wait for it.
    pub(super) first: Option<NodeName>,
    /// From when redundancy is timed: after the recovery's last act, or the fault where nothing has to return.
    pub(super) returned: Moment,
    /// When full redundancy was believed, or patience ran out.
    pub(super) settled: Moment,
    /// Whether writes flowed again, where they must before the recovery, else after it.
    pub(super) flows: bool,
    /// How many connections the client made after the fault's first act.
    pub(super) reconnects: u64,
    /// What was done, in the order of time.
    pub(super) deeds: Vec<Deed>,
}

/// Something that was done to the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Deed {
    /// When it began.
    pub(super) at: Moment,
    /// What was done.
    pub(super) what: String,
    /// By what it is known that it was done; empty when by nothing.
    pub(super) proof: String,
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.proof)
    }
}

/// Fault, effect, recovery, redundancy. A fault that began is taken back whatever happens.
pub(super) async fn play<V: AsyncFn() -> Result<SystemView, String>>(
    stage: &Stage,
    options: &Options,
    watch: &mut Watch<'_, V>,
    apply: &impl AsyncFn(&Step) -> Result<String, String>,
) -> Result<Course, DrillError> {
    let warm = stage.client.acknowledged();
    if warm < FLOW {
        return Err(DrillError::NoLoad(format!("only {warm} writes were acknowledged before the fault")));
    }
    let mut deeds = Vec::new();
    let played = acts(stage, options, watch, apply, &mut deeds).await;
    if played.is_err() {
        // What has been taken back already says so; that is no failure of its own.
        for step in &stage.plan.recovery {
            let _ = carry_out(step, options, apply, &mut deeds).await;
        }
    }
    Ok(Course { deeds, ..played? })
}

async fn acts<V: AsyncFn() -> Result<SystemView, String>>(
    stage: &Stage,
    options: &Options,
    watch: &mut Watch<'_, V>,
    apply: &impl AsyncFn(&Step) -> Result<String, String>,
    deeds: &mut Vec<Deed>,
) -> Result<Course, DrillError> {
    let (plan, connections) = (&stage.plan, stage.client.connections());
    let begun = clock::now();
    let mut flowed = true;
    for step in &plan.fault {
        if *step == Step::AwaitWrites {
            // Who has waited in vain for writes goes on: all the more there is to be taken back and told.
            flowed &= writes_flow(stage, options, watch, SOME).await;
        } else {
            carry_out(step, options, apply, deeds).await?;
        }
    }
    let struck = clock::now();
    let mut flows = match plan.expectation.writes {
        Writes::GoOn => does_what_is_expected(stage, options, watch, struck).await && flowed,
        Writes::WaitForFirst(_) | Writes::WaitForAll(_) | Writes::MayWait(_) => {
            held(stage, watch, struck).await
        }
    };
    if !plan.expectation.status.is_empty() {
        carry_out(&Step::AskStatus, options, apply, deeds).await?;
    }
    let healing = clock::now();
    let mut first = None;
    for step in &plan.recovery {
        carry_out(step, options, apply, deeds).await?;
        if let (Writes::WaitForFirst(_), None) = (plan.expectation.writes, &first) {
            first = step.nodes().first().cloned();
            flows = writes_flow(stage, options, watch, FLOW).await;
        }
    }
    let returned = if plan.recovery.is_empty() { begun } else { clock::now() };
    if let Writes::WaitForAll(_) | Writes::MayWait(_) = plan.expectation.writes {
        flows = writes_flow(stage, options, watch, FLOW).await;
    }
    (options.tell)("waiting for full redundancy");
    watch.until_settled(options.patience, returned).await;
    let settled = clock::now();
    // Let the client show that writes go on.
    sleep(SETTLING).await;
    let reconnects = stage.client.connections() - connections;
    let deeds = Vec::new();
    Ok(Course { begun, struck, healing, first, returned, settled, flows, reconnects, deeds })
}

pub(super) async fn carry_out(
    step: &Step,
    options: &Options,
    apply: &impl AsyncFn(&Step) -> Result<String, String>,
    deeds: &mut Vec<Deed>,
) -> Result<(), DrillError> {
    let at = clock::now();
    (options.tell)(&step.to_string());
    let proof = apply(step).await.map_err(|reason| DrillError::Step { step: step.clone(), reason })?;
    deeds.push(Deed { at, what: step.to_string(), proof });
    Ok(())
}

/// Waits until the system did what is expected of it and writes flow; false when patience runs out.
async fn does_what_is_expected<V: AsyncFn() -> Result<SystemView, String>>(
    stage: &Stage,
    options: &Options,
    watch: &mut Watch<'_, V>,
    struck: Moment,
) -> bool {
    let expectation = &stage.plan.expectation;
    let hold = if stage.plan.recovery.is_empty() { Duration::ZERO } else { expectation.hold };
    let as_expected = |now: &Watched| {
        let moved = now.primary.as_ref().is_some_and(|primary| *primary != stage.cast.primary);
        match expectation.primary {
            Change::Changes => moved,
            Change::Stays => !moved,
            Change::Any => true,
        }
    };
    let mut enough = None;
    watch
        .until(options.patience, |now| {
            if !as_expected(now) {
                return false;
            }
            // Counted from here, so that what was acknowledged before the change does not count.
            let flowing = enough.get_or_insert_with(|| stage.client.acknowledged() + FLOW);
            stage.client.acknowledged() >= *flowing && now.at.since(struck) >= hold
        })
        .await
}

/// Lets a fault last that writes have to wait for.
async fn held<V: AsyncFn() -> Result<SystemView, String>>(
    stage: &Stage,
    watch: &mut Watch<'_, V>,
    struck: Moment,
) -> bool {
    let hold = stage.plan.expectation.hold;
    watch.until(hold, |now| now.at.since(struck) >= hold).await
}

/// Waits until writes flow from now on; false when patience runs out.
async fn writes_flow<V: AsyncFn() -> Result<SystemView, String>>(
    stage: &Stage,
    options: &Options,
    watch: &mut Watch<'_, V>,
    count: u64,
) -> bool {
    (options.tell)("waiting for writes");
    let enough = stage.client.acknowledged() + count;
    watch.until(options.patience, |_| stage.client.acknowledged() >= enough).await
}
