//! Every spoiled history is caught, and by the right name.

use std::collections::HashSet;

use checker::Verdict;
use checker::append::{Level, Step};
use checker::file::History;
use checker::set;

use crate::generate::bank::Amounts;
use crate::generate::register::Values;
use crate::generate::{self, USUAL};
use crate::mutate::{self, Mutator};
use crate::rng::Rng;

/// Spoiled histories of each mutator.
const EACH: usize = 12;

/// Spoils histories until each mutator has made its number of different ones; returns how many there were.
fn catch_all<H: Clone>(
    kind: &str,
    mutators: &[Mutator<H>],
    generate: impl Fn(&mut Rng) -> H,
    to_history: impl Fn(&H) -> History,
) -> usize {
    let mut texts = HashSet::new();
    for mutator in mutators {
        let mut made = 0;
        for seed in 0.. {
            assert!(seed < 2_000, "{kind}, {}: only {made} histories could be spoiled", mutator.name);
            let mut rng = Rng::new(seed);
            let valid = generate(&mut rng);
            let mut spoiled = valid.clone();
            if (mutator.spoil)(&mut rng, &mut spoiled).is_none() {
                continue;
            }
            let history = to_history(&spoiled);
            if !texts.insert(history.to_text()) {
                continue;
            }
            demand_caught(kind, mutator, seed, &history);
            made += 1;
            if made == EACH {
                break;
            }
        }
    }
    println!("{kind}: {} kinds, {} different spoiled histories, all caught", mutators.len(), texts.len());
    texts.len()
}

fn demand_caught<H>(kind: &str, mutator: &Mutator<H>, seed: u64, history: &History) {
    let verdict = history.verdict();
    let found = verdict.violations().iter().any(|violation| mutator.expect.contains(&violation.anomaly));
    let (name, expect) = (mutator.name, mutator.expect);
    assert!(found, "{kind}, {name}, seed {seed}: expected {expect:?}, got {verdict}\n{}", history.to_text());
}

#[test]
fn at_least_two_hundred_spoiled_histories_are_all_caught() {
    let sets = catch_all("set", &mutate::set::ALL, generate::set::generate, |h| History::Set(h.clone()));
    let banks = catch_all(
        "bank",
        &mutate::bank::ALL,
        |rng| generate::bank::generate(rng, Amounts::PowersOfTwo),
        |(claim, history)| History::Bank(claim.clone(), history.clone()),
    );
    let registers = catch_all(
        "register",
        &mutate::register::ALL,
        |rng| generate::register::generate(rng, Values::Unique, 2, USUAL),
        |history| History::Register(history.clone()),
    );
    let mut lists = 0;
    for level in [Level::ReadCommitted, Level::RepeatableRead, Level::Serializable] {
        let generate = |rng: &mut Rng| generate::append::generate(rng, level, USUAL);
        let to_history =
            |(claim, history): &mutate::append::History| History::Append(*claim, history.clone());
        lists += catch_all(&format!("append, {level:?}"), &mutate::append::ALL, generate, to_history);
        let forbidden: Vec<_> =
            mutate::append::CYCLES.into_iter().filter(|cycle| is_forbidden(cycle, level)).collect();
        lists += catch_all(&format!("cycles, {level:?}"), &forbidden, generate, to_history);
    }
    let all = sets + banks + registers + lists;
    println!("{all} spoiled histories, all caught");
    assert!(all >= 200);
}

/// Whether the mutator makes anything at this level.
fn is_forbidden(cycle: &Mutator<mutate::append::History>, level: Level) -> bool {
    (0..200).any(|seed| {
        let mut rng = Rng::new(seed);
        let mut history = generate::append::generate(&mut rng, level, USUAL);
        (cycle.spoil)(&mut rng, &mut history).is_some()
    })
}

#[test]
fn what_a_weaker_level_allows_is_not_accused_under_it() {
    // The very transactions that a stronger level forbids, claimed for a weaker one.
    for (name, level) in [
        ("write skew", Level::RepeatableRead),
        ("write skew of three", Level::RepeatableRead),
        ("read skew", Level::ReadCommitted),
        ("long fork", Level::ReadCommitted),
        ("lost update", Level::ReadCommitted),
        ("read twice, two answers", Level::ReadCommitted),
    ] {
        let cycle = mutate::append::CYCLES.into_iter().find(|cycle| cycle.name == name).unwrap();
        for seed in 0..20 {
            let mut rng = Rng::new(seed);
            let mut history = generate::append::generate(&mut rng, Level::Serializable, USUAL);
            (cycle.spoil)(&mut rng, &mut history).unwrap();
            history.0.level = level;
            let verdict = History::Append(history.0, history.1).verdict();
            assert_eq!(verdict.violations(), [], "{name} under {level:?}, seed {seed}");
        }
    }
}

/// Valid histories from which every read was taken.
pub(crate) fn without_reads() -> Vec<History> {
    let mut rng = Rng::new(7);
    let mut set = generate::set::generate(&mut rng);
    set.retain(|operation| matches!(operation.action, set::Action::Add(_)));
    let (claim, mut bank) = generate::bank::generate(&mut rng, Amounts::Any);
    bank.retain(|operation| matches!(operation.action, checker::bank::Action::Transfer(_)));
    let (lists, mut append) = generate::append::generate(&mut rng, Level::Serializable, USUAL);
    for operation in &mut append {
        operation.action.retain(|step| matches!(step, Step::Append(..)));
    }
    let all = [History::Set(set), History::Bank(claim, bank), History::Append(lists, append)];
    assert!(all.iter().all(|history| !matches!(history.verdict(), Verdict::Violated(_))));
    all.to_vec()
}
