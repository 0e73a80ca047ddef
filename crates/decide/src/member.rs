//! What should this node's member of a database do next? Asked by its own agent on every change of what it knows.
//!
//! One thing at a time; fencing goes before everything and interrupts what is under way.

use std::collections::BTreeMap;

use model::NodeName;
use model::leadership::{Leadership, Phase, SyncSet, Term};
use model::status::{Holdings, MemberStatus, Server, StandbyFacts, Tenure};
use model::time::Moment;

mod origin;

use crate::view::Decision;

/// How long a standby may be without a stream, although its primary works, before it is looked at more closely.
const STREAM_PATIENCE: std::time::Duration = std::time::Duration::from_secs(4);

/// Something this node's member does. Every action carries its term: effects refuse it once a higher one is promised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make the promise of this term durable.
    Promise(Term),
    /// Create the database (idempotent: continues what an earlier run began) and serve as its first primary.
    Found {
        /// The founding term.
        term: Term,
    },
    /// Close the gate, end the server at once: it is, or may be, a primary that was deposed.
    Fence {
        /// Why.
        because: String,
    },
    /// Start the server as a standby that follows nobody.
    StartDetached,
    /// Stop receiving log, verify that it stopped, and report the position.
    Detach {
        /// The term promised.
        term: Term,
    },
    /// The server is down and was the primary of `led`: report that it holds everything it acknowledged.
    ReportStopped {
        /// The term promised.
        term: Term,
        /// The term led.
        led: Term,
    },
    /// Leave recovery and become the primary, with this sync set in force before the first write.
    Promote {
        /// The term.
        term: Term,
        /// The set.
        sync: SyncSet,
        /// Its version.
        version: u64,
    },
    /// Put this sync set in force and prove it.
    ApplySync {
        /// The term.
        term: Term,
        /// The set.
        sync: SyncSet,
        /// Its version.
        version: u64,
    },
    /// Receive log from `primary`; start the server if it is not running.
    Follow {
        /// The primary.
        primary: NodeName,
        /// Its term.
        term: Term,
    },
    /// Make this copy a prefix of the primary's history: rewind, or clone anew where that cannot be done.
    Rejoin {
        /// The primary.
        primary: NodeName,
        /// Its term.
        term: Term,
        /// Why this copy cannot simply follow.
        because: String,
    },
    /// Copy the primary.
    Clone {
        /// The primary.
        primary: NodeName,
        /// Its term.
        term: Term,
    },
    /// End the standby's server cleanly and start it again, with the settings of now.
    Restart {
        /// The primary.
        primary: NodeName,
        /// Its term.
        term: Term,
    },
    /// Start the server as the primary: it handed over to itself, cleanly, and nobody led in between.
    StartPrimary {
        /// The term.
        term: Term,
        /// The set.
        sync: SyncSet,
        /// Its version.
        version: u64,
    },
    /// Shut down cleanly so that the next term has everything, promise it, and report.
    HandOver {
        /// The term that ends.
        term: Term,
    },
}

/// What this node knows.
pub struct Question<'a> {
    /// This node.
    pub me: &'a NodeName,
    /// The leadership record as last seen; may be old when this node is cut off.
    pub record: Option<&'a Leadership>,
    /// This member.
    pub own: &'a MemberStatus,
    /// What the other members' agents said last.
    pub others: &'a BTreeMap<&'a NodeName, &'a MemberStatus>,
    /// What this node remembers of its copy.
    pub history: History,
    /// Since when this standby has had no stream, if it has none.
    pub unstreamed_since: Option<Moment>,
    /// Whether an operator has paused the automation: no starts, promotions or rejoins then; fencing still happens.
    pub paused: bool,
    /// Now.
    pub now: Moment,
}

/// What this node remembers of its own copy's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    /// PostgreSQL's system identifier of the copy, if there is a copy.
    pub system_identifier: Option<u64>,
    /// Set while the copy may contain log that the primary's history does not: the term it was promoted in, until it rejoins.
    pub tainted_by: Option<Term>,
    /// The term of the primary it was last told to follow; zero when it was told to follow nobody.
    pub follows: Term,
    /// The highest term whose primary it took log from, or was; `None` where nobody wrote that down.
    pub taken_from: Option<Term>,
}

