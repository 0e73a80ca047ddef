//! How many instances of a service does its load need?
//!
//! More as soon as what proxies have under way is more than the file wants each instance to have; fewer only when fewer would
//! have been enough for the whole of the cool-down, with some to spare, so that a load at the border starts and ends nothing
//! again and again. What is decided is remembered nowhere but in what is placed: a new leader begins there.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use model::time::Moment;
use serde::{Deserialize, Serialize};

/// In one step the number is at most doubled, and at most halved.
const STEP: u32 = 2;

/// Time from one step up to the next: longer than loads are averaged over, so that the next one is judged by what the
/// instances of the last one take.
const REST: Duration = Duration::from_secs(5);

/// For how long the next step up waits for instances of the last one that do not get ready.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// Of five parts of what the instances that stay could take, the load may be four.
const SPARE: (u64, u64) = (5, 4);

/// A load: how many requests are under way, in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Load(pub u64);

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 / 1000, self.0 % 1000 / 100)
    }
}

/// What the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The fewest instances.
    pub least: u32,
    /// The most.
    pub max: u32,
    /// How many requests each is to have under way at most.
    pub requests: u32,
    /// For how long fewer must have been enough.
    pub cool_down: Duration,
}

/// What the leader sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What all proxies that are heard have under way.
    pub load: Load,
    /// Whether these are all that may have something under way.
    pub is_complete: bool,
    /// How many instances take requests.
    pub ready: u32,
}

/// What the leader remembers of one service.
#[derive(Clone, Debug)]
pub struct Memory {
    wanted: u32,
    /// When the number changed last, or this leader began.
    since: Moment,
    /// The numbers that would have been enough since then, the highest first, each with the last moment at which it was
    /// needed: those that a later one exceeds tell nothing.
    peaks: VecDeque<(Moment, u32)>,
    began: Moment,
}

/// How many instances shall run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// So many.
    pub wanted: u32,
    /// One sentence.
    pub because: String,
}

impl Rule {
    /// The number within the bounds.
    pub fn bounded(&self, number: u32) -> u32 {
        number.clamp(self.least, self.max.max(self.least))
    }

    /// How many instances this load needs, at least one.
    fn needs(&self, load: u64) -> u32 {
        let each = u64::from(self.requests.max(1)) * 1000;
        self.bounded(u32::try_from(load.div_ceil(each)).unwrap_or(u32::MAX))
    }
}

impl Memory {
    /// A leader begins with what is placed.
    pub fn new(rule: &Rule, placed: u32, now: Moment) -> Self {
        Self { wanted: rule.bounded(placed), since: now, peaks: VecDeque::new(), began: now }
    }

    /// How many instances were wanted last.
    pub fn wanted(&self) -> u32 {
        self.wanted
    }

    fn note(&mut self, needed: u32, rule: &Rule, now: Moment) {
        while self.peaks.back().is_some_and(|(_, lower)| *lower <= needed) {
            self.peaks.pop_back();
        }
        self.peaks.push_back((now, needed));
        while self.peaks.front().is_some_and(|(at, _)| now.since(*at) > rule.cool_down) {
            self.peaks.pop_front();
        }
    }

    /// The most that was needed within the cool-down.
    fn peak(&self) -> u32 {
        self.peaks.front().map_or(self.wanted, |(_, needed)| *needed)
    }

    fn change(&mut self, wanted: u32, now: Moment) {
        self.wanted = wanted;
        self.since = now;
    }
}

/// How many instances shall run from now on.
pub fn decide(rule: &Rule, memory: &mut Memory, seen: &Seen, now: Moment) -> Decision {
    let before = memory.wanted;
    let bounded = rule.bounded(before);
    if bounded != before {
        memory.change(bounded, now);
        let (least, max) = (rule.least, rule.max);
        return Decision { wanted: bounded, because: format!("the file allows {least} to {max}") };
    }
    let needed = rule.needs(seen.load.0);
    let with_spare = rule.needs(seen.load.0.saturating_mul(SPARE.0) / SPARE.1);
    // What nobody tells may be as much as all instances can take.
    memory.note(if seen.is_complete { with_spare } else { before.max(with_spare) }, rule, now);
    let because =
        if needed > before { up(rule, memory, seen, needed, now) } else { down(rule, memory, seen, now) };
    Decision { wanted: memory.wanted, because }
}

/// More are needed than run.
fn up(rule: &Rule, memory: &mut Memory, seen: &Seen, needed: u32, now: Moment) -> String {
    let (before, load, each) = (memory.wanted, seen.load, rule.requests);
    let waited = now.since(memory.since);
    let is_first = memory.since == memory.began;
    let too_much = format!("{load} requests are under way, more than {each} for each of {before} instances");
    if seen.ready < before && waited < READY_LIMIT {
        return format!("{too_much}: {} of them are ready, which is waited for", seen.ready);
    }
    if waited < REST && !is_first {
        return format!("{too_much}: what the last ones take is still to be seen");
    }
    memory.change(needed.min(before.saturating_mul(STEP)), now);
    too_much
}

/// As many as run are enough.
fn down(rule: &Rule, memory: &mut Memory, seen: &Seen, now: Moment) -> String {
    let (before, load) = (memory.wanted, seen.load);
    let enough =
        format!("{load} requests are under way, {before} instances are for {}", before * rule.requests);
    if load.0 > u64::from(before) * u64::from(rule.requests) * 1000 {
        return format!(
            "{load} requests are under way, more than {} for each of {before} instances, which are the most that the file allows",
            rule.requests
        );
    }
    if before == rule.least {
        return enough;
    }
    let peak = memory.peak();
    if !seen.is_complete {
        return format!("{enough}; not every proxy is heard, so none is ended");
    }
    let waited = now.since(memory.since);
    if peak >= before || waited < rule.cool_down {
        let cool_down = rule.cool_down.as_secs_f32();
        return format!("{enough}; fewer run when fewer have been enough for {cool_down} s");
    }
    memory.change(peak.max(before.div_ceil(STEP)).max(rule.least), now);
    format!(
        "{load} requests are under way, and {peak} instances have been enough for {} s",
        rule.cool_down.as_secs_f32()
    )
}

#[cfg(test)]
mod tests;
