//! Clients as applications must not be: they read a list, and write the longer one in another statement of a read
//! committed transaction. PostgreSQL allows the lost update, and the checker must find it.

use checker::append::{Action, Step};

use crate::drill::session::Session;
use crate::workload::append::Append;
use crate::workload::client::{Answer, Work};
use crate::workload::random::Random;
use crate::workload::transaction::{End, Wire};

#[derive(Clone)]
pub(super) struct Careless {
    pub(super) run: String,
    pub(super) careful: Append,
}

impl Careless {
    async fn append(&self, wire: Wire<'_>, key: &str, value: u64) -> Result<(), End> {
        let there = format!("run = '{}' and key = '{key}'", self.run);
        let rows = wire
            .step(&format!("select array_to_string(items, ',') from mainstay_drill.lists where {there}"))
            .await?;
        let items = match rows.first().and_then(|row| row.get(0)) {
            Some(items) => format!("{items},{value}"),
            None => value.to_string(),
        };
        // As long as an application thinks.
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        let (run, write) = (&self.run, "insert into mainstay_drill.lists (run, key, items) values");
        wire.step(&format!(
            "{write} ('{run}', '{key}', '{{{items}}}') on conflict (run, key) do update set items = excluded.items"
        ))
        .await?;
        Ok(())
    }
}

impl Work for Careless {
    type Asked = Action;
    type Action = Action;

    fn table(&self) -> String {
        self.careful.table()
    }

    fn next(&self, random: &mut Random) -> Action {
        self.careful.next(random)
    }

    async fn perform(&self, session: &Session, asked: &Action) -> Result<Answer<Action>, End> {
        let wire = Wire { session, deadline: std::time::Duration::from_secs(1) };
        let appends = asked.iter().filter_map(|step| match step {
            Step::Append(key, value) => Some((key, *value)),
            Step::Read(..) => None,
        });
        wire.begin("read committed").await?;
        let mut done = Vec::new();
        for (key, value) in appends {
            self.append(wire, key, value).await?;
            done.push(Step::Append(key.clone(), value));
        }
        wire.commit().await?;
        Ok(Answer { actions: vec![done], timeline: None, changes: true })
    }

    fn unanswered(&self, asked: &Action) -> Vec<Action> {
        self.careful.unanswered(asked)
    }

    /// Carefully, so that everything is seen.
    fn last_looks(&self) -> Vec<Action> {
        Vec::new()
    }
}