/// The member's next action, if any.
pub fn decide(question: &Question<'_>) -> Decision<Action> {
    let Some(record) = question.record else {
        return Decision::wait("there is no leadership record yet");
    };
    let own = question.own;
    if record.term < own.promised && !is_own_hand_over(question, record) {
        return Decision::wait(format!(
            "the record seen is of term {}, but {} is promised",
            record.term, own.promised
        ));
    }
    if let Some(fence) = fence_if_deposed(question, record) {
        return fence;
    }
    if own.promised < record.term {
        return Decision::act(Action::Promise(record.term), format!("term {} has begun", record.term));
    }
    match &record.phase {
        Phase::Founding { by } => found(question, record, by),
        Phase::Revoking { former, .. } => report(question, record, former),
        Phase::Led { primary } if primary == question.me => lead(question, record),
        Phase::HandingOver { from, .. } if from == question.me => hand_over(question, record),
        Phase::HandingOver { from, to } if to == question.me => take_over(question, record, from),
        Phase::Led { primary } | Phase::HandingOver { from: primary, .. } => {
            follow(question, record, primary)
        }
    }
}

/// While handing over, this member promises the next term before anybody has committed it.
fn is_own_hand_over(question: &Question<'_>, record: &Leadership) -> bool {
    matches!(&record.phase, Phase::HandingOver { from, .. } if from == question.me)
        && question.own.promised == record.term.next()
}

/// A server that runs as a primary without being the one of the record ends, whatever else is to be done.
fn fence_if_deposed(question: &Question<'_>, record: &Leadership) -> Option<Decision<Action>> {
    let own = question.own;
    let leads_now = match &record.phase {
        Phase::Led { primary } | Phase::HandingOver { from: primary, .. } => {
            primary == question.me && own.led == Some(record.term)
        }
        Phase::Founding { by } => by == question.me,
        Phase::Revoking { .. } => false,
    };
    let runs_as_primary = match &own.server {
        Server::Primary(_) | Server::Sick { primary: true, .. } => true,
        Server::Unknown
        | Server::Empty
        | Server::Stopped { .. }
        | Server::Busy { .. }
        | Server::Standby(_)
        | Server::Sick { primary: false, .. } => false,
    };
    (runs_as_primary && !leads_now).then(|| {
        let because = format!(
            "term {} has begun and {} is not its primary: {}",
            record.term, question.me, record.because
        );
        Decision::act(Action::Fence { because: because.clone() }, because)
    })
}

fn found(question: &Question<'_>, record: &Leadership, by: &NodeName) -> Decision<Action> {
    if by != question.me {
        return Decision::wait(format!("{by} is creating the database"));
    }
    if question.own.tenure.as_ref().is_some_and(|tenure| tenure.term == record.term) {
        return Decision::wait("the database is created");
    }
    match &question.own.server {
        Server::Busy { doing } => Decision::wait(format!("busy: {doing}")),
        Server::Unknown | Server::Sick { .. } => Decision::wait("the server's state is not known"),
        Server::Empty | Server::Stopped { .. } | Server::Standby(_) | Server::Primary(_) => {
            Decision::act(Action::Found { term: record.term }, "this node creates the database")
        }
    }
}

/// Revocation: say what this copy holds, and take care that it stays true.
fn report(question: &Question<'_>, record: &Leadership, former: &NodeName) -> Decision<Action> {
    let own = question.own;
    if own.report.as_ref().is_some_and(|report| report.term == record.term) {
        return Decision::wait("reported; waiting for the leader to elect a primary");
    }
    // Elected again because it held everything, it may have ended before it was promoted: it still holds everything, because
    // nobody but the former primary can be elected with a copy that was a primary's.
    let still_holds = question.history.tainted_by.is_some() && question.history.tainted_by == own.led;
    let led_before = own
        .led
        .filter(|led| former == question.me && (led.next() == record.term || still_holds))
        .map(|_| record.term.before());
    match (&own.server, led_before) {
        (Server::Stopped { .. }, Some(led)) => {
            Decision::act(Action::ReportStopped { term: record.term, led }, "the former primary has stopped")
        }
        (Server::Stopped { .. }, None) if question.history.tainted_by.is_some() => Decision::wait(
            "this copy was a primary's and may differ from the history: it has nothing to report",
        ),
        (Server::Stopped { .. }, None) if question.paused => {
            Decision::wait("stopped, and the automation is paused")
        }
        (Server::Stopped { .. }, None) => {
            Decision::act(Action::StartDetached, "the position can only be read when it runs")
        }
        // As a standby it could only say how far its log goes, which counts for less.
        (Server::Standby(_), Some(_)) if still_holds => {
            let because = "it was elected because it holds everything, and not promoted: that counts when it has stopped";
            Decision::act(Action::Fence { because: because.to_owned() }, because)
        }
        (Server::Standby(facts), _)
            if origin::is_namesake(record, None, facts.position.timeline, question.history.taken_from) =>
        {
            Decision::wait(format!(
                "this copy has another timeline {} than the history: it has nothing to report",
                facts.position.timeline
            ))
        }
        (Server::Standby(_), _) => Decision::act(
            Action::Detach { term: record.term },
            "the term before is revoked: no more log is taken from it",
        ),
        (Server::Busy { doing }, _) => Decision::wait(format!("busy: {doing}")),
        (Server::Empty, _) => Decision::wait("no data, nothing to report"),
        (Server::Unknown | Server::Sick { .. } | Server::Primary(_), _) => {
            Decision::wait("the server's state is not known")
        }
    }
}

