//! Controls of the drills themselves: a run is spoiled on purpose, and its verdict must be red.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::catalogue::Drill;
use super::history::{History, Outcome, WriteId, Writer};
use super::report::Run;

/// How a run is spoiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sabotage {
    /// Nothing is done to the system, and whoever should have done it says that it is done.
    PretendedFault,
    /// An acknowledged write is deleted before it is looked for.
    LostWrite,
    /// An acknowledged write is there twice when it is looked for.
    DoubledWrite,
}

/// What came of one control.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Control {
    /// The drill's name.
    pub drill: &'static str,
    /// How the run was spoiled.
    pub sabotage: Sabotage,
    /// Whether the verdict was red for it.
    pub caught: bool,
    /// Why the run was red.
    pub failures: Vec<String>,
}

/// A name that is no sabotage's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is none of {names}", names = Sabotage::ALL.map(Sabotage::name).join(", "))]
pub struct UnknownSabotage(String);

impl Sabotage {
    /// Every way.
    pub const ALL: [Self; 3] = [Self::PretendedFault, Self::LostWrite, Self::DoubledWrite];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PretendedFault => "pretended-fault",
            Self::LostWrite => "lost-write",
            Self::DoubledWrite => "doubled-write",
        }
    }

    /// Whether a run of this drill can be spoiled so that it shows. That a proxy has lost its agent is seen by nobody
    /// outside but who cut it off; where writes must be lost, one more is no difference.
    pub fn suits(self, drill: &Drill) -> bool {
        match self {
            Self::PretendedFault => drill.shows,
            Self::LostWrite | Self::DoubledWrite => !drill.is_for_async(),
        }
    }

    /// The result of a run that was spoiled in this way.
    pub(super) fn judge(self, drill: &Drill, run: Run) -> Control {
        let shows = match self {
            Self::PretendedFault => true,
            Self::LostWrite => run.lost == 1,
            Self::DoubledWrite => run.doubled == 1,
        };
        Control { drill: drill.name(), sabotage: self, caught: !run.passed && shows, failures: run.failures }
    }

    /// The write to spoil: one of the client's in the middle of those that were acknowledged.
    pub(super) fn victim(self, history: &History) -> Option<WriteId> {
        if self == Self::PretendedFault {
            return None;
        }
        let acknowledged: Vec<WriteId> = history
            .writes
            .iter()
            .filter(|write| write.by == Writer::Client && matches!(write.outcome, Outcome::Acknowledged(_)))
            .map(|write| write.id)
            .collect();
        acknowledged.get(acknowledged.len() / 2).copied()
    }
}

impl fmt::Display for Sabotage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Sabotage {
    type Err = UnknownSabotage;

    fn from_str(name: &str) -> Result<Self, UnknownSabotage> {
        let found = Self::ALL.into_iter().find(|sabotage| sabotage.name() == name);
        found.ok_or_else(|| UnknownSabotage(name.to_owned()))
    }
}

impl fmt::Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { drill, sabotage, caught, failures } = self;
        let because = failures.join("; ");
        match caught {
            true => write!(f, "drill {drill} with {sabotage}: red, as it must be: {because}"),
            false if failures.is_empty() => {
                write!(
                    f,
                    "drill {drill} with {sabotage}: GREEN: this drill cannot tell, so its verdicts prove nothing"
                )
            }
            false => write!(f, "drill {drill} with {sabotage}: red for another reason: {because}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::catalogue::drill;
    use super::*;

    #[test]
    fn every_drill_has_a_control_that_must_turn_it_red() {
        for drill in Drill::all() {
            assert!(Sabotage::ALL.iter().any(|sabotage| sabotage.suits(drill)), "{drill}");
        }
        for sabotage in Sabotage::ALL {
            assert_eq!(sabotage.name().parse(), Ok(sabotage));
        }
        assert!("nothing".parse::<Sabotage>().unwrap_err().to_string().contains("lost-write"));
    }

    #[test]
    fn only_a_run_that_is_red_for_what_was_done_to_it_counts_as_caught() {
        let red = Run { failures: vec!["too slow".to_owned()], ..Run::default() };
        let judged = |sabotage: Sabotage, run: &Run| sabotage.judge(drill("node-kill"), run.clone()).caught;
        assert!(judged(Sabotage::PretendedFault, &red));
        assert!(!judged(Sabotage::LostWrite, &red), "it is red for another reason");
        assert!(judged(Sabotage::LostWrite, &Run { lost: 1, ..red.clone() }));
        assert!(judged(Sabotage::DoubledWrite, &Run { doubled: 1, ..red }));
        let green = Run { passed: true, ..Run::default() };
        assert!(!judged(Sabotage::PretendedFault, &green));
        let told = Sabotage::PretendedFault.judge(drill("node-kill"), green).to_string();
        assert!(told.contains("GREEN"), "{told}");
    }
}
