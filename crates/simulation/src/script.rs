//! What fails in a run, and when: an explicit list that the seed determines before the run begins, so that a shorter list
//! can be tried with the same seed.

use std::time::Duration;

use model::script::{Fault, Script, Step, Target};

use crate::random::{Random, mix};

/// How long anything may fail.
pub(crate) const SAFETY_PHASE: Duration = Duration::from_secs(40);

/// When the first fault may happen: the database has been created by then.
const FIRST: Duration = Duration::from_secs(8);

/// So often faults come one at a time, and clients are promised short outages.
const SINGLE: usize = 4;

/// How long a fault that comes alone lasts, and when the next one follows.
const ALONE: (Duration, Duration) = (Duration::from_secs(7), Duration::from_secs(15));

/// The script of a seed.
pub fn script(seed: u64) -> Script {
    let mut random = Random::new(mix(seed ^ 0x5C41_7D00_1BAD_10CC));
    let single = random.once_in(SINGLE);
    let mut steps = if single { alone(&mut random) } else { storm(&mut random) };
    if !single {
        steps.extend(changes(&mut random));
        steps.sort_by_key(|step| step.at);
    }
    Script { seed, shape: None, single, steps }
}

/// Several at once.
fn storm(random: &mut Random) -> Vec<Step> {
    let mut steps = vec![];
    let mut at = FIRST;
    while at < SAFETY_PHASE {
        let target = if random.once_in(2) { Target::Primary } else { Target::Node(random.below(5)) };
        let fault = match random.below(17) {
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
            14 => Fault::Narrow(target),
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
        let fault = match random.below(10) {
            0 => Fault::Power(target),
            1 => Fault::Agent(target),
            2 => Fault::AgentStalls(target),
            3 => Fault::Freeze(target),
            4 => Fault::Isolate(target),
            5 => Fault::Disk(target),
            6 => Fault::Leaderless,
            7 => Fault::Switchover,
            8 => Fault::Narrow(target),
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
