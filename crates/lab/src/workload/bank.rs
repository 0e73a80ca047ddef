//! Transfers between accounts, and reads of all balances.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use checker::bank::{Account, Action, Claim, Transfer};
use tokio_postgres::SimpleQueryRow;

use super::client::{Answer, Work};
use super::random::Random;
use super::transaction::{End, Wire, number};
use crate::drill::session::Session;
use crate::drill::table::{TIMELINE, timeline};

/// Accounts of one bank.
const ACCOUNTS: u32 = 8;

/// What is on each at first.
const START: i64 = 10_000;

/// The most that is moved at once.
const MOST: u64 = 997;

/// How far the account numbers of one bank and the next are apart.
const STEP: NonZeroU32 = NonZeroU32::new(100).unwrap();

/// Transfers after which a bank is left for a new one.
const TRANSFERS: u64 = 2000;

/// Of a hundred operations, so many are reads.
const READS: u64 = 20;

#[derive(Clone)]
pub(super) struct Bank {
    run: String,
    deadline: Duration,
    transfers: Arc<AtomicU64>,
    /// The highest bank whose accounts surely exist, counted from 1.
    opened: Arc<AtomicU64>,
}

#[derive(Clone, Copy)]
pub(super) enum Asked {
    Transfer(Transfer),
    Read { bank: u32 },
}

/// What is claimed of the banks.
pub(super) fn claim() -> Claim {
    let accounts = (0..ACCOUNTS).map(|account| (account, START)).collect();
    Claim { accounts, overdraft: false, stale_reads: false, next_bank: Some(STEP) }
}

impl Bank {
    pub(super) fn new(run: &str, deadline: Duration) -> Self {
        Self { run: run.to_owned(), deadline, transfers: Arc::default(), opened: Arc::default() }
    }

    /// The bank in use.
    fn bank(&self) -> u32 {
        u32::try_from(self.transfers.load(Ordering::Relaxed) / TRANSFERS).unwrap_or(u32::MAX)
    }

    /// Opens a bank if that has not been done. Repeating it changes nothing, however late it arrives.
    async fn open(&self, wire: Wire<'_>, bank: u32) -> Result<(), End> {
        if self.opened.load(Ordering::Relaxed) > u64::from(bank) {
            return Ok(());
        }
        let first = bank * STEP.get();
        let accounts: Vec<String> = (first..first + ACCOUNTS)
            .map(|account| format!("('{}', {account}, {START})", self.run))
            .collect();
        let sql = format!(
            "insert into mainstay_drill.accounts (run, id, balance) values {} on conflict do nothing",
            accounts.join(", ")
        );
        match wire.write(&sql).await {
            Ok(_) => {
                self.opened.fetch_max(u64::from(bank) + 1, Ordering::Relaxed);
                Ok(())
            }
            Err(End::NotSent) => Err(End::NotSent),
            // The operation for which the bank was to be opened was surely not done.
            Err(End::Refused | End::Failed | End::Unknown) => Err(End::Failed),
        }
    }

    async fn transfer(&self, wire: Wire<'_>, transfer: Transfer) -> Result<Answer<Action>, End> {
        let Transfer { from, to, amount } = transfer;
        let begun = wire.begin("read committed").await?;
        let amount = i64::from(amount);
        let mut changes = [(from, -amount), (to, amount)];
        // Always in the same order, so that two transfers never wait for each other.
        changes.sort_unstable();
        for (account, change) in changes {
            let sql = format!(
                "update mainstay_drill.accounts set balance = balance + ({change}) \
                 where run = '{}' and id = {account} and balance + ({change}) >= 0 returning id",
                self.run
            );
            if wire.step(&sql).await?.is_empty() {
                return Err(wire.roll_back().await);
            }
        }
        wire.commit().await?;
        let timeline = begun.first().and_then(|row| timeline(row, 0));
        Ok(Answer { actions: vec![Action::Transfer(transfer)], timeline, changes: true })
    }

    async fn read(&self, wire: Wire<'_>, bank: u32) -> Result<Answer<Action>, End> {
        let first = bank * STEP.get();
        let sql = format!(
            "select id, balance, {TIMELINE} from mainstay_drill.accounts \
             where run = '{}' and id >= {first} and id < {first} + {STEP}",
            self.run
        );
        let rows = wire.read(&sql).await?;
        let balance = |row: &SimpleQueryRow| Some((number::<Account>(row, 0)?, number::<i64>(row, 1)?));
        let balances: BTreeMap<Account, i64> = rows.iter().filter_map(balance).collect();
        let timeline = rows.first().and_then(|row| timeline(row, 2));
        Ok(Answer { actions: vec![Action::Read(Some(balances))], timeline, changes: false })
    }
}

impl Work for Bank {
    type Asked = Asked;
    type Action = Action;

    fn table(&self) -> String {
        "create schema if not exists mainstay_drill; \
         create table if not exists mainstay_drill.accounts \
         (run text not null, id bigint not null, balance bigint not null, primary key (run, id))"
            .to_owned()
    }

    fn next(&self, random: &mut Random) -> Asked {
        if random.percent(READS) {
            return Asked::Read { bank: self.bank() };
        }
        let bank = self.transfers.fetch_add(1, Ordering::Relaxed) / TRANSFERS;
        let first = u32::try_from(bank).unwrap_or(u32::MAX).saturating_mul(STEP.get());
        let mut below = |end: u64| u32::try_from(random.below(end)).unwrap_or(0);
        let from = below(ACCOUNTS.into());
        let to = (from + 1 + below(u64::from(ACCOUNTS) - 1)) % ACCOUNTS;
        Asked::Transfer(Transfer { from: first + from, to: first + to, amount: 1 + below(MOST) })
    }

    async fn perform(&self, session: &Session, asked: &Asked) -> Result<Answer<Action>, End> {
        let wire = Wire { session, deadline: self.deadline };
        match *asked {
            Asked::Transfer(transfer) => {
                self.open(wire, transfer.from / STEP).await?;
                self.transfer(wire, transfer).await
            }
            Asked::Read { bank } => {
                self.open(wire, bank).await?;
                self.read(wire, bank).await
            }
        }
    }

    fn unanswered(&self, asked: &Asked) -> Vec<Action> {
        match *asked {
            Asked::Transfer(transfer) => vec![Action::Transfer(transfer)],
            Asked::Read { .. } => vec![Action::Read(None)],
        }
    }

    fn last_looks(&self) -> Vec<Asked> {
        (0..=self.bank()).map(|bank| Asked::Read { bank }).collect()
    }
}
