//! Whether a member's log is a part of another's, decided by the history of timelines and by nothing else: "it is
//! streaming" is no proof.

use model::postgres::{Lsn, Timeline, WalPosition};
use serde::{Deserialize, Serialize};

/// One timeline of a history and where it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// The timeline.
    pub timeline: Timeline,
    /// Where the next one left it.
    pub ends: Lsn,
}

/// The timelines that lead to `timeline`, the oldest first: the content of PostgreSQL's `.history` file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineHistory {
    /// The timeline whose history this is.
    pub timeline: Timeline,
    /// The ones before it.
    pub before: Vec<HistoryEntry>,
}

/// A text that is not a history file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the history of timeline {timeline} has a line that is not understood: `{line}`")]
pub struct HistoryError {
    /// The timeline.
    pub timeline: Timeline,
    /// The line.
    pub line: String,
}

/// How a member's log relates to a primary's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "relation")]
pub enum Divergence {
    /// All that the member holds is part of the primary's log: it can follow as it is.
    None,
    /// The member holds log after `common` that the primary does not have: rewind to it.
    After {
        /// The last position that both have.
        common: WalPosition,
    },
    /// Not even the first timeline is shared: only a new clone helps.
    Foreign,
}

impl TimelineHistory {
    /// The history of timeline 1, which has no file.
    pub fn first() -> Self {
        Self { timeline: Timeline(1), before: Vec::new() }
    }

    /// Reads a history file (one line for each timeline: number, end, reason; `#` begins a comment).
    ///
    /// # Errors
    /// When a line is none.
    pub fn parse(timeline: Timeline, file: &str) -> Result<Self, HistoryError> {
        let lines = file.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let entry = |line: &str| {
            let mut fields = line.split_whitespace();
            let timeline = Timeline(fields.next()?.parse().ok()?);
            Some(HistoryEntry { timeline, ends: fields.next()?.parse().ok()? })
        };
        let before: Result<Vec<HistoryEntry>, HistoryError> = lines
            .map(|line| entry(line).ok_or_else(|| HistoryError { timeline, line: line.to_owned() }))
            .collect();
        Ok(Self { timeline, before: before? })
    }

    /// Where `timeline` ended in this history; `None` when it is the present one or not in it.
    pub fn end_of(&self, timeline: Timeline) -> Option<Lsn> {
        self.before.iter().find(|entry| entry.timeline == timeline).map(|entry| entry.ends)
    }

    /// Whether log that ends at `position` is a part of this history.
    pub fn holds(&self, position: WalPosition) -> bool {
        position.timeline == self.timeline
            || self.end_of(position.timeline).is_some_and(|end| position.lsn <= end)
    }

    /// Where the present timeline began; zero for the first.
    pub fn begins(&self) -> Lsn {
        self.before.last().map_or(Lsn(0), |entry| entry.ends)
    }

    /// All timelines with their ends; the present one has none.
    fn spans(&self) -> impl Iterator<Item = (Timeline, Lsn)> {
        let past = self.before.iter().map(|entry| (entry.timeline, entry.ends));
        past.chain([(self.timeline, Lsn(u64::MAX))])
    }
}

/// Compares a member, whose log ends at `end` and has the history `own`, with a primary that has the history `primary`.
///
/// Two promotions that made the same timeline number at the same position look alike here; who promotes is agreed on,
/// and the leadership record's lineage tells them apart.
pub fn divergence(end: Lsn, own: &TimelineHistory, primary: &TimelineHistory) -> Divergence {
    let own_spans: Vec<(Timeline, Lsn)> = own.spans().collect();
    let last = own_spans.len() - 1;
    let mut common: Option<WalPosition> = None;
    for (index, (mine, theirs)) in own_spans.iter().zip(primary.spans()).enumerate() {
        if mine.0 != theirs.0 {
            break;
        }
        let my_end = if index == last { end } else { mine.1 };
        let shared = WalPosition { timeline: mine.0, lsn: my_end.min(theirs.1) };
        if index == last && my_end <= theirs.1 {
            return Divergence::None;
        }
        common = Some(shared);
        if my_end != theirs.1 {
            break;
        }
    }
    common.map_or(Divergence::Foreign, |common| Divergence::After { common })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(timeline: u32, before: &[(u32, u64)]) -> TimelineHistory {
        let before = before.iter().map(|&(t, ends)| HistoryEntry { timeline: Timeline(t), ends: Lsn(ends) });
        TimelineHistory { timeline: Timeline(timeline), before: before.collect() }
    }

    fn after(timeline: u32, lsn: u64) -> Divergence {
        Divergence::After { common: WalPosition { timeline: Timeline(timeline), lsn: Lsn(lsn) } }
    }

    #[test]
    fn a_history_file_is_read() {
        let file =
            "1\t0/3000148\tno recovery target specified\n\n2\t0/5000000\tno recovery target specified\n";
        let read = TimelineHistory::parse(Timeline(3), file).unwrap();
        assert_eq!(read, history(3, &[(1, 0x300_0148), (2, 0x500_0000)]));
        assert_eq!((read.end_of(Timeline(1)), read.begins()), (Some(Lsn(0x300_0148)), Lsn(0x500_0000)));
        assert!(TimelineHistory::parse(Timeline(3), "one two").is_err());
    }

    #[test]
    fn a_history_holds_what_its_timelines_had_before_the_next_one_left_them() {
        let primary = history(3, &[(1, 100), (2, 200)]);
        let holds =
            |timeline, lsn| primary.holds(WalPosition { timeline: Timeline(timeline), lsn: Lsn(lsn) });
        assert!(holds(1, 100) && holds(2, 150) && holds(3, 9000));
        assert!(!holds(1, 101) && !holds(2, 201) && !holds(4, 1));
    }

    #[test]
    fn a_member_behind_the_switch_can_follow() {
        let primary = history(2, &[(1, 100)]);
        assert_eq!(divergence(Lsn(90), &TimelineHistory::first(), &primary), Divergence::None);
        assert_eq!(divergence(Lsn(100), &TimelineHistory::first(), &primary), Divergence::None);
        assert_eq!(divergence(Lsn(900), &history(2, &[(1, 100)]), &primary), Divergence::None);
    }

    #[test]
    fn a_member_beyond_the_switch_must_rewind_to_it() {
        let primary = history(3, &[(1, 100), (2, 200)]);
        assert_eq!(divergence(Lsn(101), &TimelineHistory::first(), &primary), after(1, 100));
        assert_eq!(divergence(Lsn(201), &history(2, &[(1, 100)]), &primary), after(2, 200));
    }

    #[test]
    fn two_promotions_from_one_parent_share_only_the_parent() {
        let primary = history(2, &[(1, 100)]);
        assert_eq!(divergence(Lsn(150), &history(2, &[(1, 80)]), &primary), after(1, 80));
        assert_eq!(divergence(Lsn(150), &history(2, &[(1, 120)]), &primary), after(1, 100));
        assert_eq!(divergence(Lsn(150), &history(3, &[(1, 100)]), &primary), after(1, 100));
        // A member ahead of its primary in history: the primary itself has yet to switch.
        assert_eq!(divergence(Lsn(150), &primary, &TimelineHistory::first()), after(1, 100));
    }

    #[test]
    fn histories_without_a_common_first_timeline_are_foreign() {
        assert_eq!(divergence(Lsn(5), &history(4, &[]), &history(2, &[(1, 100)])), Divergence::Foreign);
    }
}
