//! Money moves between accounts, each transfer in one transaction; reads show all balances at once.
//!
//! Three questions to every read: is the sum what it always was, is no account negative (where that is forbidden), and
//! is there a choice among the transfers that may have happened by then which leads to exactly these balances.

use std::collections::{BTreeMap, HashSet};
use std::num::NonZeroU32;

use model::time::Moment;
use serde::{Deserialize, Serialize};

use crate::{Anomaly, Operation, Verdict, Violation};

/// The number of an account.
pub type Account = u32;

/// What a client asked of the bank.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Move money.
    Transfer(Transfer),
    /// The balances of all accounts, at one moment; `None` when no answer came.
    Read(Option<BTreeMap<Account, i64>>),
}

/// Money that moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transfer {
    /// The account that gets less.
    pub from: Account,
    /// The account that gets more.
    pub to: Account,
    /// How much.
    pub amount: u32,
}

/// What is claimed of the bank.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// What was on each account before the first transfer.
    pub accounts: BTreeMap<Account, i64>,
    /// Whether an account may be negative.
    #[serde(default)]
    pub overdraft: bool,
    /// Whether a read may show the past, because a standby answered it: then only sum and sign can be judged.
    #[serde(default)]
    pub stale_reads: bool,
    /// Where one bank was opened after another: how far the numbers of their accounts are apart. Account `a` of bank `n`
    /// has the number `a + n * next_bank`. Transfers of unknown outcome make every later read of their bank harder to
    /// explain; a long history stays decidable when a bank is soon left for a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_bank: Option<NonZeroU32>,
}

/// Steps in the search for explanations, for all reads of a bank together.
const STEPS: usize = 1_000_000;

/// The most transfers among which a choice is looked for.
const CHOICES: usize = 500;

type Balances = BTreeMap<Account, i128>;

/// A read with its balances.
struct Seen<'a> {
    operation: &'a Operation<Action>,
    ended: Moment,
    balances: &'a BTreeMap<Account, i64>,
}

/// Judges a history. Every read is judged by its sum; whether its balances are explained is searched within a bound.
pub fn check(claim: &Claim, history: &[Operation<Action>]) -> Verdict {
    let Some(step) = claim.next_bank else { return check_one(claim, &history.iter().collect::<Vec<_>>()) };
    let mut banks: BTreeMap<u32, Vec<&Operation<Action>>> = BTreeMap::new();
    for operation in history {
        if let Some(account) = first_account(&operation.action) {
            banks.entry(account / step).or_default().push(operation);
        }
    }
    let (mut violations, mut undecided) = (Vec::new(), None);
    for (number, history) in banks {
        let first = number * step.get();
        let moved = |(account, balance): (&Account, &i64)| (account.saturating_add(first), *balance);
        let claim = Claim { accounts: claim.accounts.iter().map(moved).collect(), ..*claim };
        match check_one(&claim, &history) {
            Verdict::Valid => {}
            Verdict::Violated(found) => violations.extend(found),
            Verdict::Undecided(why) => {
                undecided.get_or_insert_with(|| format!("the bank from account {first} on: {why}"));
            }
        }
    }
    if history.is_empty() {
        undecided = Some("nobody read the balances".to_owned());
    }
    Verdict::of(violations, undecided)
}

/// By which the bank is known; a read without answer is of none.
fn first_account(action: &Action) -> Option<Account> {
    match action {
        Action::Transfer(transfer) => Some(transfer.from),
        Action::Read(balances) => balances.as_ref().map(|found| found.keys().next().copied().unwrap_or(0)),
    }
}

fn check_one(claim: &Claim, history: &[&Operation<Action>]) -> Verdict {
    let mut reads: Vec<Seen<'_>> = history.iter().filter_map(|operation| seen(operation)).collect();
    reads.sort_by_key(|read| read.operation.invoked);
    let mut violations = Vec::new();
    let mut given_up = 0_usize;
    let mut transfers = Transfers::new(claim, history);
    for read in &reads {
        let broken = broken_by_itself(claim, read);
        let is_sound = broken.is_empty();
        violations.extend(broken);
        if is_sound && !claim.stale_reads {
            match transfers.explain(read) {
                Explained::Yes => {}
                Explained::No(why) => violations.push(Violation::new(Anomaly::Unexplained, why)),
                Explained::GaveUp => given_up += 1,
            }
        }
    }
    Verdict::of(violations, undecided(&reads, history, given_up))
}

