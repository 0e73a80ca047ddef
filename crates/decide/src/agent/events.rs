//! What the agent says about what it does: an event whenever a sentence changes in more than its numbers.

use std::collections::BTreeMap;

use model::event::{Event, Severity};
use model::leadership::{Leadership, Phase};
use model::time::Moment;
use model::{DatabaseName, NodeName};

/// The sentences said last, and the events not yet given out.
#[derive(Debug, Default)]
pub(super) struct Said {
    last: BTreeMap<String, (String, String)>,
    events: Vec<Event>,
}

impl Said {
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Event> + '_ {
        self.events.drain(..)
    }

    /// The sentence that holds now for each subject and question.
    pub(super) fn sentences(&self) -> impl Iterator<Item = (&str, &str)> {
        self.last.iter().map(|(subject, (_, sentence))| (subject.as_str(), sentence.as_str()))
    }

    pub(super) fn info(&mut self, subject: &str, node: &NodeName, what: &str, because: &str, _now: Moment) {
        self.event(Severity::Info, subject, node, what, because);
    }

    pub(super) fn warning(&mut self, subject: &str, node: &NodeName, what: &str, because: &str) {
        self.event(Severity::Warning, subject, node, what, because);
    }

    pub(super) fn event(
        &mut self,
        severity: Severity,
        subject: &str,
        node: &NodeName,
        what: &str,
        because: &str,
    ) {
        self.events.push(Event {
            at_us: 0,
            node: node.clone(),
            severity,
            subject: subject.to_owned(),
            what: what.to_owned(),
            because: because.to_owned(),
        });
    }

    /// Remembers the sentence that answers `question` about `subject`; returns whether it is new in more than numbers.
    pub(super) fn sentence(&mut self, subject: String, because: &str) -> bool {
        let shape: String = because.chars().filter(|c| !c.is_ascii_digit()).collect();
        let entry = self.last.entry(subject).or_default();
        entry.1 = because.to_owned();
        let is_new = entry.0 != shape;
        entry.0 = shape;
        is_new
    }

    /// A leadership record changed.
    pub(super) fn record(
        &mut self,
        database: &DatabaseName,
        node: &NodeName,
        old: Option<&Leadership>,
        new: &Leadership,
    ) {
        let same = |old: &Leadership| {
            (old.term, &old.phase, &old.because, &old.restart)
                == (new.term, &new.phase, &new.because, &new.restart)
        };
        if old.is_some_and(same) {
            return;
        }
        let (severity, what) = match &new.phase {
            Phase::Founding { by } => {
                (Severity::Info, format!("term {}: {by} creates the database", new.term))
            }
            Phase::Led { primary } => {
                let turn = new.restart.as_ref();
                let is_new = turn.is_some() && old.is_none_or(|old| old.restart.as_ref() != turn);
                let what = match turn.filter(|_| is_new) {
                    Some(turn) => turn.to_string(),
                    None => format!("term {}: {primary} is the primary", new.term),
                };
                (Severity::Info, what)
            }
            Phase::Revoking { former, .. } => (
                Severity::Critical,
                format!("term {}: {former} is no primary any more, a new one is elected", new.term),
            ),
            Phase::HandingOver { from, to } if from == to => {
                (Severity::Info, format!("term {}: {from} restarts in place", new.term))
            }
            Phase::HandingOver { from, to } => {
                (Severity::Info, format!("term {}: {from} hands over to {to}", new.term))
            }
        };
        self.event(severity, &format!("database/{database}"), node, &what, &new.because);
    }
}
