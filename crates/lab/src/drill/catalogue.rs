//! The drills by name, and the layers they belong to. What each does and must bring about lies in [`faults`].

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use model::NodeName;

use super::act::{Needs, Shows};
use super::faults;
use super::plan::{Cast, Expectation, Manner, Plan};
use super::step::Step;

/// A rehearsed fault: what is done, to whom, and what must come of it.
pub struct Drill {
    /// Its name on the command line.
    pub(super) name: &'static str,
    /// Where the fault strikes.
    pub(super) layer: Layer,
    /// What it does, in one sentence.
    pub(super) summary: &'static str,
    /// What must come of it. A run may vary (see [`Drill::plan`]).
    pub(super) expectation: Expectation,
    /// How the client behaves.
    pub(super) manner: Manner,
    /// What is done.
    pub(super) acts: fn(&Cast) -> Vec<Step>,
    /// How a run differs from the plain plan: acts, then what takes each of them back.
    pub(super) vary: fn(&mut Plan, &Cast),
    /// Whether a run in which nothing was done to the system looks different from outside.
    pub(super) shows: bool,
    /// Whether it may go on beside another fault: no member is lost by it.
    pub(super) is_light: bool,
    /// How to make more of it than one run, where that is what it is for.
    pub(super) longer: Option<&'static str>,
}

/// Where a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// A single process.
    Process,
    /// A whole machine.
    Node,
    /// Storage.
    Disk,
    /// Memory, processors, numbers of processes and connections.
    Resources,
    /// What time it is.
    Clock,
    /// Links between machines.
    Network,
    /// A whole site or line.
    Site,
    /// What people do and write into files.
    Operator,
}

impl Layer {
    /// All layers, in the order in which documents list them.
    pub const ALL: [Self; 8] = [
        Self::Process,
        Self::Node,
        Self::Disk,
        Self::Resources,
        Self::Clock,
        Self::Network,
        Self::Site,
        Self::Operator,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Node => "node",
            Self::Disk => "disk",
            Self::Resources => "resources",
            Self::Clock => "clock",
            Self::Network => "network",
            Self::Site => "site",
            Self::Operator => "operator",
        }
    }
}

impl Drill {
    /// What a drill has that says nothing else; name, acts and expectation must be given.
    pub(super) const PLAIN: Self = Self {
        name: "",
        layer: Layer::Process,
        summary: "",
        expectation: super::plan::failover("", 0),
        manner: Manner::Stays,
        acts: |_| vec![],
        vary: |_, _| {},
        shows: true,
        is_light: false,
        longer: None,
    };

