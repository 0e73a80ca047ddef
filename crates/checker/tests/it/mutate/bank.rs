//! All on histories whose amounts are different powers of two from 2 on: a difference at an account that is no sum of
//! distinct possible amounts cannot be explained, and the lowest bit of a difference tells which transfer it is of.

use std::collections::BTreeMap;

use checker::bank::{Account, Action, Claim, Transfer};
use checker::{Anomaly, Operation, Outcome};

use super::{Mutator, acknowledged, is_before, pairs, places};
use crate::rng::Rng;

type History = (Claim, Vec<Operation<Action>>);

pub(crate) const ALL: [Mutator<History>; 11] = [
    Mutator { name: "shift one balance", expect: &[Anomaly::WrongSum], spoil: shift },
    Mutator { name: "shift two balances", expect: &[Anomaly::Unexplained], spoil: shift_two },
    Mutator { name: "lose", expect: &[Anomaly::Unexplained], spoil: lose },
    Mutator { name: "double", expect: &[Anomaly::Unexplained], spoil: double },
    Mutator { name: "revive", expect: &[Anomaly::Unexplained], spoil: revive },
    Mutator { name: "half a transfer", expect: &[Anomaly::WrongSum], spoil: half },
    Mutator { name: "stale read", expect: &[Anomaly::Unexplained], spoil: stale },
    Mutator { name: "swap two reads", expect: &[Anomaly::Unexplained], spoil: swap },
    Mutator { name: "read the future", expect: &[Anomaly::Unexplained], spoil: future },
    Mutator { name: "forget an account", expect: &[Anomaly::WrongAccounts], spoil: forget },
    Mutator { name: "overdraw", expect: &[Anomaly::Negative], spoil: overdraw },
];

fn moved(action: &Action) -> Option<Transfer> {
    match action {
        Action::Transfer(transfer) => Some(*transfer),
        Action::Read(_) => None,
    }
}

fn transfers(history: &History) -> Vec<usize> {
    acknowledged(&history.1, |action| moved(action).is_some())
}

fn reads(history: &History) -> Vec<usize> {
    acknowledged(&history.1, |action| moved(action).is_none())
}

fn balances(history: &mut History, read: usize) -> Option<&mut BTreeMap<Account, i64>> {
    match &mut history.1[read].action {
        Action::Read(found) => found.as_mut(),
        Action::Transfer(_) => None,
    }
}

fn apply(history: &mut History, read: usize, transfer: Transfer, times: i64) -> Option<()> {
    let balances = balances(history, read)?;
    *balances.get_mut(&transfer.from)? -= times * i64::from(transfer.amount);
    *balances.get_mut(&transfer.to)? += times * i64::from(transfer.amount);
    Some(())
}

/// A read and a transfer that was acknowledged before the read began.
fn read_and_settled(rng: &mut Rng, history: &History) -> Option<(usize, Transfer)> {
    let reads = reads(history);
    let apart: Vec<_> = transfers(history)
        .into_iter()
        .flat_map(|transfer| reads.iter().map(move |read| (*read, transfer)))
        .filter(|(read, transfer)| is_before(&history.1, *transfer, *read))
        .collect();
    let (read, transfer) = rng.pick(&apart)?;
    Some((read, moved(&history.1[transfer].action)?))
}

fn shift(rng: &mut Rng, history: &mut History) -> Option<()> {
    let read = rng.pick(&reads(history))?;
    let account = rng.below(3) as Account;
    *balances(history, read)?.get_mut(&account)? += 1 + i64::try_from(rng.below(100)).unwrap();
    Some(())
}

/// All amounts are even; this one is odd.
fn shift_two(rng: &mut Rng, history: &mut History) -> Option<()> {
    let read = rng.pick(&reads(history))?;
    let amount = u32::try_from(1 + 2 * rng.below(50)).unwrap();
    apply(history, read, Transfer { from: 0, to: 1 + rng.below(2) as Account, amount }, 1)
}

fn lose(rng: &mut Rng, history: &mut History) -> Option<()> {
    let (read, transfer) = read_and_settled(rng, history)?;
    apply(history, read, transfer, -1)
}

/// The lowest bit of the difference is that of an amount which is settled, so no choice has it.
fn double(rng: &mut Rng, history: &mut History) -> Option<()> {
    let (read, transfer) = read_and_settled(rng, history)?;
    apply(history, read, transfer, 1)
}

/// What failed is no choice, and nothing else has its bit.
fn revive(rng: &mut Rng, history: &mut History) -> Option<()> {
    let failed = places(&history.1, |o| o.outcome == Outcome::Failed && moved(&o.action).is_some());
    let transfer = moved(&history.1[rng.pick(&failed)?].action)?;
    let read = rng.pick(&reads(history))?;
    apply(history, read, transfer, 1)
}

fn half(rng: &mut Rng, history: &mut History) -> Option<()> {
    let (read, transfer) = read_and_settled(rng, history)?;
    *balances(history, read)?.get_mut(&transfer.to)? -= i64::from(transfer.amount);
    Some(())
}

/// Two reads with a transfer that began after the first and was acknowledged before the second.
fn around_a_transfer(rng: &mut Rng, history: &History) -> Option<(usize, usize)> {
    let transfers = transfers(history);
    let between = |one: usize, other: usize| {
        let is_between = |t: &&usize| is_before(&history.1, one, **t) && is_before(&history.1, **t, other);
        transfers.iter().any(|transfer| is_between(&transfer))
    };
    let apart: Vec<_> =
        pairs(&reads(history)).into_iter().filter(|(one, other)| between(*one, *other)).collect();
    rng.pick(&apart)
}

/// It lacks a transfer that was acknowledged before it began.
fn stale(rng: &mut Rng, history: &mut History) -> Option<()> {
    let (one, other) = around_a_transfer(rng, history)?;
    history.1[other].action = history.1[one].action.clone();
    Some(())
}

fn swap(rng: &mut Rng, history: &mut History) -> Option<()> {
    let (one, other) = around_a_transfer(rng, history)?;
    let earlier = history.1[one].action.clone();
    history.1[one].action = std::mem::replace(&mut history.1[other].action, earlier);
    Some(())
}

/// The read was over before the transfer began.
fn future(rng: &mut Rng, history: &mut History) -> Option<()> {
    let begun = places(&history.1, |operation| moved(&operation.action).is_some() && !operation.is_failed());
    let apart: Vec<_> = reads(history)
        .into_iter()
        .flat_map(|read| begun.iter().map(move |transfer| (read, *transfer)))
        .filter(|(read, transfer)| is_before(&history.1, *read, *transfer))
        .collect();
    let (read, transfer) = rng.pick(&apart)?;
    let transfer = moved(&history.1[transfer].action)?;
    apply(history, read, transfer, 1)
}

fn forget(rng: &mut Rng, history: &mut History) -> Option<()> {
    let read = rng.pick(&reads(history))?;
    balances(history, read)?.remove(&(rng.below(3) as Account)).map(|_| ())
}

fn overdraw(rng: &mut Rng, history: &mut History) -> Option<()> {
    if history.0.overdraft {
        return None; // then it is allowed
    }
    let read = rng.pick(&reads(history))?;
    let below = 1 + i64::try_from(rng.below(100)).unwrap();
    let balances = balances(history, read)?;
    let taken = balances[&0] + below;
    *balances.get_mut(&0)? -= taken;
    *balances.get_mut(&1)? += taken;
    Some(())
}
