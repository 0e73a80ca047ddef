//! Carries out one action at a time. A fence interrupts whatever is under way.

use std::time::Duration;

use decide::agent::{Durable, Input, Outcome};
use decide::member::Action;
use effects::postgres::{FoundError, Postmaster, PrimaryToken, StartRole, StopMode, Stopped};
use model::NodeName;
use model::leadership::{SyncSet, Term, TimelineOrigin};
use model::postgres::{Lsn, Timeline, WalPosition};
use model::status::{Server, Tenure};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Ground, SLOTS_LIMIT, durable, observer};

/// How long the creation of a database may take.
const FOUND_LIMIT: Duration = Duration::from_secs(120);
/// How long a start may take before it is looked at anew; crash recovery may need minutes.
const START_LIMIT: Duration = Duration::from_secs(300);
/// How long one attempt to end a server may take.
const FENCE_LIMIT: Duration = Duration::from_secs(2);
/// How long the disconnection of a standby may take in one attempt.
const DETACH_LIMIT: Duration = Duration::from_secs(3);
/// How long a promotion may take in one attempt.
const PROMOTE_LIMIT: Duration = Duration::from_secs(8);
/// How long the proof of a sync set may take in one attempt.
const PROOF_LIMIT: Duration = Duration::from_secs(3);
/// How long sessions may take to end by themselves in a switchover: what proxies give them, and the way there.
const DRAIN_LIMIT: Duration = Duration::from_millis(2100);
/// How long after a promotion the checkpoint that rewinds need is hurried.
const CHECKPOINT_AFTER: Duration = Duration::from_millis(400);
/// How long a standby's clean shutdown may take before it is ended at once: nobody waits for it.
const STANDBY_SHUTDOWN_LIMIT: Duration = Duration::from_secs(20);
/// How long a clean shutdown may take before the switchover becomes a failover.
const SHUTDOWN_LIMIT: Duration = Duration::from_millis(3500);

/// Everything that can go wrong in an action, in one sentence.
pub(super) type Done<T> = Result<T, String>;

fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The part of a member that acts.
pub(super) struct Actor {
    pub(super) ground: Ground,
    pub(super) durable: Durable,
    /// A server that has handed over and only has to end.
    leaving: Option<Postmaster>,
    /// What the action under way has seen of the server at its end, so that nobody needs to look again.
    seen: Option<Server>,
}

/// Carries out orders, for ever.
pub(super) async fn run(ground: Ground, durable: Durable, mut orders: mpsc::UnboundedReceiver<Action>) {
    let mut actor = Actor { ground, durable, leaving: None, seen: None };
    let mut next = orders.recv().await;
    while let Some(action) = next.take() {
        actor.ground.turn_epoch();
        actor.seen = None;
        let outcome = tokio::select! {
            biased;
            // A new order while one is under way is a fence, or the first step of a new term: it takes its place. What is
            // dropped ends the tools that it runs.
            urgent = orders.recv() => {
                next = urgent;
                continue;
            }
            outcome = actor.carry_out(&action) => outcome,
        };
        let outcome = outcome.unwrap_or_else(|because| Outcome::Failed { action, because });
        let server = match actor.seen.take() {
            Some(server) => Some(server),
            None if says_it_all(&outcome) => None,
            None => Some(observer::look(&actor.ground).await.0),
        };
        actor.ground.turn_epoch();
        let database = actor.ground.database.clone();
        let leads = matches!(outcome, Outcome::Leads { .. });
        actor.ground.shared.inputs.send(Input::Done { database, outcome, server });
        if leads {
            actor.begin_tenure();
        }
        actor.see_off().await;
        next = orders.recv().await;
    }
}

/// Whether an outcome leaves nothing to look at: milliseconds count between two steps of a failover.
fn says_it_all(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Promised(_)
        | Outcome::Detached(..)
        | Outcome::Stopped { .. }
        | Outcome::SyncApplied { proved: true, .. } => true,
        Outcome::Fenced
        | Outcome::StartedDetached
        | Outcome::Leads { .. }
        | Outcome::SyncApplied { .. }
        | Outcome::Follows(_)
        | Outcome::Rejoined(_)
        | Outcome::Failed { .. } => false,
    }
}

/// A former primary can be rewound only to a primary that has written a checkpoint on its new timeline. PostgreSQL
/// begins one by itself, which takes minutes where much is to be written; it is hurried, but not in the moment in which
/// clients wait for the disk.
async fn first_checkpoint(postmaster: Postmaster) {
    tokio::time::sleep(CHECKPOINT_AFTER).await;
    if postmaster.has_own_checkpoint(SLOTS_LIMIT).await.unwrap_or(false) {
        return;
    }
    if let Err(error) = postmaster.checkpoint(START_LIMIT).await {
        tracing::warn!(%error, "the first checkpoint of the new primary failed");
    }
}