    /// All drills, in the order in which documents list them.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        faults::drills()
    }

    /// Its name on the command line.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Where its fault strikes.
    pub const fn layer(&self) -> Layer {
        self.layer
    }

    /// What it does, in one sentence.
    pub const fn summary(&self) -> &'static str {
        self.summary
    }

    /// What must come of it. A run may vary in who becomes the primary (see [`Drill::plan`]).
    pub const fn expectation(&self) -> Expectation {
        self.expectation
    }

    /// What is done in a run, what takes it back, and what must come of it.
    pub fn plan(&self, cast: &Cast) -> Plan {
        let fault = (self.acts)(cast);
        let recovery: Vec<Step> = fault.iter().flat_map(Step::undo).collect();
        let (manner, expectation) = (self.manner, self.expectation);
        let mut plan = Plan { prepare: vec![], fault, recovery, manner, expectation };
        (self.vary)(&mut plan, cast);
        plan
    }

    /// Whether it is for databases that may lose writes, and for no other.
    pub const fn is_for_async(&self) -> bool {
        self.expectation.loses
    }

    /// Whether it may go on beside another fault.
    pub const fn is_light(&self) -> bool {
        self.is_light
    }

    /// Whether the two cannot go on at once: what takes back the one would take back the other as well, or together they are
    /// more than the loss of one node, which is all that a system of three claims to survive.
    pub fn clashes(&self, other: &Self) -> bool {
        self.is_undone_with(other)
            || self.strikes_agents_beside(other)
            || self.looks_like_death_with(other)
            || other.looks_like_death_with(self)
            || self.loses_everywhere()
            || other.loses_everywhere()
    }

    /// Whether it loses packets of several nodes: between each two many exchanges fail. Streams of log that live
    /// through it are all that can be asked for, not that they begin anew soon, as almost any other fault makes them.
    fn loses_everywhere(&self) -> bool {
        let loses =
            |step: &&Step| step.act().is_some_and(|act| [&faults::LOSE, &faults::LEAK].contains(&act));
        self.example().iter().filter(loses).flat_map(Step::nodes).count() > 1
    }

    fn is_undone_with(&self, other: &Self) -> bool {
        let undone = |drill: &Self| -> Vec<Step> { drill.example().iter().flat_map(Step::undo).collect() };
        let others: Vec<_> = undone(other).iter().filter_map(Step::act).collect();
        undone(self).iter().filter_map(Step::act).any(|act| others.contains(&act))
    }

    /// Whether each strikes agents, of more than one node together: the rest is no majority.
    fn strikes_agents_beside(&self, other: &Self) -> bool {
        let (mine, others) = (self.agents_struck(), other.agents_struck());
        !mine.is_empty() && !others.is_empty() && mine.union(&others).count() > 1
    }

    /// Whether this one takes away the agent of a node, and the other one its connections to standbys: nobody could tell
    /// that from the death of the node.
    fn looks_like_death_with(&self, other: &Self) -> bool {
        let agents = self.agents_struck();
        let ends = |step: &Step| step.act() == Some(&faults::END_REPLICATION);
        other
            .example()
            .iter()
            .filter(|step| ends(step))
            .flat_map(Step::nodes)
            .any(|node| agents.contains(node))
    }

    fn agents_struck(&self) -> BTreeSet<NodeName> {
        let strikes = |step: &&Step| matches!(step.shows(), Shows::AnotherAgent | Shows::SilentAgent);
        self.example().iter().filter(strikes).flat_map(Step::nodes).cloned().collect()
    }

    /// How to make more of it than one run, where that is what it is for.
    pub const fn longer(&self) -> Option<&'static str> {
        self.longer
    }

    /// What the nodes it strikes must have.
    pub fn needs(&self) -> Needs {
        self.example().iter().map(Step::needs).max().unwrap_or(Needs::Nothing)
    }

    /// What is done to anybody.
    fn example(&self) -> Vec<Step> {
        (self.acts)(&Cast::of("primary", &["standby", "other"]))
    }
}

impl fmt::Display for Drill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name)
    }
}

impl fmt::Debug for Drill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Drill {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Drill {}

/// A name that is no drill's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no drill `{0}`{hint}", hint = similar(.0))]
pub struct UnknownDrill(String);

/// The drills whose names share a word with this one.
fn similar(name: &str) -> String {
    let shares =
        |drill: &&Drill| drill.name.split('-').any(|word| name.split('-').any(|given| given == word));
    let names: Vec<&str> = Drill::all().filter(shares).map(Drill::name).collect();
    if names.is_empty() { String::new() } else { format!("; there are: {}", names.join(", ")) }
}

impl FromStr for &'static Drill {
    type Err = UnknownDrill;

    fn from_str(name: &str) -> Result<Self, UnknownDrill> {
        Drill::all().find(|drill| drill.name == name).ok_or_else(|| UnknownDrill(name.to_owned()))
    }
}

/// The drill of this name.
#[cfg(test)]
#[track_caller]
pub(super) fn drill(name: &str) -> &'static Drill {
    name.parse().unwrap()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn drills_are_found_by_their_names() {
        for drill in Drill::all() {
            assert_eq!(drill.name().parse::<&'static Drill>().unwrap(), drill);
        }
        let error = "node-earthquake".parse::<&'static Drill>().unwrap_err().to_string();
        assert!(error.contains("`node-earthquake`") && error.contains("node-freeze"), "{error}");
        assert!(!error.contains("switchover"), "{error}");
    }

    #[test]
    fn every_drill_says_what_it_does_and_what_must_come_of_it() {
        let mut names = BTreeSet::new();
        for drill in Drill::all() {
            assert!(names.insert(drill.name), "two drills are called {drill}");
            assert!(!drill.summary.is_empty() && !drill.expectation.words.is_empty(), "{drill}");
        }
    }
}