/// This node is the primary of the record.
fn lead(question: &Question<'_>, record: &Leadership) -> Decision<Action> {
    let own = question.own;
    let tenure = own.tenure.as_ref().filter(|tenure| tenure.term == record.term);
    match (&own.server, tenure) {
        (Server::Primary(_), Some(tenure)) if tenure.sync_applied != Some(record.sync_version) => {
            Decision::act(
                Action::ApplySync {
                    term: record.term,
                    sync: record.sync.clone(),
                    version: record.sync_version,
                },
                record.because.clone(),
            )
        }
        (Server::Primary(_), Some(_)) => Decision::wait("leads"),
        (Server::Standby(_) | Server::Primary(_), None) => promote(question, record),
        (Server::Stopped { .. }, None) if question.paused => {
            Decision::wait("stopped, and the automation is paused")
        }
        (Server::Stopped { .. }, None) if handed_over_to_itself(own, record) => {
            let (term, sync, version) = (record.term, record.sync.clone(), record.sync_version);
            Decision::act(Action::StartPrimary { term, sync, version }, record.because.clone())
        }
        (Server::Stopped { .. }, None) if own.led != Some(record.term) => {
            Decision::act(Action::StartDetached, "elected; a server always starts as a standby")
        }
        (Server::Stopped { because }, _) => Decision::wait(format!(
            "stopped ({because}); the leader decides whether another member takes over"
        )),
        (Server::Busy { doing }, _) => Decision::wait(format!("busy: {doing}")),
        (Server::Unknown | Server::Empty | Server::Sick { .. } | Server::Standby(_), _) => {
            Decision::wait("cannot lead; the leader decides")
        }
    }
}

/// Whether this server's clean end is the last word of the term before.
fn handed_over_to_itself(own: &MemberStatus, record: &Leadership) -> bool {
    own.report.as_ref().is_some_and(|report| {
        let ended = matches!(
            &report.holds,
            Holdings::Everything { led, clean_end: Some(_) } if led.next() == record.term
        );
        ended && report.term == record.term
    })
}

fn promote(question: &Question<'_>, record: &Leadership) -> Decision<Action> {
    if question.paused {
        return Decision::wait("elected, and the automation is paused");
    }
    let action =
        Action::Promote { term: record.term, sync: record.sync.clone(), version: record.sync_version };
    Decision::act(action, record.because.clone())
}

fn hand_over(question: &Question<'_>, record: &Leadership) -> Decision<Action> {
    let reported = question.own.report.as_ref().is_some_and(|report| {
        report.term == record.term.next() && matches!(report.holds, Holdings::Everything { .. })
    });
    if reported {
        return Decision::wait("handed over");
    }
    match &question.own.server {
        Server::Busy { doing } => Decision::wait(format!("busy: {doing}")),
        Server::Primary(_) | Server::Stopped { .. } => {
            Decision::act(Action::HandOver { term: record.term }, record.because.clone())
        }
        Server::Unknown | Server::Empty | Server::Sick { .. } | Server::Standby(_) => {
            Decision::wait("cannot hand over; the leader decides")
        }
    }
}