fn undecided(reads: &[Seen<'_>], history: &[&Operation<Action>], given_up: usize) -> Option<String> {
    if reads.is_empty() {
        return Some("nobody read the balances".to_owned());
    }
    if given_up > 0 {
        let all = reads.len();
        return Some(format!(
            "every sum is right, but for {given_up} of {all} reads too many transfers may or may not have happened \
             to try all choices"
        ));
    }
    let last = reads.iter().map(|read| read.operation.invoked).max()?;
    let is_transfer = |operation: &&&Operation<Action>| match operation.action {
        Action::Transfer(_) => true,
        Action::Read(_) => false,
    };
    let transfers = history.iter().filter(is_transfer);
    let unread = transfers.filter_map(|transfer| transfer.acknowledged()).filter(|at| *at >= last).count();
    (unread > 0).then(|| format!("nobody read the balances after {unread} acknowledged transfers"))
}

fn seen(operation: &Operation<Action>) -> Option<Seen<'_>> {
    let Action::Read(Some(balances)) = &operation.action else { return None };
    Some(Seen { operation, ended: operation.acknowledged()?, balances })
}

/// What is wrong with a read without looking at any transfer.
fn broken_by_itself(claim: &Claim, read: &Seen<'_>) -> Vec<Violation> {
    let (who, shown) = (read.operation, read.balances);
    if !shown.keys().eq(claim.accounts.keys()) {
        let (seen, there): (Vec<_>, Vec<_>) = (shown.keys().collect(), claim.accounts.keys().collect());
        let evidence = format!("{who} read the accounts {seen:?}, but there are {there:?}");
        return vec![Violation::new(Anomaly::WrongAccounts, evidence)];
    }
    let sum = |balances: &BTreeMap<Account, i64>| balances.values().map(|b| i128::from(*b)).sum::<i128>();
    let (total, expected) = (sum(shown), sum(&claim.accounts));
    let mut broken = Vec::new();
    if total != expected {
        let evidence = format!("{who} read balances that add up to {total} instead of {expected}: {shown:?}");
        broken.push(Violation::new(Anomaly::WrongSum, evidence));
    }
    let negative: Vec<_> = shown.iter().filter(|(_, balance)| **balance < 0).collect();
    if !claim.overdraft && !negative.is_empty() {
        let evidence = format!("{who} read negative balances: {negative:?}");
        broken.push(Violation::new(Anomaly::Negative, evidence));
    }
    broken
}

// --- Explaining a read ----------------------------------------------------------------------------------------------

enum Explained {
    Yes,
    No(String),
    GaveUp,
}

/// One transfer that did not surely fail.
#[derive(Clone, Copy)]
struct Possible {
    transfer: Transfer,
    invoked: Moment,
    ended: Option<Moment>,
}

/// The transfers as seen from one read after the other, in the order of the reads' beginnings.
struct Transfers {
    /// Not begun at the last read, latest first.
    coming: Vec<Possible>,
    /// Begun, and not surely over when the last read began.
    open: Vec<Possible>,
    /// Balances after everything that was surely over when the last read began.
    settled: Balances,
    /// Steps left.
    steps: usize,
}

impl Transfers {
    fn new(claim: &Claim, history: &[&Operation<Action>]) -> Self {
        let possible = |operation: &&Operation<Action>| {
            let Action::Transfer(transfer) = operation.action else { return None };
            let (invoked, ended) = (operation.invoked, operation.acknowledged());
            (!operation.is_failed()).then_some(Possible { transfer, invoked, ended })
        };
        let mut coming: Vec<Possible> = history.iter().filter_map(possible).collect();
        coming.sort_by_key(|possible| std::cmp::Reverse(possible.invoked));
        let settled =
            claim.accounts.iter().map(|(account, balance)| (*account, i128::from(*balance))).collect();
        Self { coming, open: Vec::new(), settled, steps: STEPS }
    }

