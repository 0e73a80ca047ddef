//! Clients at work: one operation after another, each at its time, each recorded.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use checker::{Operation, Outcome};
use effects::clock;
use model::postgres::Timeline;
use model::time::Moment;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

use super::Load;
use super::random::Random;
use super::transaction::End;
use crate::drill::connector::Connector;
use crate::drill::session::Session;

/// What clients of a kind do. A clone is another client of the same run.
pub(super) trait Work: Clone + Send + Sync + 'static {
    /// What is asked.
    type Asked: Send + Sync;
    /// What is recorded: what was asked, with what was answered.
    type Action: Send + Sync + 'static;

    /// The statement that makes the table.
    fn table(&self) -> String;

    /// What a client does next.
    fn next(&self, random: &mut Random) -> Self::Asked;

    /// Does it.
    fn perform(
        &self,
        session: &Session,
        asked: &Self::Asked,
    ) -> impl Future<Output = Result<Answer<Self::Action>, End>> + Send;

    /// What is recorded where no answer came.
    fn unanswered(&self, asked: &Self::Asked) -> Vec<Self::Action>;

    /// What must be read at the end so that everything has been looked at.
    fn last_looks(&self) -> Vec<Self::Asked>;
}

/// What was answered, and by whom.
pub(super) struct Answer<A> {
    /// Usually one. What one statement read of several independent things are several.
    pub(super) actions: Vec<A>,
    /// The timeline on which the server stood.
    pub(super) timeline: Option<Timeline>,
    /// Whether anything was changed: only a primary that is one can acknowledge that.
    pub(super) changes: bool,
}

/// An operation, and who answered it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen<A> {
    pub(super) operation: Operation<A>,
    pub(super) timeline: Option<Timeline>,
    pub(super) changes: bool,
}

/// All clients of a kind.
pub(super) struct Crew<W> {
    pub(super) work: W,
    pub(super) load: Load,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) acknowledged: Arc<AtomicU64>,
}

/// How often one operation may find its connection closed before it was sent.
const IDLE_LOSSES: u32 = 3;

/// How long to wait after failures that are no conflicts: the first time, and at most. Each statement that gets no answer
/// leaves a backend behind that waits on.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// How long making a table, and the last looks, may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Makes a table, trying again until patience runs out.
pub(super) async fn make(connector: &mut Connector, table: &str) -> Result<(), String> {
    let end = clock::now() + PATIENCE;
    loop {
        let failed = match connector.session().await {
            Ok(session) => match session.run(table, PATIENCE).await {
                Ok(_) => return Ok(()),
                Err(refusal) => refusal.to_string(),
            },
            Err(reason) => reason,
        };
        if clock::now() > end {
            return Err(format!("the table of a workload cannot be made: {failed}"));
        }
        sleep(BACK_OFF.0).await;
    }
}

impl<W: Work> Crew<W> {
    /// Works until it is stopped, looks at everything once more, and hands over what was seen.
    pub(super) async fn work(self) -> Vec<Seen<W::Action>> {
        let mut clients = JoinSet::new();
        for number in 0..self.load.clients {
            clients.spawn(self.client(number).work());
        }
        let mut seen = Vec::new();
        while let Some(client) = clients.join_next().await {
            match client.map_err(JoinError::try_into_panic) {
                Ok(of_client) => seen.extend(of_client),
                Err(Ok(panic)) => std::panic::resume_unwind(panic),
                // The runtime is ending, and this task with it.
                Err(Err(_)) => {}
            }
        }
        seen.extend(self.client(self.load.clients).last_looks().await);
        seen
    }

    fn client(&self, number: u32) -> Client<W> {
        let first = usize::try_from(number).unwrap_or(0);
        let per_client = f64::from(self.load.clients) / f64::from(self.load.rate.max(1));
        Client {
            number,
            work: self.work.clone(),
            connector: self.load.connector(first),
            every: Duration::from_secs_f64(per_client),
            random: Random::of_client(number),
            stop: Arc::clone(&self.stop),
            acknowledged: Arc::clone(&self.acknowledged),
            seen: Vec::new(),
        }
    }
}

struct Client<W: Work> {
    number: u32,
    work: W,
    connector: Connector,
    every: Duration,
    random: Random,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    seen: Vec<Seen<W::Action>>,
}

impl<W: Work> Client<W> {
    async fn work(mut self) -> Vec<Seen<W::Action>> {
        let mut pause = BACK_OFF.0;
        while !self.stop.load(Ordering::SeqCst) {
            let next = Instant::now() + self.every;
            let asked = self.work.next(&mut self.random);
            match self.perform(&asked).await {
                Ok(()) => {
                    self.acknowledged.fetch_add(1, Ordering::Relaxed);
                    pause = BACK_OFF.0;
                }
                Err(End::Refused) => pause = BACK_OFF.0,
                Err(End::Failed | End::Unknown | End::NotSent) => {
                    self.pause(pause).await;
                    pause = (pause * 2).min(BACK_OFF.1);
                }
            }
            sleep_until(next).await;
        }
        self.seen
    }

    /// Waits, unless the work is over.
    async fn pause(&self, length: Duration) {
        let end = Instant::now() + length;
        while Instant::now() < end && !self.stop.load(Ordering::SeqCst) {
            sleep(BACK_OFF.0.min(end - Instant::now())).await;
        }
    }

    async fn last_looks(mut self) -> Vec<Seen<W::Action>> {
        let end = clock::now() + PATIENCE;
        for asked in self.work.last_looks() {
            while self.perform(&asked).await.is_err() && clock::now() < end {
                sleep(BACK_OFF.0).await;
            }
        }
        self.seen
    }

    /// One operation, of which not one byte is sent twice.
    async fn perform(&mut self, asked: &W::Asked) -> Result<(), End> {
        let begun = clock::now();
        for _ in 0..IDLE_LOSSES {
            let Ok(session) = self.connector.session().await else { break };
            // Waiting for a connection is part of an outage, but in that time nothing was under way.
            let invoked = clock::now();
            let result = self.work.perform(&session, asked).await;
            match &result {
                Ok(_) | Err(End::Refused) => self.connector.worked(Some(session)),
                Err(End::Failed | End::Unknown) => self.connector.failed(&session),
                // Closed while idle: connecting again repeats nothing.
                Err(End::NotSent) => continue,
            }
            return self.record(invoked, asked, result);
        }
        self.record(begun, asked, Err(End::Failed))
    }

    fn record(
        &mut self,
        invoked: Moment,
        asked: &W::Asked,
        result: Result<Answer<W::Action>, End>,
    ) -> Result<(), End> {
        let (outcome, end) = match &result {
            Ok(_) => (Outcome::Ok(clock::now()), Ok(())),
            Err(End::Unknown) => (Outcome::Unknown, Err(End::Unknown)),
            Err(end @ (End::Refused | End::Failed | End::NotSent)) => (Outcome::Failed, Err(*end)),
        };
        let Answer { actions, timeline, changes } = result.unwrap_or_else(|_| Answer {
            actions: self.work.unanswered(asked),
            timeline: None,
            changes: false,
        });
        let client = self.number;
        self.seen.extend(actions.into_iter().map(|action| {
            let operation = Operation { client, invoked, outcome, action };
            Seen { operation, timeline, changes }
        }));
        end
    }
}
