//! Becoming a standby of the primary: following, rewinding, cloning.

use std::time::Duration;

use decide::agent::{Durable, Outcome};
use effects::postgres::{
    ControlState, Divergence, RewindError, Source, StartRole, TimelineHistory, divergence,
};
use model::NodeName;
use model::leadership::Term;
use model::postgres::{Lsn, WalPosition};
use model::status::Server;

use super::actor::{Actor, Done};
use super::observer;

/// How long a rewind may take.
const REWIND_LIMIT: Duration = Duration::from_secs(300);
/// How long the primary may take to answer a question.
const ASK_LIMIT: Duration = Duration::from_secs(5);
/// A copy that receives nothing for this long is given up.
const CLONE_STALL: Duration = Duration::from_secs(30);

fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Actor {
    fn source(&self, primary: &NodeName) -> Done<Source> {
        self.ground.source(primary).ok_or_else(|| format!("there is no node {primary}"))
    }

    pub(super) async fn follow(&mut self, primary: &NodeName, term: Term) -> Done<Outcome> {
        if self.durable.tainted_by.is_some() {
            // It has handed over: the decision to follow is the word that its log is the beginning of the primary's.
            self.keep(Durable::forget_leading).await?;
        }
        self.follow_now(primary, term).await?;
        Ok(Outcome::Follows(term))
    }

    pub(super) async fn follow_now(&mut self, primary: &NodeName, term: Term) -> Done<()> {
        self.still(term)?;
        let source = self.source(primary)?;
        if self.ground.member.kept_secrets().await.map_err(words)?.is_none() {
            let secrets = self.ground.secrets().await?;
            self.ground.member.keep_secrets(&secrets).await.map_err(words)?;
        }
        // Written before the receiver may start: a restarted agent must know whom this copy may follow.
        self.keep(|durable| durable.follows(term)).await?;
        match self.ground.postmaster() {
            Some(postmaster) => postmaster.follow(&source).await.map_err(words),
            None => {
                // A term that ended may have interrupted its rewind: it would refuse to start for ever.
                if self.ground.member.is_half_rewound().await.map_err(words)? {
                    self.copy(primary).await?;
                }
                self.ground.member.set_source(&source).await.map_err(words)?;
                self.start(&StartRole::Standby).await
            }
        }
    }

    pub(super) async fn clone_primary(&mut self, primary: &NodeName, term: Term) -> Done<Outcome> {
        self.end().await?;
        self.copy(primary).await?;
        self.joined(primary, term).await
    }

    /// Rewinds where that can be done, else copies.
    pub(super) async fn rejoin(&mut self, primary: &NodeName, term: Term) -> Done<Outcome> {
        self.still(term)?;
        let held = self.received().await;
        self.end().await?;
        let source = self.source(primary)?;
        let secrets = self.ground.secrets().await?;
        self.ground.member.keep_secrets(&secrets).await.map_err(words)?;
        if self.durable.tainted_by.is_none()
            && let Some(held) = held
            && let Some(oldest) = self.oldest_after(held, &source).await?
        {
            if held.lsn < oldest {
                tracing::warn!(%held, %oldest, %primary, "it has no log any more from where this copy ends; it is made anew");
                self.copy(primary).await?;
            }
            return self.joined(primary, term).await;
        }
        match self.common(&source).await? {
            Some(common) => match self.ground.member.rewind(&source, common, term, REWIND_LIMIT).await {
                Ok(rewound) => {
                    tracing::info!(took_ms = rewound.took.as_millis(), kept = ?rewound.kept, "rewound");
                }
                Err(RewindError::MustClone(because)) => {
                    tracing::warn!(%because, "the copy cannot be rewound; it is made anew");
                    self.copy(primary).await?;
                }
                Err(RewindError::Foreign { .. }) => self.copy(primary).await?,
                Err(error) => return Err(error.to_string()),
            },
            None => self.copy(primary).await?,
        }
        self.joined(primary, term).await
    }

    async fn joined(&mut self, primary: &NodeName, term: Term) -> Done<Outcome> {
        self.keep(Durable::forget_leading).await?;
        self.follow_now(primary, term).await?;
        Ok(Outcome::Rejoined(term))
    }

    async fn copy(&self, primary: &NodeName) -> Done<()> {
        let source = self.source(primary)?;
        let secrets = self.ground.secrets().await?;
        self.ground.member.keep_secrets(&secrets).await.map_err(words)?;
        let database = self.ground.database.clone();
        let progress = move |progress: effects::postgres::CloneProgress| {
            tracing::debug!(%database, ?progress, "copying");
        };
        self.ground.member.clone_from(&source, CLONE_STALL, progress).await.map(drop).map_err(words)
    }

    /// How far this copy's log reaches, as far as is known.
    async fn received(&self) -> Option<WalPosition> {
        if let (Server::Standby(facts), _) = observer::look(&self.ground).await {
            return Some(facts.position);
        }
        let control = self.ground.member.control_data(ASK_LIMIT).await;
        control.ok().map(|control| control.minimum_recovery_end)
    }

    /// From where on the primary has log, if this copy was a standby and all that it `held` is a part of the primary's
    /// history. Such a copy is never recovered alone, as a rewind does first: it would write log of its own where the history
    /// goes on, which no rewind takes back. It starts anew and follows.
    async fn oldest_after(&self, held: WalPosition, source: &Source) -> Done<Option<Lsn>> {
        let Ok(control) = self.ground.member.control_data(ASK_LIMIT).await else { return Ok(None) };
        let standby =
            matches!(control.state, ControlState::InArchiveRecovery | ControlState::ShutDownInRecovery);
        let facts = self.ground.member.ask_source(source, ASK_LIMIT).await.map_err(words)?;
        let shared = facts.history.holds(held) && facts.history.holds(control.minimum_recovery_end);
        Ok((standby && shared).then(|| facts.oldest.unwrap_or_default()))
    }

    /// Where this copy's log may have left the primary's: `None` when they share nothing.
    async fn common(&self, source: &Source) -> Done<Option<WalPosition>> {
        let facts = self.ground.member.ask_source(source, ASK_LIMIT).await.map_err(words)?;
        let Ok(control) = self.ground.member.control_data(ASK_LIMIT).await else { return Ok(None) };
        let timeline = control.checkpoint.timeline;
        let Ok(own) = self.ground.member.own_history(timeline, ASK_LIMIT).await else { return Ok(None) };
        Ok(match where_they_part(&own, &facts.history) {
            Divergence::None => Some(control.checkpoint),
            Divergence::After { common } => Some(common),
            Divergence::Foreign => None,
        })
    }
}

/// A crashed server's log may reach anywhere: the end is taken to be beyond everything.
fn where_they_part(own: &TimelineHistory, theirs: &TimelineHistory) -> Divergence {
    divergence(Lsn(u64::MAX), own, theirs)
}