/// This standby is to take over: once the primary has shut down, its log is read to the end.
fn take_over(question: &Question<'_>, record: &Leadership, from: &NodeName) -> Decision<Action> {
    let report = question.others.get(&from).and_then(|status| status.report.as_ref());
    let ended = report.is_some_and(|report| {
        report.term == record.term.next()
            && matches!(report.holds, Holdings::Everything { led, clean_end: Some(_) } if led == record.term)
    });
    match &question.own.server {
        Server::Standby(facts) if ended && facts.follows == record.term => Decision::act(
            Action::Detach { term: record.term },
            format!("{from} has shut down: its log does not grow any more"),
        ),
        Server::Standby(_) if ended => Decision::wait(format!("holds what {from} has sent")),
        Server::Unknown
        | Server::Empty
        | Server::Stopped { .. }
        | Server::Busy { .. }
        | Server::Standby(_)
        | Server::Primary(_)
        | Server::Sick { .. } => follow(question, record, from),
    }
}

/// Another node is the primary of the record: be its standby.
fn follow(question: &Question<'_>, record: &Leadership, primary: &NodeName) -> Decision<Action> {
    let own = question.own;
    if let Server::Busy { doing } = &own.server {
        return Decision::wait(format!("busy: {doing}"));
    }
    if let Some(restart) = own_turn(question, record, primary) {
        return restart;
    }
    let theirs = question.others.get(&primary);
    let tenure = theirs.and_then(|status| status.tenure.as_ref()).filter(|tenure| tenure.term == record.term);
    if let (Server::Standby(facts), None) = (&own.server, tenure)
        && facts.streaming
        && facts.follows == record.term
    {
        return Decision::wait(format!("follows {primary}"));
    }
    let Some(tenure) = tenure else {
        return follow_ahead(question, record, primary);
    };
    if question.paused && !matches!(own.server, Server::Standby(_)) {
        return Decision::wait("not running, and the automation is paused");
    }
    match &own.server {
        Server::Stopped { .. }
            if question.history.tainted_by.is_none()
                && origin::has_moved_on(record, tenure, question.history.taken_from) =>
        {
            Decision::act(Action::StartDetached, "only when it runs it tells on which timeline it ends")
        }
        Server::Empty => {
            let action = Action::Clone { primary: primary.clone(), term: record.term };
            Decision::act(action, format!("no data yet: copying {primary}"))
        }
        Server::Stopped { .. } | Server::Standby(_) => match cannot_follow(question, record, tenure) {
            Some(Unfit { because, anew: true }) => {
                Decision::act(Action::Clone { primary: primary.clone(), term: record.term }, because)
            }
            Some(Unfit { because, anew: false }) => {
                let action =
                    Action::Rejoin { primary: primary.clone(), term: record.term, because: because.clone() };
                Decision::act(action, because)
            }
            None => stream(own, record, primary, tenure),
        },
        // A standby that waits for log before it answers anybody waits for ever when the primary it knows is gone.
        Server::Sick { primary: false, .. }
            if question.history.tainted_by.is_none() && question.history.follows != record.term =>
        {
            stream(own, record, primary, tenure)
        }
        Server::Unknown | Server::Primary(_) | Server::Sick { .. } | Server::Busy { .. } => {
            Decision::wait("the server's state is not known")
        }
    }
}

/// The elected member is being promoted. A copy whose log is a beginning of its log connects to it already now, as to
/// any standby: the stream goes over to the new timeline by itself, and the first commit need not wait for a connection.
fn follow_ahead(question: &Question<'_>, record: &Leadership, primary: &NodeName) -> Decision<Action> {
    let wait = Decision::wait(format!("waiting for {primary} to be promoted"));
    let Some(Server::Standby(theirs)) = question.others.get(&primary).map(|status| &status.server) else {
        return wait;
    };
    let Server::Standby(ours) = &question.own.server else { return wait };
    let is_beginning =
        ours.position.timeline == theirs.position.timeline && ours.position.lsn <= theirs.position.lsn;
    let led = matches!(record.phase, Phase::Led { .. });
    let is_known = origin::is_known(record, ours.position.timeline, question.history.taken_from);
    if !led
        || !is_beginning
        || !is_known
        || ours.follows == record.term
        || question.history.tainted_by.is_some()
    {
        return wait;
    }
    Decision::act(
        Action::Follow { primary: primary.clone(), term: record.term },
        format!("{primary} is being promoted for term {}", record.term),
    )
}

