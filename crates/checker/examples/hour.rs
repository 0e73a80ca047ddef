//! What it costs to judge an hour: 100 operations a second of each workload, a fault every 24 s that leaves twelve
//! operations of unknown outcome. `cargo run --release -p checker --example hour`
//!
//! The histories are those of a correct system: operation after operation takes effect, each somewhere between its
//! beginning and its end, with four under way at most times; lists, registers and banks are left for new ones as the
//! workloads of the lab do it.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Instant;

use checker::append::{Level, Step};
use checker::file::History;
use checker::register::{Answer, What};
use checker::{Operation, Outcome, Verdict, append, bank, register, set};
use model::time::Moment;

const OPERATIONS: u64 = 360_000;
const BETWEEN_FAULTS: u64 = 2400;
const UNKNOWN: u64 = 12;

/// `SplitMix64`.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

/// The operation that takes effect as number `at`. Of those around a fault, every second one is done.
fn operation<A>(random: &mut Random, at: u64, effect: impl FnOnce(bool, bool) -> A) -> Operation<A> {
    let moment = 1_000_000 + at * 10_000;
    let invoked = Moment::from_micros(moment - random.below(20_000));
    let is_lost = at % BETWEEN_FAULTS >= BETWEEN_FAULTS - UNKNOWN;
    let outcome = match is_lost {
        true => Outcome::Unknown,
        false => Outcome::Ok(Moment::from_micros(moment + random.below(20_000))),
    };
    let action = effect(!is_lost || at.is_multiple_of(2), !is_lost);
    Operation { client: u32::try_from(at % 4).unwrap_or(0), invoked, outcome, action }
}

fn sets(random: &mut Random) -> History {
    let mut there = Vec::new();
    let add = |at| {
        operation(random, at, |done, _| {
            there.extend(done.then_some(at));
            set::Action::Add(at)
        })
    };
    let mut history: Vec<_> = (0..OPERATIONS).map(add).collect();
    let end = Moment::from_micros(u64::from(u32::MAX) * 1000);
    // As a drill does it: through the route, and at each of three members.
    for client in 5..9 {
        let action = set::Action::Read(Some(there.clone()));
        history.push(Operation { client, invoked: end, outcome: Outcome::Ok(end), action });
    }
    History::Set(history)
}

fn banks(random: &mut Random) -> History {
    let accounts: BTreeMap<u32, i64> = (0..8).map(|account| (account, 10_000)).collect();
    let claim = bank::Claim {
        accounts: accounts.clone(),
        overdraft: true,
        stale_reads: false,
        next_bank: NonZeroU32::new(100),
    };
    let mut balances = BTreeMap::new();
    let history = (0..OPERATIONS).map(|at| {
        let first = u32::try_from(at / 2500 * 100).unwrap_or(0);
        if at % 2500 == 0 {
            balances = accounts.iter().map(|(account, balance)| (account + first, *balance)).collect();
        }
        let (from, hop) = (random.below(8), 1 + random.below(7));
        let place = |place: u64| first + u32::try_from(place % 8).unwrap_or(0);
        let amount = 1 + u32::try_from(random.below(997)).unwrap_or(0);
        let transfer = bank::Transfer { from: place(from), to: place(from + hop), amount };
        let is_read = at % 5 == 4;
        operation(random, at, |done, answered| {
            if is_read {
                return bank::Action::Read(answered.then(|| balances.clone()));
            }
            if done {
                *balances.entry(transfer.from).or_default() -= i64::from(amount);
                *balances.entry(transfer.to).or_default() += i64::from(amount);
            }
            bank::Action::Transfer(transfer)
        })
    });
    History::Bank(claim, history.collect())
}

fn lists(random: &mut Random) -> History {
    let mut lists: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut value = 0;
    let mut history: Vec<_> = (0..OPERATIONS)
        .map(|at| {
            let first = value / 80 * 5;
            let steps: Vec<(String, Option<u64>)> = (0..=random.below(4))
                .map(|_| {
                    let key = format!("k{}", first + random.below(5));
                    let append = random.below(2) == 0;
                    value += u64::from(append);
                    (key, append.then_some(value))
                })
                .collect();
            operation(random, at, |done, answered| {
                let there = |key: &String| lists.get(key).cloned().unwrap_or_default();
                let mut own: BTreeMap<String, Vec<u64>> =
                    steps.iter().map(|(key, _)| (key.clone(), there(key))).collect();
                let step = |(key, value): (String, Option<u64>)| match value {
                    Some(value) => {
                        own.entry(key.clone()).or_default().push(value);
                        Step::Append(key, value)
                    }
                    None => {
                        let found = own.get(&key).cloned().unwrap_or_default();
                        Step::Read(key, answered.then_some(found))
                    }
                };
                let action = steps.into_iter().map(step).collect();
                if done {
                    lists.extend(own);
                }
                action
            })
        })
        .collect();
    let end = 2_000_000 + OPERATIONS * 10_000;
    let looks = lists.iter().map(|(key, found)| Step::Read(key.clone(), Some(found.clone())));
    let looks: Vec<Step> = looks.collect();
    history.extend(looks.chunks(100).map(|look| Operation {
        client: 9,
        invoked: Moment::from_micros(end),
        outcome: Outcome::Ok(Moment::from_micros(end + 1000)),
        action: look.to_vec(),
    }));
    History::Append(append::Claim { level: Level::Serializable, real_time: true }, history)
}

fn registers(random: &mut Random) -> History {
    let mut held: BTreeMap<u64, u64> = BTreeMap::new();
    let history = (0..OPERATIONS).map(|at| {
        let number = at / 500 * 5 + random.below(5);
        let roll = random.below(10);
        operation(random, at, |done, answered| {
            let before = held.get(&number).copied();
            let what = match roll {
                0..4 => What::Read(match (answered, before) {
                    (false, _) => Answer::None,
                    (true, None) => Answer::Absent,
                    (true, Some(value)) => Answer::Value(value),
                }),
                4..7 => What::Write(at + 1),
                // A third of the swaps expects something that is not there.
                roll => {
                    let from = if roll == 7 { Some(at) } else { before };
                    What::Swap { from, to: at + 1, done: answered.then_some(from == before) }
                }
            };
            let changes = match what {
                What::Read(_) => false,
                What::Write(_) => true,
                What::Swap { from, .. } => from == before,
            };
            if done && changes {
                held.insert(number, at + 1);
            }
            register::Action { key: format!("r{number}"), what }
        })
    });
    History::Register(history.collect())
}

/// What this process holds now and held at most, in megabytes (`/proc/self/status`).
fn megabytes(what: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(what));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) / 1024
}

fn main() {
    for make in [sets, banks, lists, registers] {
        let before = megabytes("VmRSS:");
        let history = make(&mut Random(7));
        let (counts, held) = (history.counts(), megabytes("VmRSS:").saturating_sub(before));
        let begun = Instant::now();
        let verdict = history.verdict();
        let (took, most) = (begun.elapsed(), megabytes("VmHWM:"));
        let words = match &verdict {
            Verdict::Valid => "valid".to_owned(),
            Verdict::Violated(_) | Verdict::Undecided(_) => verdict.to_string(),
        };
        println!(
            "{}: {} ok, {} unknown, {held} MB; judged in {took:.1?}, at most {most} MB in all: {words}",
            history.workload(),
            counts.ok,
            counts.unknown
        );
    }
}
