//! One register along time.
//!
//! A possible state is what the register may hold together with which of the operations under way have already taken
//! effect. When an operation's answer arrives, it must have taken effect: possible states in which it cannot have are
//! dropped. When none is left, nothing explains the answer.
//!
//! An operation of unknown outcome stays under way for ever. A state that has used more of those than another one, and
//! is the same otherwise, can do nothing that the other cannot, and is dropped. Writes of unknown outcome whose value nobody
//! ever saw are all alike: what they wrote is "something else", and they are used in the order of their slots.

use std::collections::{BTreeMap, BTreeSet};

use model::time::Moment;

use super::{Action, Answer, Value, What};
use crate::{Operation, Outcome as End};

/// Operations that may be under way at once at one register, those of unknown outcome included.
const SLOTS: usize = 128;

/// What the search found.
pub(super) enum Outcome {
    /// There is such an order.
    Linearizable,
    /// There is none; the words say at which answer that became certain.
    Stuck(String),
    /// A bound was hit; the words say which.
    GaveUp(String),
}

/// What happens to the register along time, beginnings before ends at the same moment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Begin(usize),
    End(usize),
}

/// What the register holds, and which operations under way have taken effect.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Possible {
    value: Value,
    /// Of those whose answer is to come.
    done: u128,
    /// Of those of unknown outcome.
    spent: u128,
}

/// Goes along time. `states` bounds the possible states at one moment, `steps` is what is left of the work allowed.
pub(super) fn linearize(operations: &[&Operation<Action>], states: usize, steps: &mut usize) -> Outcome {
    let operations: Vec<&Operation<Action>> =
        operations.iter().copied().filter(|operation| matters(operation, operations)).collect();
    let alike = Alike::among(&operations);
    let mut search = Search {
        operations: &operations,
        alike,
        slots: vec![None; SLOTS],
        possible: Antichain::of(Possible { value: None, done: 0, spent: 0 }),
        states,
    };
    for (_, event) in events(&operations) {
        let went = match event {
            Event::Begin(operation) => search.begin(operation),
            Event::End(operation) => search.end(operation, steps),
        };
        if let Err(outcome) = went {
            return outcome;
        }
    }
    Outcome::Linearizable
}

fn events(operations: &[&Operation<Action>]) -> Vec<(Moment, Event)> {
    let mut events: Vec<(Moment, Event)> = Vec::new();
    for (number, operation) in operations.iter().enumerate() {
        events.push((operation.invoked, Event::Begin(number)));
        events.extend(operation.acknowledged().map(|at| (at.max(operation.invoked), Event::End(number))));
    }
    events.sort_unstable();
    events
}

/// Leaves out what constrains nothing: failures, reads without answer, and changes of unknown outcome whose value nobody
/// saw or replaced, unless a refused swap may be explained by them.
fn matters(operation: &Operation<Action>, all: &[&Operation<Action>]) -> bool {
    let new = match operation.action.what {
        What::Read(found) => return found != Answer::None && operation.acknowledged().is_some(),
        What::Write(value) | What::Swap { to: value, .. } => value,
    };
    match operation.outcome {
        End::Ok(_) => true,
        End::Failed => false,
        End::Unknown => all.iter().any(|other| match other.action.what {
            What::Read(found) => found == Answer::Value(new),
            What::Write(_) => false,
            What::Swap { from, done, .. } => from == Some(new) || done == Some(false),
        }),
    }
}

/// The writes of unknown outcome whose value nobody saw, and one of these values for all of them.
struct Alike {
    numbers: BTreeSet<usize>,
    value: Value,
}

impl Alike {
    fn among(operations: &[&Operation<Action>]) -> Self {
        let seen: BTreeSet<u64> = operations
            .iter()
            .filter_map(|operation| match operation.action.what {
                What::Read(Answer::Value(found)) => Some(found),
                What::Swap { from, .. } => from,
                What::Read(Answer::None | Answer::Absent) | What::Write(_) => None,
            })
            .collect();
        let unseen = |operation: &Operation<Action>| match operation.action.what {
            What::Write(value) if operation.outcome == End::Unknown => {
                Some(value).filter(|v| !seen.contains(v))
            }
            What::Write(_) | What::Read(_) | What::Swap { .. } => None,
        };
        let found =
            || operations.iter().enumerate().filter_map(|(at, operation)| Some((at, unseen(operation)?)));
        Self { numbers: found().map(|(at, _)| at).collect(), value: found().map(|(_, value)| value).next() }
    }
}

struct Search<'h> {
    operations: &'h [&'h Operation<Action>],
    alike: Alike,
    /// Operations under way.
    slots: Vec<Option<usize>>,
    possible: Antichain,
    states: usize,
}

