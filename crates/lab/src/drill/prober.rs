//! The prober: asks every member directly, past every route, whether it is the primary, and writes to each that says so.
//!
//! Two askers stand before each member. The brisk one gives up soon and comes again: it finds a member that has begun to
//! answer. The patient one waits on one connection for as long as it stands: a question that reached a frozen member is
//! answered in the moment of its thawing, before anything else there can act, and that answer must be seen.

use std::time::Duration;

use effects::clock;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_postgres::Config;

use super::client::Ids;
use super::history::{Answer, History, Member, Outcome, Role, Write, Writer};
use super::session::{Deadlines, Refusal, Session};
use super::table::{self, RunName};

/// How often each asker asks.
pub const ASK_EVERY: Duration = Duration::from_millis(50);

/// How long the brisk asker waits for an answer.
const BRISK: Duration = Duration::from_millis(500);

/// How long the patient asker waits: longer than any run.
const PATIENT: Duration = Duration::from_secs(24 * 3600);

/// The prober at work.
#[derive(Debug)]
pub struct Prober {
    stop: watch::Sender<bool>,
    askers: Vec<JoinHandle<History>>,
}

impl Prober {
    /// Begins to ask every member, on a runtime whose threads are where the client stands.
    pub fn start(runtime: &Handle, members: &[Member], login: &Config, run: &RunName, ids: &Ids) -> Self {
        let (stop, stopped) = watch::channel(false);
        let asker = |member: &Member, answer_within, write_every| {
            let asker = Asker {
                member: member.clone(),
                login: login.clone(),
                run: run.clone(),
                ids: ids.clone(),
                answer_within,
                write_every,
                seen: History::default(),
            };
            runtime.spawn(asker.ask(stopped.clone()))
        };
        let askers = members.iter().flat_map(|m| [asker(m, BRISK, 1), asker(m, PATIENT, 2)]).collect();
        Self { stop, askers }
    }

    /// Ends and hands over all that was seen.
    pub async fn stop(self) -> Result<History, String> {
        self.stop.send_replace(true);
        let mut all = History::default();
        for asker in self.askers {
            let seen = asker.await.map_err(|e| format!("the prober broke down: {e}"))?;
            all.writes.extend(seen.writes);
            all.answers.extend(seen.answers);
        }
        Ok(all)
    }
}

struct Asker {
    member: Member,
    login: Config,
    run: RunName,
    ids: Ids,
    answer_within: Duration,
    /// Every how many answers as primary it also writes.
    write_every: u64,
    seen: History,
}

impl Asker {
    async fn ask(mut self, mut stopped: watch::Receiver<bool>) -> History {
        let mut session = None;
        let mut turn = 0_u64;
        while !*stopped.borrow_and_update() {
            let next = Instant::now() + ASK_EVERY;
            turn += 1;
            session = self.turn(session, turn, &mut stopped).await;
            tokio::select! {
                () = sleep_until(next) => {}
                _ = stopped.changed() => {}
            }
        }
        self.seen
    }

    /// One question, and one write when the answer was "primary"; hands back the session while it is good.
    async fn turn(
        &mut self,
        session: Option<Session>,
        turn: u64,
        stopped: &mut watch::Receiver<bool>,
    ) -> Option<Session> {
        let session = match session.filter(|session| !session.is_closed()) {
            Some(session) => session,
            None => self.open(stopped).await?,
        };
        let sent = clock::now();
        let role = self.until(stopped, table::role(&session, self.answer_within)).await.ok()?;
        self.seen.answers.push(Answer {
            member: self.member.node.clone(),
            sent,
            received: clock::now(),
            role,
        });
        match role {
            Role::Primary(_) if turn.is_multiple_of(self.write_every) => self.write(session, stopped).await,
            Role::Primary(_) | Role::Standby => Some(session),
        }
    }

    async fn write(&mut self, session: Session, stopped: &mut watch::Receiver<bool>) -> Option<Session> {
        let id = self.ids.next();
        let sent = clock::now();
        let result = self.until(stopped, table::insert(&session, &self.run, id, self.answer_within)).await;
        let outcome = match result {
            Ok((server, false)) => Outcome::Acknowledged(server),
            Ok((server, true)) => Outcome::Unknown(format!("{server} acknowledged with a warning")),
            Err(Refusal::NotSent) => Outcome::Failed(Refusal::NotSent.to_string()),
            Err(Refusal::Refused(reason) | Refusal::Conflict(reason)) => Outcome::Failed(reason),
            Err(Refusal::Uncertain(reason)) => Outcome::Unknown(reason),
        };
        let good = matches!(outcome, Outcome::Acknowledged(_));
        self.seen.writes.push(Write { id, by: Writer::Prober, sent, ended: clock::now(), outcome });
        good.then_some(session)
    }

    async fn open(&self, stopped: &mut watch::Receiver<bool>) -> Option<Session> {
        let address = *self.member.addresses.first()?;
        let deadlines = Deadlines { start_up: BRISK, ..Deadlines::default() };
        tokio::select! {
            session = Session::open(address, &self.login, deadlines) => session.ok(),
            _ = stopped.changed() => None,
        }
    }

    /// The statement's result, or an uncertain one when the run ends before.
    async fn until<T>(
        &self,
        stopped: &mut watch::Receiver<bool>,
        statement: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        tokio::select! {
            result = statement => result,
            _ = stopped.changed() => Err(Refusal::Uncertain("the run ended before the answer".to_owned())),
        }
    }
}
