//! The leadership record of a database: the one fact all agents agree on by compare-and-set.
//!
//! Safety of acknowledged writes rests on two things only: this record, and the promises of members (see
//! [`crate::status::MemberStatus::promised`]). Leases and gates bound stale reads, nothing else.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::NodeName;
use crate::postgres::{Lsn, Timeline};

/// The number of a database leadership. It fences everything: an action under a lower term than a member has promised
/// is refused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Term(pub u64);

impl Term {
    /// The next leadership.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The leadership before; of the first one itself.
    #[must_use]
    pub const fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "T{}", self.0)
    }
}

/// The standbys of which `k` must have flushed a commit before the client hears of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct SyncSet {
    /// How many members must confirm. 0 means that commits wait for nobody (`async` durability).
    pub k: u32,
    /// The members that may confirm.
    pub members: BTreeSet<NodeName>,
}

impl SyncSet {
    /// How many members must have promised a higher term before no commit can be acknowledged under the old one, and
    /// before every acknowledged commit is on at least one of them: `|members| - k + 1`.
    ///
    /// With fewer members than `k` nothing can be acknowledged at all, so nothing needs to be collected. `None` for
    /// `k = 0`: no number of promises revokes a primary that waits for nobody.
    pub fn reports_needed(&self) -> Option<usize> {
        let k = usize::try_from(self.k).unwrap_or(usize::MAX);
        (k > 0).then(|| (self.members.len() + 1).saturating_sub(k))
    }

    /// Whether `reporters` suffice to revoke the leadership that acknowledges by this set.
    pub fn is_revoked_by(&self, reporters: &BTreeSet<NodeName>) -> bool {
        self.reports_needed().is_none_or(|needed| self.members.intersection(reporters).count() >= needed)
    }
}

/// `n1`, `n1 or w1`, `n1 and w1`, `any 2 of e1, n1 and w1`; `no standby` when nobody confirms.
impl fmt::Display for SyncSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.members.iter().map(NodeName::as_str).collect();
        let k = usize::try_from(self.k).unwrap_or(usize::MAX);
        match names.as_slice() {
            [] => f.write_str("no standby"),
            [one] => f.write_str(one),
            [rest @ .., last] if k == 1 => write!(f, "{} or {last}", rest.join(", ")),
            [rest @ .., last] if k >= names.len() => write!(f, "{} and {last}", rest.join(", ")),
            [rest @ .., last] => write!(f, "any {k} of {} and {last}", rest.join(", ")),
        }
    }
}

/// What stage a database's leadership is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "phase")]
pub enum Phase {
    /// `by` creates the database for the first time; nothing was ever acknowledged.
    Founding {
        /// The member that runs `initdb`.
        by: NodeName,
    },
    /// `primary` may accept writes once it is promoted.
    Led {
        /// The primary of this term.
        primary: NodeName,
    },
    /// Nobody may accept writes; members promise this term and report their positions.
    Revoking {
        /// The primary of the term before.
        former: NodeName,
        /// The member to prefer when several are equally advanced (a switchover that had to become a failover).
        prefer: Option<NodeName>,
        /// Set when an operator accepted to lose writes: who may be missing, and from whom to elect.
        forced: Option<Forced>,
    },
    /// A switchover: `from` drains and shuts down cleanly, then `to` takes over under the next term.
    HandingOver {
        /// The primary that gives up. It may acknowledge writes until it has shut down.
        from: NodeName,
        /// The member that takes over.
        to: NodeName,
    },
}

/// An operator's explicit statement that writes may be lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forced {
    /// The member to promote, whatever the others may hold.
    pub candidate: NodeName,
    /// The operator's words, kept for the event log.
    pub statement: String,
}

/// One timeline of a database and the term that made it, so that two histories with the same number are told apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineOrigin {
    /// The timeline's number.
    pub timeline: Timeline,
    /// The term whose primary made it.
    pub term: Term,
    /// Where it left the timeline before it.
    pub begins: Lsn,
}

/// The leadership record: coordination key `databases/<name>/leadership`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leadership {
    /// Counts up with every leadership.
    pub term: Term,
    /// What stage it is in.
    #[serde(flatten)]
    pub phase: Phase,
    /// The set by which commits of this term are acknowledged.
    pub sync: SyncSet,
    /// Counts up with every change of `sync`, so that a proof for one set is never taken for a later, equal one.
    pub sync_version: u64,
    /// The sets before, while a change (of set or of term) is under way: a revocation must satisfy all of them, because
    /// commits may still be acknowledged by one, or may be on its members only. Emptied once the primary has proved
    /// that `sync` alone is in force and that its members hold everything acknowledged before.
    #[serde(default)]
    pub previous_sync: Vec<SyncSet>,
    /// PostgreSQL's system identifier, once founded; data with another one is never touched.
    pub system_identifier: Option<u64>,
    /// The timelines that lead to today's, the newest last, as their primaries reported them.
    pub lineage: Vec<TimelineOrigin>,
    /// Whose turn it is to restart, if anybody's.
    #[serde(default)]
    pub restart: Option<RestartTurn>,
    /// How many leaderships in a row ended because commits waited for standbys that were there: the next primary may have the
    /// same trouble, and is given longer each time.
    #[serde(default, skip_serializing_if = "is_none")]
    pub handed_on: u32,
    /// Why the record is as it is, in one sentence.
    pub because: String,
}

