//! Single rows that are read, written, and compared and set.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use checker::register::{Action, Answer as Found, What};
use tokio_postgres::SimpleQueryRow;

use super::client::{Answer, Work};
use super::random::Random;
use super::transaction::{End, Wire, number};
use crate::drill::session::Session;
use crate::drill::table::{TIMELINE, timeline};

/// Registers in use at a time.
const REGISTERS: u64 = 5;
const PLACES: usize = 5;

/// Operations after which all of them are left for new ones.
const OPERATIONS: u64 = 500;

/// Registers that one last look reads.
const LOOK: u64 = 500;

#[derive(Clone)]
pub(super) struct Register {
    run: String,
    deadline: Duration,
    operations: Arc<AtomicU64>,
    /// The value that each place was last seen to hold, so that swaps have a chance; 0 for none.
    held: Arc<[AtomicU64; PLACES]>,
}

#[derive(Clone)]
pub(super) enum Asked {
    One(Action),
    /// Each register from the first number on, before the second.
    Look(u64, u64),
}

impl Register {
    pub(super) fn new(run: &str, deadline: Duration) -> Self {
        Self { run: run.to_owned(), deadline, operations: Arc::default(), held: Arc::default() }
    }

    fn first(&self) -> u64 {
        self.operations.load(Ordering::Relaxed) / OPERATIONS * REGISTERS
    }

    /// The register's place among those in use.
    fn held(&self, place: u64) -> Option<&AtomicU64> {
        self.held.get(usize::try_from(place).ok()?)
    }

    /// What a swap expects: what the register was last seen to hold, or that it is absent.
    fn expected(&self, operation: u64, place: u64) -> Option<u64> {
        let last = self.held(place)?.load(Ordering::Relaxed);
        let first = operation / OPERATIONS * OPERATIONS;
        // Values up to there were of the register that had this place before.
        (last > first).then_some(last)
    }

    /// Remembers what was found or done.
    fn remember(&self, key: &str, what: What) {
        let value = match what {
            What::Read(Found::Value(value)) | What::Write(value) => value,
            What::Swap { to, done: Some(true), .. } => to,
            What::Read(Found::None | Found::Absent) | What::Swap { .. } => return,
        };
        let number: Option<u64> = key.strip_prefix('r').and_then(|number| number.parse().ok());
        if let Some(held) = number.and_then(|number| self.held(number % REGISTERS)) {
            held.store(value, Ordering::Relaxed);
        }
    }

    /// One statement, which says the timeline and what was found or done.
    fn sql(&self, action: &Action) -> String {
        let (run, key) = (&self.run, &action.key);
        let row = format!("run = '{run}' and key = '{key}'");
        match action.what {
            What::Read(_) => {
                format!("select {TIMELINE}, (select value from mainstay_drill.registers where {row})")
            }
            What::Write(value) => format!(
                "insert into mainstay_drill.registers (run, key, value) values ('{run}', '{key}', {value}) \
                 on conflict (run, key) do update set value = excluded.value returning {TIMELINE}"
            ),
            What::Swap { from: Some(from), to, .. } => format!(
                "with done as (update mainstay_drill.registers set value = {to} where {row} and value = {from} \
                 returning 1) select {TIMELINE}, (select count(*) from done)"
            ),
            What::Swap { from: None, to, .. } => format!(
                "with done as (insert into mainstay_drill.registers (run, key, value) values ('{run}', '{key}', {to}) \
                 on conflict do nothing returning 1) select {TIMELINE}, (select count(*) from done)"
            ),
        }
    }

    async fn one(&self, wire: Wire<'_>, action: &Action) -> Result<Answer<Action>, End> {
        let sql = self.sql(action);
        let rows = match action.what {
            What::Read(_) => wire.read(&sql).await?,
            What::Write(_) | What::Swap { .. } => wire.write(&sql).await?,
        };
        let row = rows.first();
        let answer = row.and_then(|row| number::<u64>(row, 1));
        let (what, changes) = match action.what {
            What::Read(_) => (What::Read(answer.map_or(Found::Absent, Found::Value)), false),
            What::Write(value) => (What::Write(value), true),
            What::Swap { from, to, .. } => {
                let done = answer == Some(1);
                (What::Swap { from, to, done: Some(done) }, done)
            }
        };
        self.remember(&action.key, what);
        let action = Action { key: action.key.clone(), what };
        Ok(Answer { actions: vec![action], timeline: row.and_then(|row| timeline(row, 0)), changes })
    }

    async fn look(&self, wire: Wire<'_>, from: u64, until: u64) -> Result<Answer<Action>, End> {
        let keys: Vec<String> = (from..until).map(|key| format!("'r{key}'")).collect();
        let sql = format!(
            "select key, value, {TIMELINE} from mainstay_drill.registers where run = '{}' and key in ({})",
            self.run,
            keys.join(", ")
        );
        let rows = wire.read(&sql).await?;
        let held = |row: &SimpleQueryRow| Some((row.get(0)?.to_owned(), number::<u64>(row, 1)?));
        let held: HashMap<String, u64> = rows.iter().filter_map(held).collect();
        let read = |key: u64| {
            let key = format!("r{key}");
            let found = held.get(&key).map_or(Found::Absent, |value| Found::Value(*value));
            Action { key, what: What::Read(found) }
        };
        let timeline = rows.first().and_then(|row| timeline(row, 2));
        Ok(Answer { actions: (from..until).map(read).collect(), timeline, changes: false })
    }
}

impl Work for Register {
    type Asked = Asked;
    type Action = Action;

    fn table(&self) -> String {
        "create schema if not exists mainstay_drill; \
         create table if not exists mainstay_drill.registers \
         (run text not null, key text not null, value bigint not null, primary key (run, key))"
            .to_owned()
    }

    fn next(&self, random: &mut Random) -> Asked {
        let operation = self.operations.fetch_add(1, Ordering::Relaxed);
        let place = random.below(REGISTERS);
        let number = operation / OPERATIONS * REGISTERS + place;
        // No value is written twice.
        let to = operation + 1;
        let what = match random.below(10) {
            0..4 => What::Read(Found::None),
            4..7 => What::Write(to),
            _ => What::Swap { from: self.expected(operation, place), to, done: None },
        };
        Asked::One(Action { key: format!("r{number}"), what })
    }

    async fn perform(&self, session: &Session, asked: &Asked) -> Result<Answer<Action>, End> {
        let wire = Wire { session, deadline: self.deadline };
        match asked {
            Asked::One(action) => self.one(wire, action).await,
            Asked::Look(from, until) => self.look(wire, *from, *until).await,
        }
    }

    fn unanswered(&self, asked: &Asked) -> Vec<Action> {
        match asked {
            Asked::One(action) => vec![action.clone()],
            Asked::Look(..) => Vec::new(),
        }
    }

    fn last_looks(&self) -> Vec<Asked> {
        let end = self.first() + REGISTERS;
        let looks = 0..end.div_ceil(LOOK);
        looks.map(|look| Asked::Look(look * LOOK, (look * LOOK + LOOK).min(end))).collect()
    }
}
