//! The clever searches against the plain one: every order is tried.

use std::collections::BTreeMap;

use checker::append::{Action, Claim, Level, Step};
use checker::register::{self, Answer, Bounds, Value, What};
use checker::{Operation, Outcome, Verdict, append};

use crate::generate::register::Values;
use crate::generate::{self, Size, at};
use crate::rng::Rng;

/// Whether some order of the acknowledged operations and any of the unknown ones respects time and explains every answer.
fn has_order<A, S: Clone>(
    history: &[Operation<A>],
    state: &S,
    left: &[usize],
    step: &impl Fn(&Operation<A>, &S) -> Option<S>,
) -> bool {
    let must = |place: &&usize| history[**place].acknowledged().is_some();
    if !left.iter().any(|place| must(&place)) {
        return true;
    }
    left.iter().enumerate().any(|(at, next)| {
        let others = || left.iter().filter(|other| *other != next);
        if others().any(|other| history[*other].is_over_before(history[*next].invoked)) {
            return false;
        }
        let rest: Vec<usize> = [&left[..at], &left[at + 1..]].concat();
        step(&history[*next], state).is_some_and(|state| has_order(history, &state, &rest, step))
    })
}

fn possible<A>(history: &[Operation<A>]) -> Vec<usize> {
    (0..history.len()).filter(|place| !history[*place].is_failed()).collect()
}

fn hold(operation: &Operation<register::Action>, value: &Value) -> Option<Value> {
    let is_known = operation.acknowledged().is_some();
    match operation.action.what {
        What::Read(_) if !is_known => Some(*value),
        What::Read(Answer::None) => Some(*value),
        What::Read(Answer::Absent) => value.is_none().then_some(None),
        What::Read(Answer::Value(found)) => (*value == Some(found)).then_some(*value),
        What::Write(new) => Some(Some(new)),
        What::Swap { from, to, done } => {
            let fits = *value == from;
            (done.is_none() || done == Some(fits)).then_some(if fits { Some(to) } else { *value })
        }
    }
}

#[test]
fn registers_are_judged_as_by_trying_every_order() {
    let (mut valid, mut violated) = (0, 0);
    for seed in 0..6_000 {
        let mut rng = Rng::new(seed);
        let mut history =
            generate::register::generate(&mut rng, Values::Few, 1, Size { clients: 3, each: 2 });
        for operation in &mut history {
            // Any answer at all, now and then.
            let is_answered = operation.acknowledged().is_some();
            if let (What::Read(answer), true) = (&mut operation.action.what, is_answered && rng.percent(50)) {
                *answer = if rng.percent(20) { Answer::Absent } else { Answer::Value(rng.below(3)) };
            }
            if let What::Swap { done: Some(done), .. } = &mut operation.action.what {
                *done ^= rng.percent(30);
            }
        }
        let is_possible = has_order(&history, &None, &possible(&history), &hold);
        let verdict = register::check(&history, Bounds::default());
        let expected = if is_possible { &mut valid } else { &mut violated };
        *expected += 1;
        assert_eq!(verdict == Verdict::Valid, is_possible, "seed {seed}: {verdict}\n{history:#?}");
        assert_eq!(verdict.violations().is_empty(), is_possible, "seed {seed}: {verdict}");
    }
    println!("{valid} linearizable and {violated} not, as by trying every order");
    assert!(valid > 1_000 && violated > 1_000, "{valid}, {violated}");
}

#[test]
fn many_writes_that_nobody_heard_of_again_are_no_reason_to_give_up() {
    let operation = |client: u64, from: u64, outcome, what| Operation {
        client: client.try_into().unwrap(),
        invoked: at(from),
        outcome,
        action: register::Action { key: "a".to_owned(), what },
    };
    let mut history = vec![operation(0, 0, Outcome::Ok(at(1)), What::Write(1))];
    for number in 0..60 {
        let now = 10 * (number + 1);
        history.push(operation(number + 1, now, Outcome::Unknown, What::Write(1000 + number)));
        // Refused, because something else was there, which one of those writes may have been; then it is as before.
        let refused = What::Swap { from: Some(1), to: 2, done: Some(false) };
        history.push(operation(0, now + 2, Outcome::Ok(at(now + 4)), refused));
        history.push(operation(0, now + 5, Outcome::Ok(at(now + 6)), What::Write(1)));
    }
    let bounds = Bounds { steps: 100_000, ..Bounds::default() };
    assert_eq!(register::check(&history, bounds), Verdict::Valid);
    // One refusal more than there are writes to explain them.
    let refused = What::Swap { from: Some(1), to: 2, done: Some(false) };
    history.push(operation(0, 700, Outcome::Ok(at(701)), refused));
    assert_eq!(register::check(&history, bounds).violations().len(), 1);
}

type Lists = BTreeMap<String, Vec<u64>>;

fn play(operation: &Operation<Action>, lists: &Lists) -> Option<Lists> {
    let mut lists = lists.clone();
    for step in &operation.action {
        match step {
            Step::Append(key, value) => lists.entry(key.clone()).or_default().push(*value),
            Step::Read(_, None) => {}
            Step::Read(key, Some(found)) => {
                let there = lists.get(key).map(Vec::as_slice).unwrap_or_default();
                let is_known = operation.acknowledged().is_some();
                if is_known && there != found.as_slice() {
                    return None;
                }
            }
        }
    }
    Some(lists)
}

#[test]
fn strict_serializability_is_judged_as_by_trying_every_order() {
    let (mut valid, mut violated) = (0, 0);
    for seed in 0..6_000 {
        let mut rng = Rng::new(seed);
        let level = [Level::ReadCommitted, Level::RepeatableRead, Level::Serializable][rng.index(3)];
        let (_, mut history) = generate::append::generate(&mut rng, level, Size { clients: 3, each: 2 });
        for _ in 0..rng.below(3) {
            disturb(&mut rng, &mut history);
        }
        let is_possible = has_order(&history, &Lists::new(), &possible(&history), &play);
        let verdict = append::check(Claim { level: Level::Serializable, real_time: true }, &history);
        let expected = if is_possible { &mut valid } else { &mut violated };
        *expected += 1;
        assert_eq!(verdict.violations().is_empty(), is_possible, "seed {seed}: {verdict}\n{history:#?}");
    }
    println!("{valid} strictly serializable and {violated} not, as by trying every order");
    assert!(valid > 1_000 && violated > 1_000, "{valid}, {violated}");
}

/// Changes a list that was read, or moves an operation in time. The last two looks stay: they tell all orders.
fn disturb(rng: &mut Rng, history: &mut [Operation<Action>]) {
    let place = rng.index(history.len());
    let operation = &mut history[place];
    if operation.client >= 1000 {
        return;
    }
    if let (Outcome::Ok(_), true) = (operation.outcome, rng.percent(30)) {
        let from = rng.below(300);
        operation.invoked = at(from);
        operation.outcome = Outcome::Ok(at(from + rng.below(100)));
        return;
    }
    for step in &mut operation.action {
        if let Step::Read(_, Some(found)) = step {
            if rng.percent(50) {
                found.pop();
            } else if found.len() > 1 {
                let at = rng.index(found.len() - 1);
                found.swap(at, at + 1);
            }
        }
    }
}