/// This standby's turn to restart, while the server that it names runs. It ends only when no commit counts on it, or when
/// an operator accepted that writes wait.
fn own_turn(question: &Question<'_>, record: &Leadership, primary: &NodeName) -> Option<Decision<Action>> {
    let turn = record.restart.as_ref().filter(|turn| turn.member == *question.me)?;
    let led = matches!(record.phase, Phase::Led { .. });
    let Server::Standby(facts) = &question.own.server else { return None };
    if !led || facts.started_us != turn.server {
        return None;
    }
    let counted_on = record.sets().any(|set| set.members.contains(question.me));
    let cannot_leave = record.sync.members.len() <= usize::try_from(record.sync.k).unwrap_or(usize::MAX);
    Some(if question.paused {
        Decision::wait(format!("{turn}: not while the automation is paused"))
    } else if counted_on && !(turn.forced && cannot_leave) {
        Decision::wait(format!("{turn}: commits must be confirmed without it first"))
    } else {
        let action = Action::Restart { primary: primary.clone(), term: record.term };
        Decision::act(action, format!("{turn}: {}", record.because))
    })
}

fn stream(own: &MemberStatus, record: &Leadership, primary: &NodeName, tenure: &Tenure) -> Decision<Action> {
    match &own.server {
        Server::Standby(facts) if facts.follows == record.term && tenure.term == record.term => {
            Decision::wait(format!("follows {primary}"))
        }
        Server::Unknown
        | Server::Empty
        | Server::Stopped { .. }
        | Server::Busy { .. }
        | Server::Standby(_)
        | Server::Primary(_)
        | Server::Sick { .. } => Decision::act(
            Action::Follow { primary: primary.clone(), term: record.term },
            format!("{primary} leads term {}", record.term),
        ),
    }
}

/// Why a copy cannot follow as it is.
struct Unfit {
    because: String,
    /// Whether nothing of it can be kept.
    anew: bool,
}

/// Why this copy's history is not a prefix of the primary's, if it is not.
fn cannot_follow(question: &Question<'_>, record: &Leadership, tenure: &Tenure) -> Option<Unfit> {
    let history = question.history;
    let rewound = |because: String| Some(Unfit { because, anew: false });
    if let (Some(ours), Some(theirs)) = (history.system_identifier, record.system_identifier)
        && ours != theirs
    {
        return rewound(format!(
            "this data belongs to another database (system identifier {ours}, not {theirs})"
        ));
    }
    if let Some(was) = history.tainted_by
        && !has_handed_over(question.own, was, tenure)
    {
        let because = format!(
            "this copy was the primary of term {was} and may hold log that term {} lacks",
            tenure.term
        );
        let anew = !origin::is_of_the_history(question.own, was, record, tenure);
        return Some(Unfit { because, anew });
    }
    let Server::Standby(facts) = &question.own.server else { return None };
    let timeline = facts.position.timeline;
    if origin::is_namesake(record, Some(tenure), timeline, history.taken_from)
        || origin::is_unrecorded(record, tenure, timeline)
    {
        // Nothing that PostgreSQL knows of timelines tells the two apart, a rewind neither.
        let because = format!("this copy may have another timeline {timeline} than the history");
        return Some(Unfit { because, anew: true });
    }
    if is_ahead(facts, record, tenure) {
        return rewound(format!(
            "this copy holds log up to {}, beyond {} where timeline {} began",
            facts.position, tenure.begins, tenure.timeline
        ));
    }
    let stuck = question.unstreamed_since.is_some_and(|since| question.now.since(since) >= STREAM_PATIENCE);
    if stuck && facts.follows == record.term {
        return rewound(format!(
            "the primary works but has not sent log for {} s",
            STREAM_PATIENCE.as_secs()
        ));
    }
    None
}

/// Whether this copy, the primary of term `was`, shut down cleanly and the next primary's history begins after that:
/// then nothing is here that is not there.
fn has_handed_over(own: &MemberStatus, was: Term, tenure: &Tenure) -> bool {
    let holds = own.report.as_ref().map(|report| &report.holds);
    matches!(holds, Some(Holdings::Everything { led, clean_end: Some(end) })
        if *led == was && tenure.term == was.next() && tenure.timeline > end.timeline && tenure.begins > end.lsn)
}

/// Whether a standby's log reaches beyond the point where the primary's history left its timeline.
fn is_ahead(facts: &StandbyFacts, record: &Leadership, tenure: &Tenure) -> bool {
    if facts.position.timeline == tenure.timeline {
        return false;
    }
    let left = record
        .lineage
        .iter()
        .find(|origin| origin.timeline > facts.position.timeline)
        .map_or(tenure.begins, |origin| origin.begins);
    facts.position.timeline > tenure.timeline || facts.position.lsn > left
}

#[cfg(test)]
mod tests;
