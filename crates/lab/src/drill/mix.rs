//! Drills that go on at once: one that may cost a member, and others beside it that cost none.

use std::fmt;
use std::time::Duration;

use super::catalogue::Drill;
use super::plan::{Cast, Change, Expectation, Plan, Writes};

/// One drill, and what goes on beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mix {
    /// The one whose outcome is judged.
    pub main: &'static Drill,
    /// Those that began before it and end after it.
    pub beside: Vec<&'static Drill>,
    /// How long writes may stand still in any run, whatever the drill itself says.
    pub objective: Option<Duration>,
}

impl From<&'static Drill> for Mix {
    fn from(main: &'static Drill) -> Self {
        Self { main, beside: vec![], objective: None }
    }
}

impl Mix {
    /// How many faults these are.
    pub fn faults(&self) -> u64 {
        1 + u64::try_from(self.beside.len()).unwrap_or(u64::MAX)
    }

    /// What is done, what takes it back, and what must come of it.
    pub fn plan(&self, cast: &Cast) -> Plan {
        let mut plan = self.main.plan(cast);
        if let (Some(objective), Writes::GoOn) = (self.objective, plan.expectation.writes) {
            plan.expectation.outage = Some(objective);
            plan.expectation.worst = 1;
        }
        for drill in &self.beside {
            let other = drill.plan(cast);
            plan.fault.splice(..0, other.fault);
            plan.recovery.extend(other.recovery);
            plan.expectation = beside(plan.expectation, other.expectation);
        }
        plan
    }
}

/// What must come of a drill while another goes on: what the system promises whatever happens. Two faults that each cost
/// nothing may together ask for a new primary (a lossy line and an end of all replication), or let writes wait for longer
/// than a client has patience; so neither is held against them.
fn beside(main: Expectation, other: Expectation) -> Expectation {
    Expectation {
        primary: Change::Any,
        errors_allowed: true,
        reconnects_allowed: true,
        outage: main.outage.max(other.outage),
        redundancy: None,
        leaves_set: None,
        ..main
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.main)?;
        self.beside.iter().try_for_each(|drill| write!(f, " + {drill}"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::catalogue::drill;
    use super::*;

    #[test]
    fn what_goes_on_beside_a_drill_begins_before_it_and_ends_after_it() {
        let cast = Cast::of("a", &["b", "c"]);
        let mix = Mix { beside: vec![drill("agent-kill")], ..Mix::from(drill("standby-kill")) };
        let plan = mix.plan(&cast);
        let words = |steps: &[super::super::step::Step]| -> Vec<String> {
            steps.iter().map(ToString::to_string).collect()
        };
        assert_eq!(words(&plan.fault), ["kill the agent on a", "take the power from b"]);
        assert_eq!(words(&plan.recovery), ["start b"]);
        assert_eq!(plan.expectation.primary, Change::Any);
        assert!(plan.expectation.errors_allowed);
        assert_eq!((mix.to_string().as_str(), mix.faults()), ("standby-kill + agent-kill", 2));
    }

    #[test]
    fn beside_a_fault_that_strikes_all_nodes_the_other_one_tells_them_apart() {
        let cast = Cast::of("a", &["b", "c"]);
        let mix = Mix { beside: vec![drill("proxy-agent-cut")], ..Mix::from(drill("primary-standby-apart")) };
        let plan = mix.plan(&cast);
        assert_eq!(["a", "b", "c"].map(|node| plan.blows(&node.into())), [2, 2, 1]);
    }
}
