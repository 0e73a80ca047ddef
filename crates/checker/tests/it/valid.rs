//! What a correct system did is never accused, and its verdict is known.

use std::num::NonZeroU32;

use checker::append::Level;
use checker::file::History;
use checker::register::Bounds;
use checker::{Anomaly, Operation, Outcome, Verdict, append, bank, register, set};

use crate::generate::bank::Amounts;
use crate::generate::register::Values;
use crate::generate::{Size, USUAL};
use crate::rng::Rng;
use crate::{generate, mutants};

const SEEDS: u64 = 600;

/// Valid, or undecided for want of a later read: never accused.
fn demand_valid(what: &str, seed: u64, verdict: &Verdict, text: impl Fn() -> String) {
    assert_eq!(*verdict, Verdict::Valid, "{what}, seed {seed}\n{}", text());
}

#[test]
fn sets_are_not_accused() {
    for seed in 0..SEEDS {
        let history = generate::set::generate(&mut Rng::new(seed));
        demand_valid("set", seed, &set::check(&history).verdict(), || {
            History::Set(history.clone()).to_text()
        });
    }
    println!("{SEEDS} valid histories of sets");
}

#[test]
fn banks_are_not_accused() {
    for seed in 0..SEEDS {
        let amounts = if seed % 2 == 0 { Amounts::Any } else { Amounts::PowersOfTwo };
        let (claim, history) = generate::bank::generate(&mut Rng::new(seed), amounts);
        let text = || History::Bank(claim.clone(), history.clone()).to_text();
        demand_valid("bank", seed, &bank::check(&claim, &history), text);
    }
    println!("{SEEDS} valid histories of banks");
}

#[test]
fn banks_one_after_another_are_judged_each_by_itself() {
    const STEP: u32 = 1000;
    for seed in 0..SEEDS / 4 {
        let (claim, mut history) = generate::bank::generate(&mut Rng::new(seed), Amounts::PowersOfTwo);
        let shift = |transfer: bank::Transfer| bank::Transfer {
            from: transfer.from + STEP,
            to: transfer.to + STEP,
            ..transfer
        };
        let second = history.iter().map(|operation| Operation {
            action: match &operation.action {
                bank::Action::Transfer(transfer) => bank::Action::Transfer(shift(*transfer)),
                bank::Action::Read(found) => bank::Action::Read(
                    found.as_ref().map(|found| found.iter().map(|(a, b)| (a + STEP, *b)).collect()),
                ),
            },
            ..operation.clone()
        });
        history.extend(second.collect::<Vec<_>>());
        let claim = bank::Claim { next_bank: NonZeroU32::new(STEP), ..claim };
        let text = |history: &[_]| History::Bank(claim.clone(), history.to_vec()).to_text();
        demand_valid("banks", seed, &bank::check(&claim, &history), || text(&history));
        let spoiled = history.iter_mut().rev().find_map(|operation| match &mut operation.action {
            bank::Action::Read(Some(found)) if operation.outcome != Outcome::Failed => {
                found.values_mut().next()
            }
            bank::Action::Read(_) | bank::Action::Transfer(_) => None,
        });
        *spoiled.unwrap() += 1;
        let found = bank::check(&claim, &history);
        assert_eq!(found.violations()[0].anomaly, Anomaly::WrongSum, "seed {seed}\n{}", text(&history));
    }
}

#[test]
fn lists_are_not_accused_under_their_level() {
    for level in [Level::ReadCommitted, Level::RepeatableRead, Level::Serializable] {
        for seed in 0..SEEDS {
            let size = if seed % 2 == 0 { USUAL } else { Size { clients: 8, each: 6 } };
            let (claim, history) = generate::append::generate(&mut Rng::new(seed), level, size);
            let text = || History::Append(claim, history.clone()).to_text();
            demand_valid("append", seed, &append::check(claim, &history), text);
        }
    }
    println!("{} valid histories of lists", 3 * SEEDS);
}

#[test]
fn weaker_levels_do_what_stronger_ones_forbid() {
    // The generator for a level really uses its freedom: without that, "never accused" would say little.
    let accused = |level, claimed| {
        let judged = (0..SEEDS).filter(|seed| {
            let (claim, history) = generate::append::generate(&mut Rng::new(*seed), level, USUAL);
            let claim = append::Claim { level: claimed, ..claim };
            !append::check(claim, &history).violations().is_empty()
        });
        judged.count()
    };
    let skewed = accused(Level::RepeatableRead, Level::Serializable);
    let torn = accused(Level::ReadCommitted, Level::RepeatableRead);
    println!(
        "of {SEEDS}: {skewed} of snapshot isolation are not serializable, {torn} of read committed no snapshots"
    );
    assert!(skewed > 50 && torn > 50, "{skewed}, {torn}");
}

#[test]
fn registers_are_not_accused() {
    let sizes = [USUAL, Size { clients: 8, each: 12 }, Size { clients: 3, each: 60 }];
    for seed in 0..SEEDS {
        let values = if seed % 2 == 0 { Values::Few } else { Values::Unique };
        let size = sizes[usize::try_from(seed % 3).unwrap()];
        let history = generate::register::generate(&mut Rng::new(seed), values, 1 + seed % 3, size);
        let text = || History::Register(history.clone()).to_text();
        demand_valid("register", seed, &register::check(&history, Bounds::default()), text);
    }
    println!("{SEEDS} valid histories of registers");
}

#[test]
fn a_bound_that_is_hit_is_said_and_never_taken_for_valid() {
    let history = generate::register::generate(&mut Rng::new(1), Values::Few, 1, USUAL);
    let small = Bounds { steps: 10, ..Bounds::default() };
    assert!(matches!(register::check(&history, small), Verdict::Undecided(_)));
    let narrow = Bounds { states: 1, ..Bounds::default() };
    assert!(matches!(register::check(&history, narrow), Verdict::Undecided(_)));
}

#[test]
fn what_nobody_looked_at_is_undecided() {
    let unread = mutants::without_reads();
    for history in unread {
        assert!(matches!(history.verdict(), Verdict::Undecided(_)), "{}", history.to_text());
    }
}
