//! The sync set put into force on a primary, with proof.
//!
//! A reload is asynchronous: the postmaster hears a signal, passes it on, and every process takes the new value over
//! when it gets to it. Commits are released by WAL senders, each by its own copy of the set, so the old set is out of
//! force only when every sender that counted in either set has taken over the new one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::leadership::SyncSet;
use model::postgres::Lsn;
use tokio::time::Instant;

use super::session::{Session, left};
use super::settings::{NOBODY, sync_names};
use super::volume::FileError;
use super::{Postmaster, SenderFacts, SqlError};

/// How long a WAL sender may take to show that it has reloaded before it is terminated: its standby reconnects, with
/// the new set in force from the first byte.
const SENDER_MAY_TAKE: Duration = Duration::from_millis(500);

/// How often senders and new connections are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// `application_name` of the connection whose write waits for the set.
const PROOF: &str = "mainstay sync proof";

/// What a connection has for a set.
const SHOWN: &str = "SHOW synchronous_standby_names";

/// A write whose commit waits for the sync set (the agent's other sessions do not wait).
const PROOF_WRITE: &str =
    "SET synchronous_commit = on; SELECT pg_logical_emit_message(true, 'mainstay', 'sync proof')";

/// A write that waits for nobody; standbys flush it and reply.
const NUDGE: &str = "SELECT pg_logical_emit_message(true, 'mainstay', 'nudge')";

/// A sync set that is provably the only one in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncApplied {
    /// The set.
    pub set: SyncSet,
    /// Everything before this position is flushed by `k` members of the set. `None` when the set waits for nobody, or
    /// can be satisfied by nobody.
    pub confirmed: Option<Lsn>,
    /// WAL senders that had to be terminated because they did not show that they had reloaded.
    pub terminated: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

