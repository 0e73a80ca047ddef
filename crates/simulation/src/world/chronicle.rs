//! What a reader is told of a run: every event once, in the words of the event log, without moments and positions.

use std::time::Duration;

use decide::story::{self, Chapter, Rest};
use model::event::Event;
use model::script::Script;
use model::time::Moment;

use super::{Report, Violation, World};
use crate::system;

/// After this long without an acknowledgement writes stand still.
const STANDSTILL: Duration = Duration::from_millis(500);

/// Before a step, writes count as acknowledged that were so within this time.
const OF_LATE: Duration = Duration::from_secs(1);

/// A run, and what is to be read of it.
#[derive(Debug)]
pub struct Told {
    /// Whether it kept all invariants.
    pub result: Result<Report, Violation>,
    /// What the agents said and did, line by line.
    pub transcript: Vec<String>,
    /// What came of it (see [`decide::story`]).
    pub story: Vec<String>,
}

/// What has been told so far.
#[derive(Debug, Default)]
pub(super) struct Chronicle {
    transcript: Vec<String>,
    chapters: Vec<Chapter>,
    begun: Moment,
    /// The newest record that was told, and whether the agent that speaks now tells a newer one.
    newest: u64,
    is_news: bool,
    stands_still: bool,
}

impl World {
    /// Runs a script and tells what happened.
    pub fn tell_all(script: &Script) -> Told {
        let mut world = Self::new(script);
        let first = Chronicle { chapters: vec![Chapter::default()], ..Chronicle::default() };
        world.chronicle = Some(Box::new(first));
        let result = world.play();
        world.end_chapter();
        let Chronicle { transcript, chapters, .. } = *world.chronicle.take().unwrap_or_default();
        Told { result, transcript, story: story::tell(&system::database(), &chapters) }
    }

    /// Something is done: what is told from here on follows from it.
    pub(crate) fn begin_chapter(&mut self, step: String) {
        let now = self.agenda.now();
        let Some(chronicle) = &mut self.chronicle else { return };
        let is_first = chronicle.chapters.len() == 1;
        let is_next = chronicle.begun != now || is_first;
        if is_next {
            self.end_chapter();
        }
        let Some(chronicle) = &mut self.chronicle else { return };
        if is_first {
            // How a database is created is told by a script without faults.
            chronicle.transcript.clear();
        }
        if is_next {
            chronicle.chapters.push(Chapter::default());
            chronicle.begun = now;
        }
        chronicle.transcript.push(step.clone());
        if let Some(chapter) = chronicle.chapters.last_mut() {
            chapter.steps.push(step);
        }
    }

    /// How things stand is told where nothing was done for a while.
    fn end_chapter(&mut self) {
        let now = self.agenda.now();
        let is_rest = |chronicle: &Chronicle| now.since(chronicle.begun) >= story::REST_AFTER;
        let rest = self.chronicle.as_deref().is_some_and(is_rest).then(|| self.rest());
        if let Some(chapter) = self.chronicle.as_mut().and_then(|chronicle| chronicle.chapters.last_mut()) {
            chapter.rest = rest;
        }
    }

    /// How things stand, as the leader sees them, or without one whoever knows the newest record.
    fn rest(&self) -> Rest {
        let now = self.agenda.now();
        let writes = self.client.acknowledged.last().is_some_and(|last| now.since(last.at) < OF_LATE);
        let able = |node: &usize| self.machines[*node].up && !self.machines[*node].is_deaf();
        let known = |node: &usize| {
            let record =
                self.machines[*node].agent.as_ref().and_then(|agent| agent.record(&system::database()));
            (self.store.leader == Some(*node), record.map_or(0, |stored| stored.revision))
        };
        let teller = (0..self.machines.len()).filter(able).max_by_key(known);
        let agent = teller.and_then(|node| self.machines[node].agent.as_ref());
        agent.map_or_else(Rest::default, |agent| Rest::of(&agent.overview(), &system::database(), writes))
    }

    /// A line that is no agent's.
    pub(crate) fn add_line(&mut self, line: String) {
        if let Some(chronicle) = &mut self.chronicle {
            chronicle.transcript.push(format!("  {line}"));
        }
    }

    /// An agent is about to speak: is what it knows of the record new to a reader?
    pub(super) fn hear_of(&mut self, node: usize) {
        let Some(chronicle) = &mut self.chronicle else { return };
        let record = self.machines[node].agent.as_ref().and_then(|agent| agent.record(&system::database()));
        let revision = record.map_or(0, |stored| stored.revision);
        chronicle.is_news = revision > chronicle.newest;
        chronicle.newest = chronicle.newest.max(revision);
    }

    /// An agent says something.
    pub(super) fn tell(&mut self, event: Event) {
        let Some(chronicle) = &mut self.chronicle else { return };
        let of_member = event.what.starts_with(&format!("{}: ", event.node));
        let of_record = event.subject.starts_with("database/") && !of_member;
        let line = if event.what == "decided not to act" {
            Some(format!("{} waits: {}", event.node, event.because))
        } else if of_record {
            chronicle.is_news.then(|| format!("{}: {}", event.what, event.because))
        } else if event.what.ends_with(" done") {
            Some(event.what.clone())
        } else if of_member {
            Some(format!("{}: {}", event.what, event.because))
        } else {
            Some(format!("{}: {}: {}", event.node, event.what, event.because))
        };
        chronicle.transcript.extend(line.map(|line| format!("  {}", quiet(&line))));
        if let Some(chapter) = chronicle.chapters.last_mut() {
            chapter.events.push(event);
        }
    }

    /// Whether writes have begun to stand still, or to be acknowledged again.
    pub(super) fn watch_writes(&mut self) {
        let now = self.agenda.now();
        let Some(chronicle) = &mut self.chronicle else { return };
        let Some(last) = self.client.acknowledged.last() else { return };
        let stands_still = now.since(last.at) >= STANDSTILL;
        if stands_still != chronicle.stands_still {
            chronicle.stands_still = stands_still;
            let line = if stands_still { "writes stand still" } else { "writes are acknowledged again" };
            chronicle.transcript.push(format!("  {line}"));
        }
    }
}

/// A sentence without what is another number in every run: milliseconds and positions in the log.
fn quiet(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let is_number = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    let quiet = words.iter().enumerate().map(|(at, word)| {
        let follows = words.get(at + 1).copied().unwrap_or_default();
        match word.strip_prefix("0/") {
            Some(position) => {
                format!("0/…{}", position.trim_start_matches(|c: char| c.is_ascii_hexdigit()))
            }
            None if is_number(word) && follows.starts_with("ms") => "…".to_owned(),
            None => (*word).to_owned(),
        }
    });
    quiet.collect::<Vec<_>>().join(" ")
}
