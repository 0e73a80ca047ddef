//! Scripts of the simulator as steps of a drill: the same faults, at the same times, on real nodes.

use std::time::Duration;

use model::NodeName;
use model::script::{Fault, Script};

use super::act::Act;
use super::faults;
use super::step::Step;

/// Something that happens at a moment of a script; the number is that of its step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cue {
    /// The step begins.
    Begin(usize),
    /// It is over.
    End(usize),
}

/// Everything that happens at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scene {
    /// When, after the beginning of the script.
    pub at: Duration,
    /// What, in this order.
    pub cues: Vec<Cue>,
}

/// What happens when, in the order in which the simulator does it.
///
/// # Errors
/// Why the lab cannot play the script, in words.
pub fn scenes(script: &Script) -> Result<Vec<Scene>, String> {
    let steps = &script.steps;
    if let Some(step) = steps.iter().find(|step| !can(step.fault)) {
        return Err(format!("the lab cannot do this to order: {step}"));
    }
    let begins = steps.iter().enumerate().map(|(number, step)| (step.at, Cue::Begin(number)));
    let lasting = steps.iter().enumerate().filter(|(_, step)| step.fault.lasts());
    let ends = lasting.map(|(number, step)| (step.at + step.lasts, Cue::End(number)));
    let mut all: Vec<(Duration, Cue)> = begins.chain(ends).collect();
    all.sort_by_key(|(at, _)| *at);
    let together = all.chunk_by(|one, other| one.0 == other.0);
    let scene = |cues: &[(Duration, Cue)]| {
        Some(Scene { at: cues.first()?.0, cues: cues.iter().map(|(_, cue)| *cue).collect() })
    };
    Ok(together.filter_map(scene).collect())
}

/// What is done for faults that begin together. Nodes that lose their power together do so at one instant.
pub fn begin(faults: &[(Fault, NodeName)]) -> Vec<Step> {
    let is_power = |one: &(Fault, NodeName)| matches!(one.0, Fault::Power(_));
    let powerless: Vec<NodeName> =
        faults.iter().filter(|one| is_power(one)).map(|(_, node)| node.clone()).collect();
    let mut steps: Vec<Step> = match powerless.as_slice() {
        [_, _, ..] => vec![Step::KillNodes(powerless)],
        [] | [_] => faults.iter().filter(|one| is_power(one)).filter_map(injection).collect(),
    };
    steps.extend(faults.iter().filter(|one| !is_power(one)).filter_map(injection));
    steps
}

/// What takes a fault back; nothing where the node does that by itself.
pub fn end(fault: &(Fault, NodeName)) -> Vec<Step> {
    injection(fault).map(|step| step.undo()).unwrap_or_default()
}

fn injection((fault, node): &(Fault, NodeName)) -> Option<Step> {
    if *fault == Fault::Switchover {
        return Some(Step::Switchover(node.clone()));
    }
    act(*fault).map(|act| Step::Do { act, node: node.clone() })
}

fn can(fault: Fault) -> bool {
    fault == Fault::Switchover || act(fault).is_some()
}

fn act(fault: Fault) -> Option<&'static Act> {
    match fault {
        Fault::Power(_) => Some(&faults::KILL_NODE),
        // Its node starts it again at once, whatever the script says.
        Fault::Agent(_) => Some(&faults::KILL_AGENT),
        Fault::AgentStalls(_) => Some(&faults::HANG_AGENT),
        Fault::Freeze(_) => Some(&faults::FREEZE_NODE),
        Fault::Isolate(_) => Some(&faults::CUT_NODE),
        Fault::Mute(_) => Some(&faults::MUTE),
        Fault::Narrow(_) => Some(&faults::NARROW),
        Fault::Postmaster(_) => Some(&faults::KILL_POSTMASTER),
        // The lab has no way to take the lead from everybody, to lose the log that somebody needs at a moment of its choice,
        // or to cut one direction between two nodes; the rest changes what an operator has set.
        Fault::OneWay(..)
        | Fault::Slow
        | Fault::Disk(_)
        | Fault::LogGone(_)
        | Fault::Wipe(_)
        | Fault::Leaderless
        | Fault::Switchover
        | Fault::Force(_)
        | Fault::Pause
        | Fault::Apply(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use model::script::Target;

    use super::*;

    fn read(steps: &str) -> Script {
        model::script::parse(steps).unwrap().script
    }

    #[test]
    fn what_ends_with_a_beginning_comes_after_it() {
        let script = read("at 8 s for 4 s: power off n1\nat 8 s for 2 s: power off n2\nat 12 s: switch over");
        let told: Vec<(u64, Vec<Cue>)> =
            scenes(&script).unwrap().into_iter().map(|scene| (scene.at.as_secs(), scene.cues)).collect();
        assert_eq!(
            told,
            [
                (8, vec![Cue::Begin(0), Cue::Begin(1)]),
                (10, vec![Cue::End(1)]),
                (12, vec![Cue::Begin(2), Cue::End(0)]),
            ]
        );
    }

    #[test]
    fn what_the_lab_cannot_do_is_said() {
        assert_eq!(
            scenes(&read("at 8 s for 1 s: delay all messages")).unwrap_err(),
            "the lab cannot do this to order: at 8 s for 1 s: delay all messages"
        );
    }

    #[test]
    fn nodes_that_lose_their_power_together_do_so_at_one_instant_and_come_back_one_by_one() {
        let power = |node: &str| (Fault::Power(Target::Primary), NodeName::from(node));
        let agent = (Fault::Agent(Target::Primary), NodeName::from("a"));
        let told: Vec<String> =
            begin(&[power("a"), power("b"), agent.clone()]).iter().map(ToString::to_string).collect();
        assert_eq!(told, ["take the power from a and b at once", "kill the agent on a"]);
        assert_eq!(begin(&[power("a")])[0].to_string(), "take the power from a");
        assert_eq!(end(&power("b"))[0].to_string(), "start b");
        assert_eq!(end(&agent), []);
    }
}