/// Why a sync set is not proved to be in force. Both the old and the new one may be, until a repeated call succeeds.
#[derive(Debug, thiserror::Error)]
pub enum SyncSetError {
    /// The setting could not be written.
    #[error(transparent)]
    Files(#[from] FileError),
    /// The server cannot be asked.
    #[error(transparent)]
    Sql(#[from] SqlError),
    /// New connections still show another value: the postmaster has not reloaded, or something overrides the setting.
    #[error("PostgreSQL still has synchronous_standby_names = `{shown}` after {after:?}")]
    NotReloaded {
        /// What a new connection shows.
        shown: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// Some WAL senders have not reloaded and could not be terminated.
    #[error("these WAL senders have not taken over the new set after {after:?}: {}", .senders.join(", "))]
    Senders {
        /// Their standbys.
        senders: Vec<String>,
        /// How long it was waited for.
        after: Duration,
    },
    /// The set is in force, but too few of its members confirm writes.
    #[error("the set `{set}` is in force, but a write was not confirmed by {} of its members within {after:?}", .set.k)]
    NotConfirmed {
        /// The set.
        set: SyncSet,
        /// How long it was waited for.
        after: Duration,
    },
}

impl Postmaster {
    /// Puts `set` into force and proves it: a new connection shows it (so the postmaster has signalled everyone); every
    /// WAL sender that counts in the old or the new set has shown that it took it over, or is gone; and a write that
    /// waits for the set was confirmed. On a primary only. May be repeated; ends early when nothing is to be done but the
    /// proof.
    ///
    /// # Errors
    /// See [`SyncSetError`].
    pub async fn apply_sync_set(
        &self,
        set: &SyncSet,
        deadline: Duration,
    ) -> Result<SyncApplied, SyncSetError> {
        let begin = Instant::now();
        let names = sync_names(set);
        // The connection that shows the setting later makes the proof.
        let prover = self.member.session(PROOF);
        self.forget_old_proofs(left(begin, deadline)).await?;
        let old_names = self.begin_waiting(&prover, &names, begin, deadline).await?;
        let releasing = self.releasing_senders(&old_names, left(begin, deadline)).await?;
        // A new connection that shows the set was forked by a postmaster that has told everybody of it.
        if old_names != names {
            self.put(&names, begin, deadline).await?;
        }
        let terminated = self.senders_reloaded(set, releasing, begin, deadline).await?;
        let confirmed = if set.k == 0 || names == NOBODY {
            None
        } else {
            Some(self.confirm(&prover, set, begin, deadline).await?)
        };
        Ok(SyncApplied { set: set.clone(), confirmed, terminated, took: begin.elapsed() })
    }

    /// Backends of earlier calls that still wait. Terminated, never cancelled: their client was given up long ago.
    async fn forget_old_proofs(&self, deadline: Duration) -> Result<(), SqlError> {
        let sql = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = '{PROOF}'"
        );
        self.member.control().text(&sql, deadline).await.map(drop)
    }

    /// Commits begin to wait only when the checkpointer has seen that there is a set at all. From "waits for nobody" to
    /// a set the way therefore leads over a set that nobody is in, until a write is seen to wait for it. Returns the
    /// setting as it was.
    async fn begin_waiting(
        &self,
        prover: &Session,
        names: &str,
        begin: Instant,
        deadline: Duration,
    ) -> Result<String, SyncSetError> {
        let shown = prover.text(SHOWN, left(begin, deadline)).await?;
        if !shown.is_empty() || names.is_empty() {
            return Ok(shown);
        }
        self.put(NOBODY, begin, deadline).await?;
        let session = self.member.session(PROOF);
        let write = async {
            loop {
                // A write that returns was not made to wait: try again.
                if session.text(PROOF_WRITE, deadline).await.is_err() {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            }
        };
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = '{PROOF}' AND wait_event = 'SyncRep'"
        );
        let seen = async {
            while self.member.control().text(&sql, left(begin, deadline)).await? != "1" {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Ok::<(), SqlError>(())
        };
        tokio::select! {
            seen = seen => seen?,
            () = write => {}
        }
        prover.close().await;
        self.forget_old_proofs(left(begin, deadline)).await?;
        Ok(shown)
    }

    /// Writes the setting, reloads, and waits until a new connection shows it.
    async fn put(&self, names: &str, begin: Instant, deadline: Duration) -> Result<(), SyncSetError> {
        let value = names.to_owned();
        self.change(move |dynamic| dynamic.synchronous_standby_names = value).await?;
        loop {
            let shown = self.shown_names(left(begin, deadline)).await?;
            if shown == names {
                return Ok(());
            }
            if left(begin, deadline).is_zero() {
                return Err(SyncSetError::NotReloaded { shown, after: deadline });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// What a new connection, forked from the postmaster as it is now, has for a value.
    async fn shown_names(&self, deadline: Duration) -> Result<String, SqlError> {
        self.member.session(PROOF).text(SHOWN, deadline).await
    }

    /// The senders that may release commits at present: whose confirmations count, and those that the server shows as
    /// not counting only because their standby has confirmed nothing yet. Any other releases no commit, whatever set it
    /// has in mind, until it reloads.
    async fn releasing_senders(
        &self,
        old_names: &str,
        deadline: Duration,
    ) -> Result<BTreeSet<i32>, SqlError> {
        let named = |sender: &SenderFacts| old_names.contains(&format!("\"{}\"", sender.name));
        let senders = self.member.control().observe(deadline).await?.senders;
        let releasing = senders
            .into_iter()
            .filter(|sender| sender.sync_priority > 0 || sender.flushed.is_none() && named(sender));
        Ok(releasing.map(|sender| sender.pid).collect())
    }

    /// Waits until all senders have shown that they use the new set. Returns those that were terminated for not doing so.
    async fn senders_reloaded(
        &self,
        set: &SyncSet,
        releasing: BTreeSet<i32>,
        begin: Instant,
        deadline: Duration,
    ) -> Result<Vec<String>, SyncSetError> {
        let started = Instant::now();
        let mut proofs = Proofs { set, releasing, seen: BTreeMap::new() };
        let mut terminated = Vec::new();
        loop {
            let senders = self.member.control().observe(left(begin, deadline)).await?.senders;
            let open: Vec<&SenderFacts> = senders.iter().filter(|sender| !proofs.complete(sender)).collect();
            if open.is_empty() {
                return Ok(terminated);
            }
            if left(begin, deadline).is_zero() {
                let senders = open.iter().map(|sender| sender.name.clone()).collect();
                return Err(SyncSetError::Senders { senders, after: deadline });
            }
            if started.elapsed() >= SENDER_MAY_TAKE {
                for sender in open {
                    self.terminate_sender(sender, left(begin, deadline)).await?;
                    terminated.push(sender.name.clone());
                }
            }
            // A standby replies when it has flushed something, else once a second.
            self.member.control().text(NUDGE, left(begin, deadline)).await?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn terminate_sender(&self, sender: &SenderFacts, deadline: Duration) -> Result<(), SqlError> {
        let sql =
            format!("SELECT pg_terminate_backend(pid) FROM pg_stat_replication WHERE pid = {}", sender.pid);
        self.member.control().text(&sql, deadline).await.map(drop)
    }

    /// A write that waits for the set; its position is confirmed with everything before it.
    async fn confirm(
        &self,
        session: &Session,
        set: &SyncSet,
        begin: Instant,
        deadline: Duration,
    ) -> Result<Lsn, SyncSetError> {
        let answer = match session.text(PROOF_WRITE, left(begin, deadline)).await {
            Ok(answer) => answer,
            Err(SqlError::Deadline { .. }) => {
                self.forget_old_proofs(Duration::from_secs(1)).await?;
                return Err(SyncSetError::NotConfirmed { set: set.clone(), after: deadline });
            }
            Err(error) => return Err(error.into()),
        };
        answer.parse().map_err(|_| SyncSetError::Sql(SqlError::Unexpected(answer)))
    }
}

/// Which senders have shown that they use the new set.
struct Proofs<'a> {
    set: &'a SyncSet,
    /// Senders that may have released commits before the reload.
    releasing: BTreeSet<i32>,
    /// The last reply seen of each sender, and how many different ones came after the first look.
    seen: BTreeMap<i32, (Option<i64>, u32)>,
}

impl Proofs<'_> {
    /// A sender works in rounds: reload if told to, then handle replies. All were told before the first look, so a
    /// reply that is handled in the second round after it is handled with the new set.
    fn complete(&mut self, sender: &SenderFacts) -> bool {
        let belongs = self.set.k > 0 && self.set.members.iter().any(|name| name.as_str() == sender.name);
        let counts = sender.sync_priority > 0;
        if !self.releasing.contains(&sender.pid) {
            // It began after the reload, or did not count before: what it counts for now is the new set.
            return belongs || !counts;
        }
        if !counts {
            // Releases nothing, unless the server hides its part because its standby has confirmed nothing yet.
            return sender.flushed.is_some();
        }
        if !belongs {
            return false;
        }
        let (last, changes) = self.seen.entry(sender.pid).or_insert((sender.reply_us, 0));
        if *last != sender.reply_us {
            *last = sender.reply_us;
            *changes += 1;
        }
        *changes >= 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::SyncState;

    fn sender(pid: i32, name: &str, priority: i32, reply: i64) -> SenderFacts {
        SenderFacts {
            pid,
            name: name.into(),
            state: "streaming".into(),
            sync_state: if priority > 0 { SyncState::Quorum } else { SyncState::Async },
            sync_priority: priority,
            sent: None,
            written: None,
            flushed: Some(Lsn(1)),
            replayed: None,
            reply_us: Some(reply),
        }
    }

    #[test]
    fn a_sender_in_both_sets_must_reply_twice() {
        let set = SyncSet { k: 1, members: ["b".into(), "c".into()].into() };
        let mut proofs = Proofs { set: &set, releasing: [1].into(), seen: BTreeMap::new() };
        assert!(!proofs.complete(&sender(1, "b", 1, 10)), "first look");
        assert!(!proofs.complete(&sender(1, "b", 1, 10)), "nothing new");
        assert!(!proofs.complete(&sender(1, "b", 1, 11)), "may be of the round before");
        assert!(proofs.complete(&sender(1, "b", 1, 12)));
    }

    #[test]
    fn a_changed_priority_is_proof_at_once() {
        let set = SyncSet { k: 1, members: ["b".into()].into() };
        let mut proofs = Proofs { set: &set, releasing: [2].into(), seen: BTreeMap::new() };
        assert!(proofs.complete(&sender(1, "b", 1, 10)), "did not count before, counts now");
        assert!(!proofs.complete(&sender(2, "c", 1, 10)), "left the set and still counts");
        assert!(proofs.complete(&sender(2, "c", 0, 10)));
        let hidden = SenderFacts { flushed: None, ..sender(2, "c", 0, 10) };
        assert!(!proofs.complete(&hidden), "its part in the old set is not shown before its first reply");
        assert!(proofs.complete(&sender(3, "pg_basebackup", 0, 0)), "never counts");
    }
}
