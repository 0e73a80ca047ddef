//! The judge: pure functions from what was seen to what it proves.
//!
//! The rules: every acknowledged write is there exactly once; a failed one is not there; an unknown one is there once or
//! not at all; nothing else is there. And never did two members acknowledge in turn: who acknowledged under one
//! leadership was done before the next one began.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use checker::{Operation, set};
use model::NodeName;
use model::postgres::Timeline;
use model::time::Moment;

use super::history::{Copy, History, Member, Outcome, Role, Write, WriteId, Writer};

/// What the history proves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Writes of the client that were acknowledged.
    pub acknowledged: u64,
    /// Writes of the client that certainly failed.
    pub failed: u64,
    /// Writes of the client whose outcome it cannot know.
    pub unknown: u64,
    /// Writes that the prober made directly at a member and that were acknowledged.
    pub direct: u64,
    /// Acknowledged writes that are missing in at least one copy.
    pub lost: BTreeSet<WriteId>,
    /// Writes that are there more than once.
    pub doubled: BTreeSet<WriteId>,
    /// Writes that are there although they failed.
    pub risen: BTreeSet<WriteId>,
    /// Rows that nobody wrote.
    pub foreign: BTreeSet<WriteId>,
    /// Leaderships that acknowledged in turn.
    pub overlaps: Vec<Overlap>,
    /// Answers of a former primary as primary to questions asked later than its lease allows.
    pub late_reads: u64,
}

/// One leadership as a client sees it: a member on a timeline.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leadership {
    /// The timeline it wrote to.
    pub timeline: Timeline,
    /// The member's node; an address that belongs to no member stands for itself.
    pub member: String,
}

/// Two leaderships of which each acknowledged after the other had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// One of them.
    pub one: Leadership,
    /// The other.
    pub other: Leadership,
}

/// The part of a run in which an outage is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its beginning: the moment of the fault, or of the recovery's first step.
    pub from: Moment,
    /// Its end.
    pub until: Moment,
}

/// The time in which a leadership certainly acknowledged: from an arrived acknowledgement to a later sent statement
/// that was acknowledged too. The true time can only be longer, so what overlaps here overlapped in truth.
#[derive(Clone, Copy, Debug)]
struct Certain {
    first_received: Moment,
    last_sent: Moment,
}

impl Findings {
    /// Failed and unknown writes of the client: what an application would have had to handle.
    pub fn errors(&self) -> u64 {
        self.failed + self.unknown
    }

    /// Every rule that was broken, in words; empty when the history is good.
    pub fn broken(&self) -> Vec<String> {
        let writes = [
            (&self.lost, "acknowledged writes are lost"),
            (&self.doubled, "writes are there more than once"),
            (&self.risen, "writes are there although they failed"),
            (&self.foreign, "rows are there that nobody wrote"),
        ];
        let counted = writes.into_iter().filter(|(ids, _)| !ids.is_empty());
        let mut broken: Vec<String> =
            counted.map(|(ids, what)| format!("{} {what} ({})", ids.len(), some_of(ids))).collect();
        broken.extend(self.overlaps.iter().map(|Overlap { one, other }| {
            format!(
                "two members acknowledged in turn: {} on timeline {} and {} on timeline {}",
                one.member, one.timeline, other.member, other.timeline
            )
        }));
        if self.late_reads > 0 {
            broken.push(format!(
                "a former primary answered {} reads as primary that were asked after its lease",
                self.late_reads
            ));
        }
        broken
    }
}

/// Judges a history against the rows that each reader found. `lease` is how long a member may serve as primary without
/// renewal.
pub fn check(history: &History, copies: &[Copy], members: &[Member], lease: Duration) -> Findings {
    let rows = set::check(&set_history(history, copies));
    let mut findings = Findings {
        lost: rows.lost,
        doubled: rows.doubled,
        risen: rows.revived,
        foreign: rows.foreign,
        overlaps: overlaps(history, members),
        late_reads: late_reads(history, members, lease),
        ..Findings::default()
    };
    for write in &history.writes {
        count(&mut findings, write);
    }
    findings
}

/// The writes and the copies as the checker of sets sees them: copies are read when all else is over.
pub(super) fn set_history(history: &History, copies: &[Copy]) -> Vec<Operation<set::Action>> {
    let last = history.writes.iter().map(|write| write.sent.max(write.ended)).max().unwrap_or_default();
    let end = last + Duration::from_micros(1);
    history.writes.iter().map(add).chain(copies.iter().map(|copy| read(copy, end))).collect()
}

fn count(findings: &mut Findings, write: &Write) {
    match (write.by, &write.outcome) {
        (Writer::Client, Outcome::Acknowledged(_)) => findings.acknowledged += 1,
        (Writer::Client, Outcome::Failed(_)) => findings.failed += 1,
        (Writer::Client, Outcome::Unknown(_)) => findings.unknown += 1,
        (Writer::Prober, Outcome::Acknowledged(_)) => findings.direct += 1,
        (Writer::Prober, Outcome::Failed(_) | Outcome::Unknown(_)) => {}
    }
}

