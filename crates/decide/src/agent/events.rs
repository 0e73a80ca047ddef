//! What the agent says about what it does: an event whenever a sentence changes in more than its numbers.

use std::collections::{BTreeMap, BTreeSet};

use model::event::{Event, Severity};
use model::leadership::{Leadership, Phase, SyncSet};
use model::{DatabaseName, NodeName};

/// The sentences said last, and the events not yet given out.
#[derive(Debug, Default)]
pub(super) struct Said {
    last: BTreeMap<String, (String, String)>,
    /// The reasons for not acting that were given to the event log since the state of the subject changed last.
    waits: BTreeMap<String, BTreeSet<String>>,
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

    pub(super) fn info(&mut self, subject: &str, node: &NodeName, what: &str, because: &str) {
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

    /// A reason for not acting: an event the first time since the state of `subject` changed. Reasons that come and go
    /// would fill the log; the one that holds now is always among [`Said::sentences`].
    pub(super) fn waits(&mut self, subject: &str, node: &NodeName, because: &str) {
        if self.waits.entry(subject.to_owned()).or_default().insert(shape(because)) {
            self.info(subject, node, "decided not to act", because);
        }
    }

    /// Remembers the sentence that answers `question` about `subject`; returns whether it is new in more than numbers.
    pub(super) fn sentence(&mut self, subject: String, because: &str) -> bool {
        let shape = shape(because);
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
        let subject = format!("database/{database}");
        let same_state = old.is_some_and(|old| old.term == new.term && old.phase == new.phase);
        if let Some(old) = old.filter(|_| same_state) {
            if (&old.because, &old.restart) != (&new.because, &new.restart) {
                self.event(Severity::Info, &subject, node, &changed(old, new), &new.because);
            }
            return;
        }
        self.waits.remove(&subject);
        let (severity, what) = begun(new);
        self.event(severity, &subject, node, &what, &new.because);
    }
}

/// A sentence without its numbers: what makes two of them say the same.
fn shape(because: &str) -> String {
    because.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// What a new term or phase is called.
fn begun(new: &Leadership) -> (Severity, String) {
    match &new.phase {
        Phase::Founding { by } => (Severity::Info, format!("term {}: {by} creates the database", new.term)),
        Phase::Led { primary } => (Severity::Info, format!("term {}: {primary} is the primary", new.term)),
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
    }
}

/// What changed within one leadership.
fn changed(old: &Leadership, new: &Leadership) -> String {
    let names = |set: &SyncSet| match set.members.is_empty() {
        true => "nobody".to_owned(),
        false => set.members.iter().map(NodeName::as_str).collect::<Vec<_>>().join(", "),
    };
    if let Some(turn) = new.restart.as_ref().filter(|_| old.restart != new.restart) {
        turn.to_string()
    } else if old.sync != new.sync {
        format!("the sync set changes from {} to {}", names(&old.sync), names(&new.sync))
    } else if new.previous_sync.is_empty() && !old.previous_sync.is_empty() {
        format!("the sync set is {}", names(&new.sync))
    } else {
        format!("term {}: the record has changed", new.term)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::{any_one, led, revoking};

    /// What was told since, as `what (because)`.
    fn told(said: &mut Said) -> Vec<String> {
        said.drain().map(|event| format!("{} ({})", event.what, event.because)).collect()
    }

    #[test]
    fn a_change_of_the_sync_set_says_what_changed() {
        let (mut said, node, database) = (Said::default(), "a".into(), "orders".into());
        let first = led(1, "a", &["b", "c"]);
        said.record(&database, &node, None, &first);
        let mut change = led(1, "a", &["b"]);
        change.because = "c left the sync set: its stream ended".to_owned();
        change.previous_sync = vec![any_one(&["b", "c"])];
        said.record(&database, &node, Some(&first), &change);
        let mut proved = change.clone();
        proved.previous_sync.clear();
        proved.because = "commits are provably confirmed by b alone".to_owned();
        said.record(&database, &node, Some(&change), &proved);
        assert_eq!(
            told(&mut said),
            [
                "term 1: a is the primary ()",
                "the sync set changes from b, c to b (c left the sync set: its stream ended)",
                "the sync set is b (commits are provably confirmed by b alone)",
            ]
        );
    }

    #[test]
    fn a_reason_for_not_acting_is_told_once_until_the_state_changes() {
        let (mut said, node, database) = (Said::default(), "a".into(), "orders".into());
        for because in ["a leads", "a was silent for 300 ms", "a leads", "a was silent for 450 ms"] {
            said.waits("database/orders", &node, because);
        }
        assert_eq!(
            told(&mut said),
            ["decided not to act (a leads)", "decided not to act (a was silent for 300 ms)"]
        );
        let (old, new) = (led(1, "a", &["b"]), revoking(2, "a", &["b"]));
        said.record(&database, &node, Some(&old), &new);
        said.waits("database/orders", &node, "a leads");
        assert_eq!(told(&mut said).len(), 2);
    }
}