impl Actor {
    async fn carry_out(&mut self, action: &Action) -> Done<Outcome> {
        match action {
            Action::Promise(term) => self.promise(*term).await,
            Action::Found { term } => self.found(*term).await,
            Action::Fence { .. } => self.fence().await,
            Action::StartDetached => self.start_detached().await,
            Action::Detach { term } => self.detach(*term).await,
            Action::ReportStopped { term, led } => self.report_stopped(*term, *led).await,
            Action::Promote { term, sync, .. } => self.promote(*term, sync).await,
            Action::ApplySync { term, sync, version } => self.apply_sync(*term, sync, *version).await,
            Action::Follow { primary, term } => self.follow(primary, *term).await,
            Action::Rejoin { primary, term, .. } => self.rejoin(primary, *term).await,
            Action::Clone { primary, term } => self.clone_primary(primary, *term).await,
            Action::Restart { primary, term } => self.restart(primary, *term).await,
            Action::StartPrimary { term, sync, .. } => self.start_primary(*term, sync).await,
            Action::HandOver { term } => self.hand_over(*term).await,
        }
    }

    /// Changes what is written down; returns when it is durable.
    pub(super) async fn keep(&mut self, change: impl FnOnce(&mut Durable)) -> Done<()> {
        let mut next = self.durable.clone();
        change(&mut next);
        durable::keep(&self.ground.shared, &self.ground.database, &next).await?;
        self.durable = next;
        Ok(())
    }

    async fn promise(&mut self, term: Term) -> Done<Outcome> {
        if self.durable.promised < term {
            self.keep(|durable| durable.promised = term).await?;
        }
        Ok(Outcome::Promised(self.durable.promised))
    }

    /// The last check before something dangerous: no higher term is promised.
    pub(super) fn still(&self, term: Term) -> Done<()> {
        match self.durable.promised > term {
            true => {
                Err(format!("term {} is promised, nothing is done under term {term}", self.durable.promised))
            }
            false => Ok(()),
        }
    }

    /// The right to lead in `term`, from the record as this node knows it now.
    async fn token(&self, term: Term) -> Done<PrimaryToken> {
        self.still(term)?;
        let (database, me) = (self.ground.database.clone(), self.ground.shared.me.clone());
        let token = self.ground.shared.inputs.ask(move |agent| {
            agent.record(&database).and_then(|stored| PrimaryToken::of(&stored.value, &me))
        });
        token
            .await
            .flatten()
            .filter(|token| token.term() == term)
            .ok_or_else(|| format!("term {term} is over"))
    }

    pub(super) fn postmaster(&self) -> Done<Postmaster> {
        self.ground.postmaster().ok_or_else(|| "PostgreSQL does not run".to_owned())
    }

    async fn found(&mut self, term: Term) -> Done<Outcome> {
        let token = self.token(term).await?;
        if self.durable.led.is_some_and(|led| led != term) {
            return Err("this node holds data of an earlier term; move it away".to_owned());
        }
        let (settings, secrets) = (self.ground.settings(), self.ground.secrets().await?);
        self.keep(|durable| {
            durable.is_elected(term);
        })
        .await?;
        match self.ground.member.found(&self.ground.application(), &settings, &secrets, FOUND_LIMIT).await {
            // An earlier attempt in this term went as far as this.
            Ok(_) | Err(FoundError::Exists(_)) => {}
            Err(error) => return Err(error.to_string()),
        }
        if self.ground.postmaster().is_none() {
            let sync = SyncSet::default();
            self.start(&StartRole::Primary { token, sync }).await?;
        }
        Ok(self.leads(term, TimelineOrigin { timeline: Timeline(1), term, begins: Lsn(0) }).await)
    }

    /// The term it leads is written down already; the rest of the tenure only spares a restarted agent a second look, so
    /// it is written after the others have been told (see [`Actor::apply_sync`]).
    async fn leads(&mut self, term: Term, origin: TimelineOrigin) -> Outcome {
        let (server, system_identifier) = observer::look(&self.ground).await;
        self.seen = Some(server);
        let TimelineOrigin { timeline, begins, term: made_in } = origin;
        let made_in = Some(made_in);
        let tenure = Tenure { term, timeline, begins, made_in, system_identifier, sync_applied: None };
        self.durable.follows = Term(0);
        self.durable.tenure = Some(tenure.clone());
        Outcome::Leads { tenure }
    }

