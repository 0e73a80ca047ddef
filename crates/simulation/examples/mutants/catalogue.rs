//! Seeded bugs of the decisions: an expression that stands once in a file, and what a tired engineer might have written.

use std::ops::Range;

/// One seeded bug.
pub(crate) struct Mutant {
    /// Its name, in the table and on the command line.
    pub(crate) name: &'static str,
    /// The file, below `crates/`.
    pub(crate) file: &'static str,
    /// The expression that is right; between `⟦` and `⟧` where it needs the text around it to be found.
    pub(crate) original: &'static str,
    /// The one that is wrong.
    #[allow(dead_code, reason = "the test that checks the places needs the originals only")]
    pub(crate) mutated: &'static str,
}

impl Mutant {
    /// The text to be found, and where in it the expression stands.
    pub(crate) fn place(&self) -> (String, Range<usize>) {
        let text = self.original.replace(['⟦', '⟧'], "");
        let from = self.original.find('⟦').unwrap_or(0);
        let to = self.original.find('⟧').map_or(text.len(), |to| to - '⟦'.len_utf8());
        (text, from..to)
    }
}

const fn bug(
    name: &'static str,
    file: &'static str,
    original: &'static str,
    mutated: &'static str,
) -> Mutant {
    Mutant { name, file, original, mutated }
}

const RECORD: &str = "model/src/leadership.rs";
const AGENT_MEMBER: &str = "decide/src/agent/member.rs";
const LEAD: &str = "decide/src/agent/lead.rs";
const PEERS: &str = "decide/src/agent/peers.rs";
const GATE: &str = "decide/src/agent/gate.rs";
const MEMBER: &str = "decide/src/member.rs";
const LEASE: &str = "decide/src/lease.rs";
const SILENCE: &str = "decide/src/silence.rs";
const VIEW: &str = "decide/src/view.rs";
const LEADERSHIP: &str = "decide/src/leadership/mod.rs";
const ELECT: &str = "decide/src/leadership/elect.rs";
const SUSPECT: &str = "decide/src/leadership/suspect.rs";
const SYNC_SET: &str = "decide/src/leadership/sync_set.rs";
const HAND_OVER: &str = "decide/src/leadership/hand_over.rs";