    fn explain(&mut self, read: &Seen<'_>) -> Explained {
        while let Some(next) = self.coming.pop_if(|next| next.invoked <= read.ended) {
            self.open.push(next);
        }
        let is_over = |possible: &Possible| possible.ended.is_some_and(|at| at < read.operation.invoked);
        for Possible { transfer, .. } in self.open.extract_if(.., |possible| is_over(possible)) {
            apply(&mut self.settled, transfer);
        }
        let may: Vec<Transfer> = self
            .open
            .iter()
            .filter(|possible| possible.invoked <= read.ended)
            .map(|possible| possible.transfer)
            .collect();
        let mut missing: Balances = read.balances.iter().map(|(a, b)| (*a, i128::from(*b))).collect();
        for (account, settled) in &self.settled {
            *missing.entry(*account).or_default() -= settled;
        }
        let choices = may.len();
        if choices > CHOICES {
            return Explained::GaveUp;
        }
        for Transfer { from, to, .. } in &may {
            missing.entry(*from).or_default();
            missing.entry(*to).or_default();
        }
        match Search::new(may).run(&missing, &mut self.steps) {
            Some(true) => Explained::Yes,
            None => Explained::GaveUp,
            Some(false) => {
                let off: Vec<String> = missing
                    .iter()
                    .filter(|(_, amount)| **amount != 0)
                    .map(|(account, amount)| format!("account {account} by {amount:+}"))
                    .collect();
                let off = if off.is_empty() { "nothing".to_owned() } else { off.join(", ") };
                Explained::No(format!(
                    "{} read {:?}; that differs from all acknowledged transfers together by: {off}; and no \
                     choice among those under way or of unknown outcome ({choices}) makes up for it",
                    read.operation, read.balances
                ))
            }
        }
    }
}

fn apply(balances: &mut Balances, Transfer { from, to, amount }: Transfer) {
    *balances.entry(from).or_default() -= i128::from(amount);
    *balances.entry(to).or_default() += i128::from(amount);
}

/// Is there a choice of transfers that adds up to given differences? Depth first, with what led nowhere remembered.
struct Search {
    may: Vec<Transfer>,
    /// For each position: the most that every account can still lose and gain from there on.
    reach: Vec<BTreeMap<Account, (i128, i128)>>,
    dead: HashSet<(usize, Vec<i128>)>,
}

impl Search {
    fn new(mut may: Vec<Transfer>) -> Self {
        // Transfers of the same accounts side by side, so that an account is settled early and wrong ways end soon.
        may.sort_by_key(|t| (t.from.min(t.to), t.from.max(t.to), std::cmp::Reverse(t.amount)));
        let mut reach = vec![BTreeMap::<Account, (i128, i128)>::new(); may.len() + 1];
        for at in (0..may.len()).rev() {
            let Transfer { from, to, amount } = may[at];
            let mut here = reach[at + 1].clone();
            here.entry(from).or_default().0 -= i128::from(amount);
            here.entry(to).or_default().1 += i128::from(amount);
            reach[at] = here;
        }
        Self { may, reach, dead: HashSet::new() }
    }

    /// Whether there is such a choice; `None` when no steps are left.
    fn run(mut self, missing: &Balances, steps: &mut usize) -> Option<bool> {
        let mut stack = vec![(0, missing.clone())];
        while let Some((at, missing)) = stack.pop() {
            *steps = steps.checked_sub(1)?;
            if !self.is_in_reach(at, &missing) || !self.dead.insert((at, missing.values().copied().collect()))
            {
                continue;
            }
            let Some(transfer) = self.may.get(at) else { return Some(true) };
            let mut taken = missing.clone();
            apply(&mut taken, Transfer { from: transfer.to, to: transfer.from, amount: transfer.amount });
            stack.push((at + 1, missing));
            stack.push((at + 1, taken));
        }
        Some(false)
    }

    fn is_in_reach(&self, at: usize, missing: &Balances) -> bool {
        missing.iter().all(|(account, amount)| {
            let (least, most) = self.reach[at].get(account).copied().unwrap_or_default();
            (least..=most).contains(amount)
        })
    }
}