    /// What a new primary does once everybody knows: nothing that its first commit would have to wait for.
    fn begin_tenure(&self) {
        let ground = self.ground.clone();
        tokio::spawn(async move {
            if let Err(error) = ground.keep_slots().await {
                tracing::warn!(%error, "replication slots could not be made yet");
            }
        });
        if let Some(postmaster) = self.ground.postmaster() {
            tokio::spawn(first_checkpoint(postmaster));
        }
    }

    /// Starts the server and waits until it takes connections.
    pub(super) async fn start(&self, role: &StartRole) -> Done<()> {
        let settings = self.ground.settings();
        let secrets = self.ground.secrets().await;
        if let Ok(secrets) = &secrets {
            self.ground.member.keep_secrets(secrets).await.map_err(words)?;
        }
        let postmaster = self.ground.member.start(role, &settings, START_LIMIT).await.map_err(words)?;
        let recorded = self.ground.registry.record(
            &self.ground.key(),
            postmaster.process().id(),
            serde_json::Value::Null,
        );
        if let Err(error) = recorded {
            tracing::warn!(%error, "the server is not recorded for adoption; it is found by its directory");
        }
        self.ground.set_postmaster(Some(postmaster.clone()));
        postmaster.ready(START_LIMIT).await.map(drop).map_err(words)
    }

    /// Ends the server at once, with every process that works in its data directory, and proves it.
    pub(super) async fn end(&self) -> Done<()> {
        match self.ground.postmaster() {
            Some(postmaster) => {
                let gently = postmaster.stop(StopMode::Immediate, FENCE_LIMIT / 4).await;
                if gently.is_err() || self.ground.member.is_really_gone().await.is_err() {
                    postmaster.kill(FENCE_LIMIT).await.map_err(words)?;
                }
            }
            None => self.leftovers_end().await?,
        }
        self.ground.set_postmaster(None);
        if let Err(error) = self.ground.registry.forget(&self.ground.key()) {
            tracing::warn!(%error, "the record of the ended server could not be removed");
        }
        Ok(())
    }

