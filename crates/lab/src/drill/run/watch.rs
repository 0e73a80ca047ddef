//! Asking the system for its state again and again, and remembering what it said.

use std::collections::BTreeMap;
use std::time::Duration;

use effects::clock;
use model::NodeName;
use model::time::Moment;
use tokio::time::{sleep, timeout};

use super::SystemView;

/// How often the state is asked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long one answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// How long full redundancy must be reported without a break before it is believed.
const STEADY: Duration = Duration::from_millis(500);

/// How long after the fault or the return a report of full redundancy may still be an old one.
const STALE: Duration = Duration::from_secs(1);

/// The system's opinion of itself at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Watched {
    /// When it was given.
    pub(super) at: Moment,
    /// The primary's node.
    pub(super) primary: Option<NodeName>,
    /// What is missing from full redundancy, or why there was no answer.
    pub(super) missing: Option<String>,
    /// Who may confirm commits, if anybody says so.
    pub(super) confirming: Option<Vec<NodeName>>,
    /// Whose agents answered, and which run of the agent it was.
    pub(super) answering: BTreeMap<NodeName, u64>,
}

/// The one who asks.
pub(super) struct Watch<'a, V> {
    view: &'a V,
    seen: Vec<Watched>,
}

impl<'a, V: AsyncFn() -> Result<SystemView, String>> Watch<'a, V> {
    pub(super) fn new(view: &'a V) -> Self {
        Self { view, seen: Vec::new() }
    }

    /// All that was said, oldest first.
    pub(super) fn seen(&self) -> &[Watched] {
        &self.seen
    }

    /// Asks until `good` says so; false when patience runs out.
    pub(super) async fn until(&mut self, patience: Duration, mut good: impl FnMut(&Watched) -> bool) -> bool {
        let end = clock::now() + patience;
        loop {
            let now = self.look().await;
            let (enough, late) = (good(&now), now.at >= end);
            self.seen.push(now);
            if enough || late {
                return enough;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Asks until full redundancy is reported for a while, or patience runs out.
    pub(super) async fn until_settled(&mut self, patience: Duration, since: Moment) {
        let mut steady_since = None;
        self.until(patience, |now| {
            if now.missing.is_some() || now.primary.is_none() {
                steady_since = None;
                return false;
            }
            let began = *steady_since.get_or_insert(now.at);
            now.at.since(began) >= STEADY && now.at.since(since) >= STALE
        })
        .await;
    }

    async fn look(&self) -> Watched {
        let asked = timeout(ANSWER_WITHIN, (self.view)()).await;
        let at = clock::now();
        let silent = |reason: String| Watched {
            at,
            primary: None,
            missing: Some(format!("no status: {reason}")),
            confirming: None,
            answering: BTreeMap::new(),
        };
        match asked {
            Ok(Ok(SystemView { primary, missing, confirming, answering, .. })) => {
                Watched { at, primary, missing, confirming, answering }
            }
            Ok(Err(reason)) => silent(reason),
            Err(_) => silent("no answer in time".to_owned()),
        }
    }
}

/// When full redundancy began that lasted to the end; `since` when it was never reported gone after that, `None` when it
/// is gone at the end.
pub(super) fn redundant_from(seen: &[Watched], since: Moment) -> Option<Moment> {
    let whole = |watched: &Watched| watched.missing.is_none() && watched.primary.is_some();
    seen.last().filter(|last| whole(last))?;
    let broken = seen.iter().rposition(|watched| !whole(watched));
    let first = broken.map_or(since, |at| seen[at + 1].at);
    Some(first.max(since))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(at: u64, missing: bool) -> Watched {
        let missing = missing.then(|| "a standby".to_owned());
        let at = Moment::from_millis(at);
        Watched { at, primary: Some("a".into()), missing, confirming: None, answering: BTreeMap::new() }
    }

    #[test]
    fn redundancy_counts_from_the_last_time_it_was_gone() {
        let seen = [(1, false), (2, true), (3, false), (4, true), (5, false), (6, false)];
        let seen: Vec<_> = seen.map(|(at, missing)| watched(at, missing)).into();
        assert_eq!(redundant_from(&seen, Moment::from_millis(1)), Some(Moment::from_millis(5)));
        assert_eq!(redundant_from(&seen[..3], Moment::from_millis(1)), Some(Moment::from_millis(3)));
        assert_eq!(redundant_from(&seen[..1], Moment::from_millis(1)), Some(Moment::from_millis(1)));
        assert_eq!(redundant_from(&seen[..4], Moment::from_millis(1)), None);
        assert_eq!(redundant_from(&[], Moment::from_millis(1)), None);
    }
}