/// The one member that may restart its server now. Only the server that it names ends: one that was started later has
/// restarted already, so that a turn can be seen twice, by anybody, without harm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartTurn {
    /// The member.
    pub member: NodeName,
    /// The server to end, by the moment it was started (see [`crate::status::StandbyFacts::started_us`]).
    pub server: i64,
    /// What for, as the end of "e1 restarts ...": `for max_connections`.
    pub what_for: String,
    /// Which turn of a row this is, from 1.
    pub number: u32,
    /// How many the row has, as far as is known.
    pub of: u32,
    /// Whether an operator accepted that writes wait, or that nobody takes over, meanwhile.
    #[serde(default)]
    pub forced: bool,
}

impl fmt::Display for RestartTurn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { member, what_for, number, of, .. } = self;
        write!(f, "{member} restarts {what_for} ({number} of {of})")
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_none(count: &u32) -> bool {
    *count == 0
}

impl Leadership {
    /// The member that may accept writes in this term, if any.
    pub fn primary(&self) -> Option<&NodeName> {
        match &self.phase {
            Phase::Led { primary } => Some(primary),
            Phase::HandingOver { from, .. } => Some(from),
            Phase::Founding { .. } | Phase::Revoking { .. } => None,
        }
    }

    /// Whether promises of `reporters` prove that no commit can be acknowledged under any lower term any more and that
    /// every acknowledged commit is on at least one of them.
    pub fn is_revoked_by(&self, reporters: &BTreeSet<NodeName>) -> bool {
        self.sets().all(|set| set.is_revoked_by(reporters))
    }

    /// Which timeline of that number belongs to the history, as far as its primaries have reported.
    pub fn origin_of(&self, timeline: Timeline) -> Option<&TimelineOrigin> {
        self.lineage.iter().find(|origin| origin.timeline == timeline)
    }

    /// The set in force and, during a change, those before it.
    pub fn sets(&self) -> impl Iterator<Item = &SyncSet> {
        std::iter::once(&self.sync).chain(&self.previous_sync)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(k: u32, names: &[&str]) -> SyncSet {
        SyncSet { k, members: names.iter().map(|n| NodeName::from(*n)).collect() }
    }

    #[test]
    fn any_one_of_two_needs_both_reports() {
        let any_one = set(1, &["a", "b"]);
        assert_eq!(any_one.reports_needed(), Some(2));
        assert!(!any_one.is_revoked_by(&set(0, &["a"]).members));
        assert!(any_one.is_revoked_by(&set(0, &["a", "b", "c"]).members));
    }

    #[test]
    fn every_revoking_set_meets_every_acknowledging_set() {
        let names = ["a", "b", "c", "d", "e"];
        for n in 1..=5_usize {
            for k in 1..=n {
                let needed = set(u32::try_from(k).unwrap(), &names[..n]).reports_needed().unwrap();
                assert!(needed + k > n, "n={n} k={k}");
            }
        }
    }

    #[test]
    fn a_set_reads_like_a_sentence() {
        let told = |k, names: &[&str]| set(k, names).to_string();
        assert_eq!(told(1, &[]), "no standby");
        assert_eq!(told(1, &["a"]), "a");
        assert_eq!(told(1, &["a", "b", "c"]), "a, b or c");
        assert_eq!(told(2, &["a", "b"]), "a and b");
        assert_eq!(told(2, &["a", "b", "c"]), "any 2 of a, b and c");
    }

    #[test]
    fn an_empty_set_under_zero_loss_acknowledged_nothing() {
        assert!(set(1, &[]).is_revoked_by(&BTreeSet::new()));
    }

    #[test]
    fn the_record_is_readable_json() {
        let record = Leadership {
            term: Term(3),
            phase: Phase::Led { primary: "e1".into() },
            sync: set(1, &["e2", "w1"]),
            sync_version: 1,
            previous_sync: vec![],
            system_identifier: Some(7),
            lineage: vec![],
            restart: None,
            handed_on: 0,
            because: "e1 is the most advanced member".to_owned(),
        };
        let text = serde_json::to_string(&record).unwrap();
        assert!(text.starts_with(r#"{"term":3,"phase":"led","primary":"e1","sync":{"k":1"#), "{text}");
        assert_eq!(serde_json::from_str::<Leadership>(&text).unwrap(), record);
    }
}
