use checker::bank::{Action, Claim, Transfer};
use checker::{Operation, Outcome};

use super::{USUAL, in_order, last_looks, schedule};
use crate::rng::Rng;

/// How much is moved.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Amounts {
    /// Anything, so that several choices of transfers may explain the same balances.
    Any,
    /// Different powers of two from 2 on. Every account then tells which transfers it has seen: two different choices
    /// differ in a sum of signed, different powers of two, which is never zero.
    PowersOfTwo,
}

pub(crate) fn generate(rng: &mut Rng, amounts: Amounts) -> (Claim, Vec<Operation<Action>>) {
    let accounts = 3 + u32::try_from(rng.below(3)).unwrap();
    let start = if amounts == Amounts::Any { 60 } else { 1 << 33 };
    let claim = Claim {
        accounts: (0..accounts).map(|account| (account, start)).collect(),
        overdraft: rng.percent(30),
        stale_reads: false,
        next_bank: None,
    };
    let mut slots = schedule(rng, USUAL);
    let looks = last_looks(&slots);
    let clients = slots.len();
    slots.extend(looks);
    let mut power = 0;
    let mut actions: Vec<Action> = (0..slots.len())
        .map(|number| {
            if number >= clients || rng.percent(35) || power == 30 {
                return Action::Read(None);
            }
            power += 1;
            let from = u32::try_from(rng.below(accounts.into())).unwrap();
            let to = (from + 1 + u32::try_from(rng.below(u64::from(accounts) - 1)).unwrap()) % accounts;
            let any = 1 + u32::try_from(rng.below(40)).unwrap();
            let amount = if amounts == Amounts::Any { any } else { 1 << power };
            Action::Transfer(Transfer { from, to, amount })
        })
        .collect();
    let mut balances = claim.accounts.clone();
    for slot in in_order(&slots) {
        match &mut actions[slot] {
            Action::Read(found) => *found = slots[slot].is_ok().then(|| balances.clone()),
            Action::Transfer(Transfer { from, to, amount }) => {
                let amount = i64::from(*amount);
                if !claim.overdraft && balances[from] < amount {
                    // The bank refuses; whoever was not told so still does not know.
                    if slots[slot].is_ok() {
                        slots[slot].outcome = Outcome::Failed;
                    }
                    continue;
                }
                *balances.get_mut(from).unwrap() -= amount;
                *balances.get_mut(to).unwrap() += amount;
            }
        }
    }
    let mut history: Vec<_> =
        slots.iter().zip(actions).map(|(slot, action)| slot.operation(action)).collect();
    rng.shuffle(&mut history);
    (claim, history)
}
