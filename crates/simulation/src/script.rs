//! What fails in a run, and when: an explicit list that the seed determines before the run begins, so that a shorter list
//! can be tried with the same seed.

use std::fmt;
use std::time::Duration;

use crate::random::{Random, mix};

/// How long anything may fail.
pub(crate) const SAFETY_PHASE: Duration = Duration::from_secs(40);

/// When the first fault may happen: the database has been created by then.
const FIRST: Duration = Duration::from_secs(8);

/// So often faults come one at a time, and clients are promised short outages.
const SINGLE: usize = 4;

/// How long a fault that comes alone lasts, and when the next one follows.
const ALONE: (Duration, Duration) = (Duration::from_secs(7), Duration::from_secs(15));

/// Whom a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The node whose server is a primary at that moment; the first node when there is none.
    Primary,
    /// This node.
    Node(usize),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Primary => f.write_str("the primary"),
            Self::Node(node) => write!(f, "n{node}"),
        }
    }
}

/// One fault, or something as dangerous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The machine loses power: nobody says goodbye, and what was not flushed is lost.
    Power(Target),
    /// The agent is killed; its kernel and its PostgreSQL live.
    Agent(Target),
    /// The agent stands still; its kernel and its PostgreSQL live.
    AgentStalls(Target),
    /// The machine stands still.
    Freeze(Target),
    /// Cut off from everybody.
    Isolate(Target),
    /// One direction of one link is cut.
    OneWay(Target, usize),
    /// Messages are late, come twice and in another order.
    Slow,
    /// The postmaster is killed.
    Postmaster(Target),
    /// The volume of the database takes no writes.
    Disk(Target),
    /// The coordination has no leader.
    Leaderless,
    /// An operator asks for a switchover.
    Switchover,
    /// The system file wants another number of connections: every server has to restart.
    Apply(u32),
}

impl Fault {
    /// What kind it is, for counting.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Power(_) => "power loss",
            Self::Agent(_) => "agent killed",
            Self::AgentStalls(_) => "agent frozen",
            Self::Freeze(_) => "machine frozen",
            Self::Isolate(_) => "node cut off",
            Self::OneWay(..) => "link cut one way",
            Self::Slow => "messages late and doubled",
            Self::Postmaster(_) => "postmaster killed",
            Self::Disk(_) => "disk hangs",
            Self::Leaderless => "coordination without leader",
            Self::Switchover => "switchover asked for",
            Self::Apply(_) => "settings changed",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Power(target)
            | Self::Agent(target)
            | Self::AgentStalls(target)
            | Self::Freeze(target)
            | Self::Isolate(target)
            | Self::Postmaster(target)
            | Self::Disk(target) => write!(f, "{}: {target}", self.kind()),
            Self::OneWay(from, to) => write!(f, "{}: {from} to n{to}", self.kind()),
            Self::Apply(connections) => write!(f, "{}: {connections} connections", self.kind()),
            Self::Slow | Self::Leaderless | Self::Switchover => f.write_str(self.kind()),
        }
    }
}

/// A fault with its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// When it begins, after the start.
    pub at: Duration,
    /// How long it lasts.
    pub lasts: Duration,
    /// What it is.
    pub fault: Fault,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {:>6} ms for {:>5} ms  {}", self.at.as_millis(), self.lasts.as_millis(), self.fault)
    }
}

/// All faults of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Determines the system, its clocks, and how long everything takes.
    pub seed: u64,
    /// Whether faults come one at a time: then outages must be short.
    pub single: bool,
    /// The faults, the earliest first.
    pub steps: Vec<Step>,
}

impl Script {
    /// The script of a seed.
    pub fn of(seed: u64) -> Self {
        let mut random = Random::new(mix(seed ^ 0x5C41_7D00_1BAD_10CC));
        let single = random.once_in(SINGLE);
        let mut steps = if single { alone(&mut random) } else { storm(&mut random) };
        if !single {
            steps.extend(changes(&mut random));
            steps.sort_by_key(|step| step.at);
        }
        Self { seed, single, steps }
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}, {} faults:", self.seed, self.steps.len())?;
        self.steps.iter().try_for_each(|step| writeln!(f, "  {step}"))
    }
}

/// Several at once.
fn storm(random: &mut Random) -> Vec<Step> {
    let mut steps = vec![];
    let mut at = FIRST;
    while at < SAFETY_PHASE {
        let target = if random.once_in(2) { Target::Primary } else { Target::Node(random.below(5)) };
        let fault = match random.below(16) {
            0..=2 => Fault::Power(target),
            3 | 4 => Fault::Agent(target),
            5 => Fault::AgentStalls(target),
            6 => Fault::Freeze(target),
            7 => Fault::Isolate(target),
            8 => Fault::OneWay(target, random.below(5)),
            9 => Fault::Slow,
            10 => Fault::Disk(target),
            11 => Fault::Leaderless,
            12 | 13 => Fault::Switchover,
            _ => Fault::Postmaster(target),
        };
        steps.push(Step { at, lasts: random.between(30_000, 6_000_000), fault });
        at += random.between(50_000, 4_000_000);
    }
    steps
}

/// One at a time, each with time to recover.
fn alone(random: &mut Random) -> Vec<Step> {
    let mut steps = vec![];
    let mut at = FIRST;
    while at + ALONE.0 < SAFETY_PHASE {
        let target = if random.once_in(3) { Target::Node(random.below(3)) } else { Target::Primary };
        let fault = match random.below(9) {
            0 => Fault::Power(target),
            1 => Fault::Agent(target),
            2 => Fault::AgentStalls(target),
            3 => Fault::Freeze(target),
            4 => Fault::Isolate(target),
            5 => Fault::Disk(target),
            6 => Fault::Leaderless,
            7 => Fault::Switchover,
            _ => Fault::Postmaster(target),
        };
        steps.push(Step { at, lasts: ALONE.0, fault });
        at += ALONE.1;
    }
    steps
}

/// Changes of the system file.
fn changes(random: &mut Random) -> Vec<Step> {
    let mut steps = vec![];
    let mut at = Duration::from_secs(6);
    while at < SAFETY_PHASE {
        let fault = Fault::Apply([50, 100, 200, 300][random.below(4)]);
        steps.push(Step { at, lasts: Duration::ZERO, fault });
        at += random.between(500_000, 12_000_000);
    }
    steps
}
