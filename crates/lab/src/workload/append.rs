//! Transactions that append to lists and read them, all serializable.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use checker::append::{Action, Claim, Level, Step};
use tokio_postgres::SimpleQueryRow;

use super::client::{Answer, Work};
use super::random::Random;
use super::transaction::{End, Wire};
use crate::drill::session::Session;
use crate::drill::table::timeline;

/// What is claimed of the lists.
pub(super) const CLAIM: Claim = Claim { level: Level::Serializable, real_time: true };

/// Lists in use at a time.
const LISTS: u64 = 5;

/// Values after which a list is left for a new one: what one read holds stays small.
const VALUES: u64 = 16;

/// Steps of a transaction, at most.
const STEPS: u64 = 4;

/// Of a hundred steps, so many are reads.
const READS: u64 = 50;

/// Lists that one last look reads.
const LOOK: u64 = 100;

#[derive(Clone)]
pub(super) struct Append {
    run: String,
    deadline: Duration,
    values: Arc<AtomicU64>,
}

impl Append {
    pub(super) fn new(run: &str, deadline: Duration) -> Self {
        Self { run: run.to_owned(), deadline, values: Arc::default() }
    }

    /// The first of the lists in use.
    fn first(&self) -> u64 {
        self.values.load(Ordering::Relaxed) / (LISTS * VALUES) * LISTS
    }

    async fn step(&self, wire: Wire<'_>, step: &Step) -> Result<Step, End> {
        let run = &self.run;
        match step {
            Step::Append(key, value) => {
                let sql = format!(
                    "insert into mainstay_drill.lists as there (run, key, items) values ('{run}', '{key}', '{{{value}}}') \
                     on conflict (run, key) do update set items = there.items || excluded.items"
                );
                wire.step(&sql).await?;
                Ok(step.clone())
            }
            Step::Read(key, _) => {
                let sql = format!(
                    "select array_to_string(items, ',') from mainstay_drill.lists where run = '{run}' and key = '{key}'"
                );
                let rows = wire.step(&sql).await?;
                Ok(Step::Read(key.clone(), Some(rows.first().map(items).unwrap_or_default())))
            }
        }
    }
}

fn items(row: &SimpleQueryRow) -> Vec<u64> {
    let text: &str = row.get(0).unwrap_or_default();
    text.split(',').filter_map(|item| item.parse().ok()).collect()
}

impl Work for Append {
    type Asked = Action;
    type Action = Action;

    fn table(&self) -> String {
        "create schema if not exists mainstay_drill; \
         create table if not exists mainstay_drill.lists \
         (run text not null, key text not null, items bigint[] not null, primary key (run, key))"
            .to_owned()
    }

    fn next(&self, random: &mut Random) -> Action {
        let first = self.first();
        let mut keys: Vec<u64> = (0..=random.below(STEPS)).map(|_| random.below(LISTS)).collect();
        // Always in the same order, so that two transactions never wait for each other.
        keys.sort_unstable();
        let step = |key| {
            let key = format!("k{}", first + key);
            match random.percent(READS) {
                true => Step::Read(key, None),
                false => Step::Append(key, self.values.fetch_add(1, Ordering::Relaxed)),
            }
        };
        keys.into_iter().map(step).collect()
    }

    async fn perform(&self, session: &Session, asked: &Action) -> Result<Answer<Action>, End> {
        let wire = Wire { session, deadline: self.deadline };
        let begun = wire.begin("serializable").await?;
        let mut done = Vec::new();
        for step in asked {
            done.push(self.step(wire, step).await?);
        }
        wire.commit().await?;
        let timeline = begun.first().and_then(|row| timeline(row, 0));
        let changes = asked.iter().any(|step| matches!(step, Step::Append(..)));
        Ok(Answer { actions: vec![done], timeline, changes })
    }

    fn unanswered(&self, asked: &Action) -> Vec<Action> {
        vec![asked.clone()]
    }

    fn last_looks(&self) -> Vec<Action> {
        let keys: Vec<u64> = (0..self.first() + LISTS).collect();
        let look = |keys: &[u64]| keys.iter().map(|key| Step::Read(format!("k{key}"), None)).collect();
        keys.chunks(usize::try_from(LOOK).unwrap_or(1)).map(look).collect()
    }
}