/// A write as the checker of sets sees it.
fn add(write: &Write) -> Operation<set::Action> {
    let client = match write.by {
        Writer::Client => 0,
        Writer::Prober => 1,
    };
    let outcome = match &write.outcome {
        Outcome::Acknowledged(_) => checker::Outcome::Ok(write.ended),
        Outcome::Failed(_) => checker::Outcome::Failed,
        Outcome::Unknown(_) => checker::Outcome::Unknown,
    };
    Operation { client, invoked: write.sent, outcome, action: set::Action::Add(write.id) }
}

/// A copy, read after everything.
fn read(copy: &Copy, end: Moment) -> Operation<set::Action> {
    let times = |rows: u64| usize::try_from(rows).unwrap_or(usize::MAX).min(2); // once, or more than once
    let rows = copy.rows.iter().flat_map(|(id, rows)| std::iter::repeat_n(*id, times(*rows))).collect();
    let (client, action) = (2, set::Action::Read(Some(rows)));
    Operation { client, invoked: end, outcome: checker::Outcome::Ok(end), action }
}

/// The longest time without an acknowledgement to the client that touches the window; `None` when it has no end.
///
/// A gap counts whole when it only touches the window: it began with the last acknowledgement before the fault.
pub fn longest_gap(history: &History, window: Window) -> Option<Duration> {
    let mut arrived: Vec<Moment> = history
        .writes
        .iter()
        .filter(|write| write.by == Writer::Client && write.server().is_some())
        .map(|write| write.ended)
        .collect();
    arrived.sort_unstable();
    if arrived.last().is_none_or(|last| *last < window.until) {
        return None;
    }
    let before = arrived.first().copied().unwrap_or(window.from).min(window.from);
    let mut last = before;
    let mut longest = Duration::ZERO;
    for moment in arrived {
        if moment > window.from && last < window.until {
            longest = longest.max(moment.since(last));
        }
        last = moment;
    }
    Some(longest)
}

/// Every leadership whose acknowledgement of the client's writes arrived in the window.
pub(super) fn leaderships(history: &History, members: &[Member], window: Window) -> BTreeSet<Leadership> {
    let within = |write: &&Write| write.ended >= window.from && write.ended < window.until;
    let acknowledged = history.writes.iter().filter(|write| write.by == Writer::Client).filter(within);
    acknowledged.filter_map(|write| leadership_of(write, members)).collect()
}

/// When the client's first acknowledgement after `from` arrived.
pub(super) fn first_after(history: &History, from: Moment) -> Option<Moment> {
    let arrived =
        |write: &&Write| write.by == Writer::Client && write.server().is_some() && write.ended >= from;
    history.writes.iter().filter(arrived).map(|write| write.ended).min()
}

/// Every pair of leaderships that acknowledged in turn.
fn overlaps(history: &History, members: &[Member]) -> Vec<Overlap> {
    let mut spans: BTreeMap<Leadership, Certain> = BTreeMap::new();
    for write in &history.writes {
        let Some(leadership) = leadership_of(write, members) else { continue };
        let span =
            spans.entry(leadership).or_insert(Certain { first_received: write.ended, last_sent: write.sent });
        span.first_received = span.first_received.min(write.ended);
        span.last_sent = span.last_sent.max(write.sent);
    }
    let all: Vec<(&Leadership, &Certain)> = spans.iter().collect();
    let mut found = Vec::new();
    for (at, (one, a)) in all.iter().enumerate() {
        for (other, b) in &all[at + 1..] {
            if a.last_sent > b.first_received && b.last_sent > a.first_received {
                found.push(Overlap { one: (*one).clone(), other: (*other).clone() });
            }
        }
    }
    found
}

fn leadership_of(write: &Write, members: &[Member]) -> Option<Leadership> {
    let server = write.server()?;
    let address = (server.address, server.port).into();
    let member = members.iter().find(|member| member.addresses.contains(&address));
    let name = member.map_or_else(|| address.to_string(), |member| member.node.to_string());
    Some(Leadership { timeline: server.timeline, member: name })
}

/// Answers as primary to questions that were asked later than `lease` after another member had acknowledged on a higher
/// timeline. An answer may be under way for as long as the network likes; what counts is that it was true at some moment
/// since its question, or out of date by no more than a lease.
fn late_reads(history: &History, members: &[Member], lease: Duration) -> u64 {
    let mut began: BTreeMap<Leadership, Moment> = BTreeMap::new();
    for write in &history.writes {
        if let Some(leadership) = leadership_of(write, members) {
            let first = began.entry(leadership).or_insert(write.ended);
            *first = write.ended.min(*first);
        }
    }
    let is_late = |member: &NodeName, timeline: Timeline, asked: Moment| {
        began.iter().any(|(leadership, first)| {
            leadership.timeline > timeline && leadership.member != member.as_str() && asked > *first + lease
        })
    };
    let late = history.answers.iter().filter(|answer| match answer.role {
        Role::Standby => false,
        Role::Primary(timeline) => is_late(&answer.member, timeline, answer.sent),
    });
    u64::try_from(late.count()).unwrap_or(u64::MAX)
}

/// The first few numbers, for a message.
fn some_of(ids: &BTreeSet<WriteId>) -> String {
    let shown: Vec<String> = ids.iter().take(5).map(ToString::to_string).collect();
    let more = if ids.len() > shown.len() { ", ..." } else { "" };
    format!("{}{more}", shown.join(", "))
}
