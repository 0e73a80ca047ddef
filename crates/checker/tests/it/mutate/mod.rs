//! Ways to spoil a valid history so that no correct system can have produced it.
//!
//! A mutation that would leave a history which is still possible is not made (`None`): each says why what it makes is
//! impossible. That must follow from the history alone, never from a checker's answer.

pub(crate) mod append;
pub(crate) mod bank;
pub(crate) mod register;
pub(crate) mod set;

use checker::{Anomaly, Operation, Outcome};

use crate::generate::at;
use crate::rng::Rng;

/// One way to spoil a history.
pub(crate) struct Mutator<H> {
    pub(crate) name: &'static str,
    /// What must be found, one of these.
    pub(crate) expect: &'static [Anomaly],
    /// Spoils the history, or leaves it alone where that is not possible.
    pub(crate) spoil: fn(&mut Rng, &mut H) -> Option<()>,
}

/// Places of the operations for which a condition holds.
pub(crate) fn places<A>(history: &[Operation<A>], holds: impl Fn(&Operation<A>) -> bool) -> Vec<usize> {
    (0..history.len()).filter(|place| holds(&history[*place])).collect()
}

/// Places of the acknowledged operations, by their beginnings.
pub(crate) fn acknowledged<A>(history: &[Operation<A>], holds: impl Fn(&A) -> bool) -> Vec<usize> {
    let mut found =
        places(history, |operation| operation.acknowledged().is_some() && holds(&operation.action));
    found.sort_by_key(|place| history[*place].invoked);
    found
}

/// Whether one was surely over before the other began.
pub(crate) fn is_before<A>(history: &[Operation<A>], one: usize, other: usize) -> bool {
    history[one].is_over_before(history[other].invoked)
}

pub(crate) fn is_unknown<A>(operation: &Operation<A>) -> bool {
    operation.outcome == Outcome::Unknown
}

/// A moment after everything.
pub(crate) fn end<A>(history: &[Operation<A>]) -> u64 {
    let ends = history.iter().map(|o| o.acknowledged().unwrap_or(o.invoked).max(o.invoked).as_micros());
    ends.max().unwrap_or(0) + 1000
}

/// An acknowledged operation of its own client.
pub(crate) fn acked<A>(client: u32, from: u64, until: u64, action: A) -> Operation<A> {
    Operation { client: 2000 + client, invoked: at(from), outcome: Outcome::Ok(at(until)), action }
}

/// All pairs of two different members of a list.
pub(crate) fn pairs(of: &[usize]) -> Vec<(usize, usize)> {
    of.iter().flat_map(|a| of.iter().map(move |b| (*a, *b))).filter(|(a, b)| a != b).collect()
}
