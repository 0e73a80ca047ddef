//! Scripts of faults: what fails, when and for how long, and what must come of it. One text form for people who write them,
//! for the simulator and for the lab.

mod parse;
mod print;

use std::time::Duration;

pub use parse::{ScriptError, parse};

/// Whom a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The node whose server is a primary at that moment; the first node when there is none.
    Primary,
    /// The first member of the sync set at that moment; the second node when there is none.
    Standby,
    /// The node of this index, from 0; people count from 1: `n1`.
    Node(usize),
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
    /// Nothing that it sends arrives anywhere; it hears the others.
    Mute(Target),
    /// Nothing that it sends to this node arrives.
    OneWay(Target, usize),
    /// Long packets from and to it are lost: heartbeats come through, log does not.
    Narrow(Target),
    /// Messages are late, come twice and in another order.
    Slow,
    /// The postmaster is killed.
    Postmaster(Target),
    /// The volume of the database takes no writes.
    Disk(Target),
    /// The primary has not kept the log that this standby needs next.
    LogGone(Target),
    /// The volume of the database is empty.
    Wipe(Target),
    /// The coordination has no leader.
    Leaderless,
    /// An operator asks for a switchover.
    Switchover,
    /// An operator makes this member the primary and accepts what is lost.
    Force(Target),
    /// An operator pauses the automation.
    Pause,
    /// The system file wants another number of connections: every server has to restart.
    Apply(u32),
}

/// A fault with its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// When it begins, after the start.
    pub at: Duration,
    /// How long it lasts, when it is one that lasts.
    pub lasts: Duration,
    /// What it is.
    pub fault: Fault,
}

/// What kind of system the faults happen to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// How many nodes, all voters.
    pub nodes: usize,
    /// How many of them, the first ones, have a member of the database.
    pub members: usize,
    /// How many standbys confirm a commit.
    pub confirm: u32,
}

/// All faults of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Determines clocks, how long everything takes, and the system where no shape is given.
    pub seed: u64,
    /// The system.
    pub shape: Option<Shape>,
    /// Whether faults come one at a time: then outages must be short.
    pub single: bool,
    /// The faults, the earliest first.
    pub steps: Vec<Step>,
}

/// A file with a script, why it exists, and what must come of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptFile {
    /// A title and the reason, a line each; the first is the title.
    pub about: Vec<String>,
    /// What happens.
    pub script: Script,
    /// Whether a lab can do the same with real servers.
    pub in_the_lab: bool,
    /// What the simulated agents say and do, line by line.
    pub transcript: Vec<String>,
    /// What comes of it, simulated or real.
    pub story: Vec<String>,
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
            Self::Mute(_) => "node cut one way",
            Self::OneWay(..) => "link cut one way",
            Self::Narrow(_) => "long packets lost",
            Self::Slow => "messages late and doubled",
            Self::Postmaster(_) => "postmaster killed",
            Self::Disk(_) => "disk hangs",
            Self::LogGone(_) => "log not kept",
            Self::Wipe(_) => "data lost",
            Self::Leaderless => "coordination without leader",
            Self::Switchover => "switchover asked for",
            Self::Force(_) => "failover forced",
            Self::Pause => "automation paused",
            Self::Apply(_) => "settings changed",
        }
    }

    /// Whom it hits, if one node.
    pub fn target(&self) -> Option<Target> {
        match self {
            Self::Power(target)
            | Self::Agent(target)
            | Self::AgentStalls(target)
            | Self::Freeze(target)
            | Self::Isolate(target)
            | Self::Mute(target)
            | Self::OneWay(target, _)
            | Self::Narrow(target)
            | Self::Postmaster(target)
            | Self::Disk(target)
            | Self::LogGone(target)
            | Self::Wipe(target)
            | Self::Force(target) => Some(*target),
            Self::Slow | Self::Leaderless | Self::Switchover | Self::Pause | Self::Apply(_) => None,
        }
    }

    /// The same, to this node.
    #[must_use]
    pub fn at(self, node: usize) -> Self {
        let target = Target::Node(node);
        match self {
            Self::Power(_) => Self::Power(target),
            Self::Agent(_) => Self::Agent(target),
            Self::AgentStalls(_) => Self::AgentStalls(target),
            Self::Freeze(_) => Self::Freeze(target),
            Self::Isolate(_) => Self::Isolate(target),
            Self::Mute(_) => Self::Mute(target),
            Self::OneWay(_, other) => Self::OneWay(target, other),
            Self::Narrow(_) => Self::Narrow(target),
            Self::Postmaster(_) => Self::Postmaster(target),
            Self::Disk(_) => Self::Disk(target),
            Self::LogGone(_) => Self::LogGone(target),
            Self::Wipe(_) => Self::Wipe(target),
            Self::Force(_) => Self::Force(target),
            Self::Slow | Self::Leaderless | Self::Switchover | Self::Pause | Self::Apply(_) => self,
        }
    }

    /// Whether it lasts until it is taken back.
    pub fn lasts(&self) -> bool {
        match self {
            Self::Power(_)
            | Self::Agent(_)
            | Self::AgentStalls(_)
            | Self::Freeze(_)
            | Self::Isolate(_)
            | Self::Mute(_)
            | Self::OneWay(..)
            | Self::Narrow(_)
            | Self::Slow
            | Self::Disk(_)
            | Self::Leaderless
            | Self::Pause => true,
            Self::Postmaster(_)
            | Self::LogGone(_)
            | Self::Wipe(_)
            | Self::Switchover
            | Self::Force(_)
            | Self::Apply(_) => false,
        }
    }
}

#[cfg(test)]
mod tests;