impl Search<'_> {
    fn begin(&mut self, operation: usize) -> Result<(), Outcome> {
        let Some(free) = self.slots.iter().position(Option::is_none) else {
            let why = format!("more than {SLOTS} operations under way or of unknown outcome at one moment");
            return Err(Outcome::GaveUp(why));
        };
        self.slots[free] = Some(operation);
        Ok(())
    }

    fn end(&mut self, operation: usize, steps: &mut usize) -> Result<(), Outcome> {
        let Some(slot) = self.slots.iter().position(|slot| *slot == Some(operation)) else { return Ok(()) };
        let reachable = self.reachable(steps)?;
        let bit = 1_u128 << slot;
        let mut left = Antichain::default();
        for possible in reachable.all().filter(|possible| possible.done & bit != 0) {
            left.insert(Possible { done: possible.done & !bit, ..possible });
        }
        if left.is_empty() {
            return Err(Outcome::Stuck(self.explain(operation, &reachable)));
        }
        self.slots[slot] = None;
        self.possible = left;
        Ok(())
    }

    /// Every state that can be reached by letting operations under way take effect, in any order.
    fn reachable(&self, steps: &mut usize) -> Result<Antichain, Outcome> {
        let mut reachable = self.possible.clone();
        let mut todo: Vec<Possible> = reachable.all().collect();
        while let Some(possible) = todo.pop() {
            if !reachable.contains(possible) {
                continue; // another one that can do as much has replaced it
            }
            let mut has_tried_alike = false;
            for (slot, number) in self.slots.iter().enumerate() {
                let Some(number) = *number else { continue };
                let bit = 1_u128 << slot;
                if (possible.done | possible.spent) & bit != 0 {
                    continue;
                }
                let is_alike = self.alike.numbers.contains(&number);
                if is_alike && std::mem::replace(&mut has_tried_alike, true) {
                    continue;
                }
                let operation = self.operations[number];
                let Some(left) = steps.checked_sub(1) else {
                    return Err(Outcome::GaveUp("too many orders to try them all".to_owned()));
                };
                *steps = left;
                let Some(value) = effect(operation, possible.value) else { continue };
                let value = if is_alike { self.alike.value } else { value };
                let next = if operation.acknowledged().is_some() {
                    Possible { value, done: possible.done | bit, ..possible }
                } else {
                    Possible { value, spent: possible.spent | bit, ..possible }
                };
                if reachable.insert(next) {
                    todo.push(next);
                }
            }
            if reachable.size > self.states {
                return Err(Outcome::GaveUp(format!(
                    "more than {} possible states at one moment",
                    self.states
                )));
            }
        }
        Ok(reachable)
    }

    fn explain(&self, stuck: usize, reachable: &Antichain) -> String {
        let operation = self.operations[stuck];
        let values: BTreeSet<Value> = reachable.all().map(|possible| possible.value).collect();
        let values: Vec<String> = values.into_iter().take(10).map(shown).collect();
        let others = self.slots.iter().flatten().filter(|other| **other != stuck);
        let others: Vec<String> = others
            .take(10)
            .map(|other| format!("{} {}", self.operations[*other], asked(self.operations[*other])))
            .collect();
        let others = if others.is_empty() { "none".to_owned() } else { others.join("; ") };
        format!(
            "{operation} {}, but at every moment of it the register could only hold {}; under way or of unknown outcome \
             besides: {others}",
            asked(operation),
            values.join(" or "),
        )
    }
}

/// What the register holds after the operation, if the operation's answer fits to what it held before.
fn effect(operation: &Operation<Action>, value: Value) -> Option<Value> {
    match operation.action.what {
        What::Read(Answer::None) => Some(value),
        What::Read(Answer::Absent) => value.is_none().then_some(value),
        What::Read(Answer::Value(found)) => (value == Some(found)).then_some(value),
        What::Write(new) => Some(Some(new)),
        What::Swap { from, to, done: Some(true) } => (value == from).then_some(Some(to)),
        What::Swap { from, done: Some(false), .. } => (value != from).then_some(value),
        What::Swap { from, to, done: None } => Some(if value == from { Some(to) } else { value }),
    }
}

fn shown(value: Value) -> String {
    value.map_or_else(|| "nothing".to_owned(), |value| value.to_string())
}

fn asked(operation: &Operation<Action>) -> String {
    match operation.action.what {
        What::Read(Answer::None) => "read without answer".to_owned(),
        What::Read(Answer::Absent) => "read nothing".to_owned(),
        What::Read(Answer::Value(found)) => format!("read {found}"),
        What::Write(value) => format!("wrote {value}"),
        What::Swap { from, to, done } => {
            let end = match done {
                Some(true) => "done",
                Some(false) => "refused",
                None => "not known",
            };
            format!("swapped {} for {to} ({end})", shown(from))
        }
    }
}

/// Possible states, without those that have spent more than another one that is the same otherwise.
#[derive(Clone, Default)]
struct Antichain {
    by_rest: BTreeMap<(Value, u128), Vec<u128>>,
    size: usize,
}

impl Antichain {
    fn of(possible: Possible) -> Self {
        let mut antichain = Self::default();
        antichain.insert(possible);
        antichain
    }

    /// Adds a state and drops those that it makes superfluous; false when it is superfluous itself.
    fn insert(&mut self, possible: Possible) -> bool {
        let spent = self.by_rest.entry((possible.value, possible.done)).or_default();
        if spent.iter().any(|less| less & !possible.spent == 0) {
            return false;
        }
        let before = spent.len();
        spent.retain(|more| possible.spent & !more != 0);
        spent.push(possible.spent);
        self.size = self.size + spent.len() - before;
        true
    }

    fn contains(&self, possible: Possible) -> bool {
        let spent = self.by_rest.get(&(possible.value, possible.done));
        spent.is_some_and(|spent| spent.contains(&possible.spent))
    }

    fn all(&self) -> impl Iterator<Item = Possible> {
        self.by_rest.iter().flat_map(|((value, done), spent)| {
            spent.iter().map(|spent| Possible { value: *value, done: *done, spent: *spent })
        })
    }

    fn is_empty(&self) -> bool {
        self.size == 0
    }
}