    /// The children of a postmaster that died notice it and end by themselves.
    async fn leftovers_end(&self) -> Done<()> {
        let deadline = Instant::now() + FENCE_LIMIT;
        loop {
            match self.ground.member.is_really_gone().await {
                Ok(()) => return Ok(()),
                Err(remains) if Instant::now() >= deadline => return Err(remains.to_string()),
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    async fn fence(&mut self) -> Done<Outcome> {
        self.end().await?;
        Ok(Outcome::Fenced)
    }

    async fn start_detached(&mut self) -> Done<Outcome> {
        if self.ground.postmaster().is_none() {
            self.ground.member.forget_source().await.map_err(words)?;
            self.start(&StartRole::Standby).await?;
        }
        self.keep(|durable| durable.follows = Term(0)).await?;
        Ok(Outcome::StartedDetached)
    }

    async fn detach(&mut self, term: Term) -> Done<Outcome> {
        if self.durable.promised < term {
            return Err(format!("term {term} is not promised yet"));
        }
        let detached = self.postmaster()?.disconnect_receiver(DETACH_LIMIT).await.map_err(words)?;
        self.durable.follows = Term(0);
        Ok(Outcome::Detached(term, detached.position))
    }

    async fn report_stopped(&mut self, term: Term, led: Term) -> Done<Outcome> {
        self.end().await?;
        Ok(Outcome::Stopped { term: self.durable.promised.max(term), led, clean_end: None })
    }

    async fn promote(&mut self, term: Term, sync: &SyncSet) -> Done<Outcome> {
        let token = self.token(term).await?;
        let postmaster = self.postmaster()?;
        if self.durable.led != Some(term) {
            self.keep(|durable| {
                durable.is_elected(term);
                durable.tenure = None;
            })
            .await?;
        }
        if self.durable.follows != Term(0) {
            // A switchover: the old primary is gone, but the receiver still looks for it.
            postmaster.disconnect_receiver(DETACH_LIMIT).await.map_err(words)?;
            self.durable.follows = Term(0);
        }
        let promoted = postmaster.promote(token, sync, PROMOTE_LIMIT).await.map_err(words)?;
        tracing::info!(took_ms = promoted.took.as_millis(), timeline = %promoted.timeline, "promoted");
        Ok(self
            .leads(term, TimelineOrigin { timeline: promoted.timeline, term, begins: promoted.begins })
            .await)
    }

    async fn apply_sync(&mut self, term: Term, sync: &SyncSet, version: u64) -> Done<Outcome> {
        self.token(term).await?;
        let postmaster = self.postmaster()?;
        // The tenure is written down meanwhile: it only spares a restarted agent a second look.
        let (applied, kept) = tokio::join!(postmaster.apply_sync_set(sync, PROOF_LIMIT), self.keep(|_| {}));
        if let Err(error) = kept {
            tracing::warn!(%error, "the tenure could not be written down");
        }
        let applied = applied.map_err(words)?;
        if applied.confirmed.is_some() {
            tracing::info!(took_ms = applied.took.as_millis(), set = %sync, "sync set in force and proved");
        }
        Ok(Outcome::SyncApplied { term, version, proved: sync.k == 0 || applied.confirmed.is_some() })
    }

    /// Ends this standby's server, and starts it anew with the settings of now.
    async fn restart(&mut self, primary: &NodeName, term: Term) -> Done<Outcome> {
        self.still(term)?;
        if let Some(postmaster) = self.ground.postmaster() {
            // A restart point now makes both the shutdown and the next start short; without one they are only longer.
            if let Err(error) = postmaster.checkpoint(STANDBY_SHUTDOWN_LIMIT).await {
                tracing::debug!(%error, "no restart point before the restart");
            }
            if let Err(error) = postmaster.stop(StopMode::Fast, STANDBY_SHUTDOWN_LIMIT).await {
                tracing::warn!(%error, "the standby is ended at once");
            }
        }
        self.end().await?;
        self.follow_now(primary, term).await?;
        Ok(Outcome::Follows(term))
    }

    /// Starts the server as the primary that it was: it shut down cleanly, and nobody led in between.
    async fn start_primary(&mut self, term: Term, sync: &SyncSet) -> Done<Outcome> {
        let token = self.token(term).await?;
        let (Some(before), None) = (self.durable.tenure.clone(), self.ground.postmaster()) else {
            return Err("what the server was before is not known".to_owned());
        };
        if before.term.next() != term && before.term != term {
            return Err(format!("it led term {}, not the one before {term}", before.term));
        }
        self.keep(|durable| {
            durable.is_elected(term);
        })
        .await?;
        self.start(&StartRole::Primary { token, sync: sync.clone() }).await?;
        Ok(self.leads(term, before.origin()).await)
    }

    /// Drains, shuts down cleanly, promises the next term. The process may still have to end when this returns.
    async fn hand_over(&mut self, term: Term) -> Done<Outcome> {
        self.still(term.next())?;
        let clean_end = match self.ground.postmaster() {
            Some(postmaster) => self.shut_down(&postmaster, term).await?,
            None => None,
        };
        self.promise(term.next()).await?;
        if self.leaving.is_none() {
            self.end().await?;
        }
        Ok(Outcome::Stopped { term: term.next(), led: term, clean_end })
    }

    async fn shut_down(&mut self, postmaster: &Postmaster, term: Term) -> Done<Option<WalPosition>> {
        let began = Instant::now();
        self.drained(term).await;
        let drained_ms = began.elapsed().as_millis();
        // The promise becomes durable meanwhile: nothing but the report depends on it.
        let (stopped, promised) =
            tokio::join!(postmaster.stop(StopMode::Fast, SHUTDOWN_LIMIT), self.promise(term.next()));
        promised?;
        let stopped = stopped.map_err(words)?;
        tracing::info!(%drained_ms, down_ms = began.elapsed().as_millis(), "drained and shut down");
        Ok(match stopped {
            Stopped::Exited { control, .. } => {
                control.filter(|control| control.state.is_clean()).map(|control| control.checkpoint)
            }
            Stopped::CheckpointWritten { control } => {
                self.leaving = Some(postmaster.clone());
                self.ground.set_postmaster(None);
                Some(control.checkpoint)
            }
        })
    }

    /// Waits until a server that has handed over has ended by itself; else it is killed.
    async fn see_off(&mut self) {
        let Some(postmaster) = self.leaving.take() else { return };
        if postmaster.ends(FENCE_LIMIT).await.is_none()
            && let Err(remains) = postmaster.kill(FENCE_LIMIT).await
        {
            tracing::warn!(%remains, "the server that has handed over does not end");
        }
        if let Err(error) = self.ground.registry.forget(&self.ground.key()) {
            tracing::warn!(%error, "the record of the ended server could not be removed");
        }
    }

    /// Waits until every proxy has ended its sessions and parks new ones, or for as long as that may take.
    async fn drained(&self, term: Term) {
        let deadline = Instant::now() + DRAIN_LIMIT;
        while Instant::now() < deadline {
            let database = self.ground.database.clone();
            let all = self.ground.shared.inputs.ask(move |agent| agent.all_drained(&database, term)).await;
            if all == Some(true) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        tracing::warn!("some proxy has not drained; the switchover goes on without it");
    }
}
