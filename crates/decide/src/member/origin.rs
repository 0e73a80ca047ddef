//! Which timeline is it? PostgreSQL numbers a timeline by what the promoted server knows of. Two members that are promoted one
//! after the other, the second without having heard of the first, make two timelines of the same number: neither streaming nor
//! a rewind tells them apart, and log of the one lands on top of the other. The record's lineage says which term made each
//! timeline of the history, and every copy remembers of whom it took log.

use model::leadership::{Leadership, Term, TimelineOrigin};
use model::postgres::Timeline;
use model::status::{MemberStatus, Tenure};

/// Whether a copy that ends on `timeline` has another one of that number than the history: one that was made in a later term than
/// any that it has log of.
pub(super) fn is_namesake(
    record: &Leadership,
    tenure: Option<&Tenure>,
    timeline: Timeline,
    taken_from: Option<Term>,
) -> bool {
    let made_in = origin(record, tenure, timeline).map(|origin| origin.term);
    made_in.zip(taken_from).is_some_and(|(made_in, taken_from)| made_in > taken_from)
}

/// Whether the timeline is surely the one of the history.
pub(super) fn is_known(record: &Leadership, timeline: Timeline, taken_from: Option<Term>) -> bool {
    record.lineage.is_empty()
        || (record.origin_of(timeline).is_some() && !is_namesake(record, None, timeline, taken_from))
}

/// Which timeline of that number belongs to the history. What the present primary says of its own is newer than the record.
fn origin(record: &Leadership, tenure: Option<&Tenure>, timeline: Timeline) -> Option<TimelineOrigin> {
    match tenure.map(Tenure::origin) {
        Some(present) if present.timeline == timeline => Some(present),
        Some(present) if present.timeline < timeline => None,
        Some(_) | None => record.origin_of(timeline).cloned(),
    }
}

/// Whether nobody has reported a timeline of this number that belongs to the history: its primary ended too soon, or it is a
/// side branch, and its branch may go through another one of the present number.
pub(super) fn is_unrecorded(record: &Leadership, tenure: &Tenure, timeline: Timeline) -> bool {
    !record.lineage.is_empty() && origin(record, Some(tenure), timeline).is_none()
}

/// Whether the timeline that this member made, or led on, as the primary of `was` is part of the history. One that ended
/// before it could say which timeline that was is not known to be.
pub(super) fn is_of_the_history(own: &MemberStatus, was: Term, record: &Leadership, tenure: &Tenure) -> bool {
    let Some(made) = own.tenure.as_ref().filter(|own| own.term == was).map(Tenure::origin) else {
        return false;
    };
    record.lineage.is_empty() || origin(record, Some(tenure), made.timeline).as_ref() == Some(&made)
}

/// Whether timelines were made since this copy last took log from anybody: it may have one of the same number.
pub(super) fn has_moved_on(record: &Leadership, tenure: &Tenure, taken_from: Option<Term>) -> bool {
    let made_in = record.lineage.iter().map(|origin| origin.term).chain([tenure.origin().term]).max();
    made_in.zip(taken_from).is_some_and(|(made_in, taken_from)| made_in > taken_from)
}

#[cfg(test)]
mod tests {
    use model::postgres::Lsn;

    use super::*;
    use crate::testkit::{led, primary};

    fn made(timeline: u32, term: u64) -> TimelineOrigin {
        TimelineOrigin { timeline: Timeline(timeline), term: Term(term), begins: Lsn(100) }
    }

    /// Timelines 1 and 2 of terms 1 and 3; term 5 leads on timeline 3, which it made itself unless `made_in` says otherwise.
    fn history(made_in: Option<u64>) -> (Leadership, Tenure) {
        let mut record = led(5, "a", &["b", "c"]);
        record.lineage = vec![made(1, 1), made(2, 3)];
        let origin = made(3, 5);
        let mut tenure = primary(5, 200, &[], 1).tenure.unwrap();
        (tenure.timeline, tenure.begins, tenure.made_in) =
            (origin.timeline, origin.begins, made_in.map(Term));
        (record, tenure)
    }

    #[test]
    fn a_timeline_that_a_later_term_made_is_another_one_of_that_number() {
        let (record, tenure) = history(None);
        let namesake = |timeline, taken_from| {
            is_namesake(&record, Some(&tenure), Timeline(timeline), Some(Term(taken_from)))
        };
        assert!(namesake(2, 2) && !namesake(2, 3) && !namesake(2, 4));
        assert!(namesake(3, 4), "what the present primary says counts before it is in the record");
        assert!(!namesake(3, 5) && !namesake(1, 1));
        assert!(!is_namesake(&record, Some(&tenure), Timeline(3), None), "an earlier version did not say");
    }

    #[test]
    fn a_primary_that_restarted_in_place_made_no_timeline() {
        let (mut record, tenure) = history(Some(4));
        assert!(!is_namesake(&record, Some(&tenure), Timeline(3), Some(Term(4))));
        record.lineage.push(tenure.origin());
        assert!(
            !has_moved_on(&record, &tenure, Some(Term(4))) && has_moved_on(&record, &tenure, Some(Term(3)))
        );
    }

    #[test]
    fn a_timeline_that_nobody_reported_may_be_any() {
        let (mut record, tenure) = history(None);
        assert!(
            !is_unrecorded(&record, &tenure, Timeline(2)) && !is_unrecorded(&record, &tenure, Timeline(3))
        );
        assert!(is_unrecorded(&record, &tenure, Timeline(4)), "a side branch");
        record.lineage.pop();
        assert!(is_unrecorded(&record, &tenure, Timeline(2)));
        assert!(
            !is_known(&record, Timeline(2), Some(Term(5))) && is_known(&record, Timeline(1), Some(Term(1)))
        );
    }

    #[test]
    fn a_former_primary_is_of_the_history_only_with_the_timeline_that_is() {
        let (record, tenure) = history(None);
        let was = |timeline, term| {
            let mut own = primary(term, 200, &[], 1);
            if let Some(own) = &mut own.tenure {
                (own.timeline, own.begins, own.made_in) = (Timeline(timeline), Lsn(100), None);
            }
            is_of_the_history(&own, Term(term), &record, &tenure)
        };
        assert!(was(2, 3) && !was(2, 2));
        assert!(!was(3, 4), "the present primary made the timeline of that number");
        let unsaid = MemberStatus { tenure: None, ..primary(3, 200, &[], 1) };
        assert!(!is_of_the_history(&unsaid, Term(3), &record, &tenure));
    }
}