/// All of them. A bug that a second rule makes harmless is none of these: unit tests hold such rules apart.
pub(crate) const MUTANTS: &[Mutant] = &[
    // Revocation and election.
    bug(
        "one report too few",
        RECORD,
        "self.members.intersection(reporters).count() >= needed",
        "self.members.intersection(reporters).count() + 1 >= needed",
    ),
    bug(
        "only the newest set is revoked",
        RECORD,
        "self.sets().all(|set| set.is_revoked_by(reporters))",
        "self.sync.is_revoked_by(reporters)",
    ),
    bug(
        "no revocation",
        ELECT,
        "!standbys.is_empty() && record.is_revoked_by(&reporters)",
        "!standbys.is_empty()",
    ),
    bug(
        "the shortest log is promoted",
        ELECT,
        "reports.iter().map(|(_, position)| *position).max()",
        "reports.iter().map(|(_, position)| *position).min()",
    ),
    bug(
        "any log is promoted",
        ELECT,
        "*position == best && is_fit(question, node)",
        "is_fit(question, node)",
    ),
    bug("the term is not counted up", LEADERSHIP, "term: ⟦record.term.next()⟧", "record.term"),
    bug(
        "the sets before are forgotten at an election",
        LEADERSHIP,
        "record.sets().filter(|set| set.k > 0).cloned().collect()",
        "Vec::new()",
    ),
    // The sync set.
    bug(
        "an old proof counts for a new set",
        SYNC_SET,
        "tenure.sync_applied == Some(record.sync_version)",
        "tenure.sync_applied.is_some()",
    ),
    bug(
        "a set is dropped before the next is proved",
        SYNC_SET,
        "let mut previous_sync = ⟦record.previous_sync.clone()⟧;",
        "Vec::new()",
    ),
    bug("the set before is not kept", SYNC_SET, "!previous_sync.contains(&record.sync)", "false"),
    bug("one confirmation too few", VIEW, "k: ⟦self.k⟧,", "self.k.saturating_sub(1)"),
    bug(
        "a set that is not proved counts",
        AGENT_MEMBER,
        "⟦proved && tenure.term == term⟧",
        "tenure.term == term",
    ),
    // Promises and reports.
    bug(
        "a promise is forgotten in a restart",
        AGENT_MEMBER,
        "own.durable = ⟦durable⟧;",
        "Durable { promised: Term(0), ..durable }",
    ),
    bug(
        "a report before the receiver is gone",
        AGENT_MEMBER,
        "Outcome::Promised(term) => ⟦self.durable.promised = self.durable.promised.max(term)⟧,",
        "{
            self.durable.promised = self.durable.promised.max(term);
            if let Server::Standby(facts) = &self.server {
                self.report = Some(Report { term, holds: Holdings::Upto(facts.position) });
            }
        }",
    ),
    bug(
        "a report is not bound to its term",
        ELECT,
        "view.status.report.as_ref().filter(|report| report.term == term)",
        "view.status.report.as_ref().filter(|report| report.term <= term)",
    ),
    bug(
        "a deposed primary goes on",
        MEMBER,
        "runs_as_primary && !leads_now",
        "runs_as_primary && !leads_now && own.led.is_none()",
    ),
    bug(
        "every primary is fenced",
        MEMBER,
        "primary == question.me && own.led == Some(record.term)",
        "primary == question.me && own.led == Some(record.term.next())",
    ),
    // Switchover.
    bug(
        "a successor need not hold the end of the log",
        HAND_OVER,
        "standby.position.timeline == end.timeline && standby.position.lsn > end.lsn",
        "standby.position.timeline == end.timeline",
    ),
    // Leases.
    bug("a lease is too long", LEASE, "as_of + rules.lease", "as_of + rules.lease * 2"),
    bug("a lease from any member's word", LEASE, "c.promised <= record.term", "c.promised >= Term(0)"),
    bug(
        "a lease begins when the answer comes",
        PEERS,
        "self.sent_at.get(&sequence).copied()",
        "self.sent_at.get(&sequence).map(|_| now)",
    ),
    bug(
        "the gate is not renewed",
        GATE,
        "until > current && now >= own.gate_set_at + RENEW_EVERY",
        "until < current",
    ),
    // Failures that nobody sees.
    bug("nobody is ever silent", SILENCE, "now.since(last) >= self.limit()", "now < last"),
    bug(
        "an agent that is gone is waited for",
        SUSPECT,
        "gone_for >= AGENT_GRACE",
        "gone_for > AGENT_GRACE * 1000",
    ),
    bug(
        "a server that has ended is waited for",
        SUSPECT,
        "tenured || view.status.led == Some(record.term) || late",
        "late && tenured && !late",
    ),
    bug(
        "a disk that hangs is waited for",
        SUSPECT,
        "failure(format!(\"PostgreSQL on {primary} does not work: {because}\"), false)",
        "None.filter(|_: &Failure| because.is_empty())",
    ),
    bug(
        "an empty member is not copied",
        MEMBER,
        "Decision::act(action, format!(\"no data yet: copying {primary}\"))",
        "Decision::wait(format!(\"{action:?}\"))",
    ),
    bug("silence is never agreed on", PEERS, "agree * 2 > asked", "agree > asked"),
    bug(
        "an answer that never comes is waited for",
        LEAD,
        "self.now.since(*since) < ANSWER_LIMIT",
        "self.now >= *since",
    ),
    bug("a member that is being promoted is open as a standby", GATE, "own.is_being_promoted()", "false"),
];
