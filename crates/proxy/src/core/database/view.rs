//! What a table says about one database route, and what that means for a connection that exists.

use std::time::Duration;

use model::routes::{DatabaseEndpoint, DatabaseRouteState, DatabaseTarget};
use model::time::Moment;

use super::answer::Fatal;

/// A session that has asked nothing since it began this long ago is about to.
const FRESH: Duration = Duration::from_millis(100);
/// A gap between two statements that a client which is at work does not make.
const BREATH: Duration = Duration::from_millis(3);
/// How long the next statement of a client that pauses between its statements is waited for: right behind its answer is
/// the moment in which the client is surely not asking something.
const PAUSE: Duration = Duration::from_millis(12);
/// How long a draining waits for such moments: whoever asks without a pause has to be cut somewhere.
const COURTESY: Duration = Duration::from_millis(250);

/// How long sessions have to become idle when the proxy that carries them ends.
const LAST_MS: u64 = 20_000;
/// Why they have to.
const REPLACED: &str = "the proxy of this node was replaced by a newer one";

/// The target of a route all of whose sessions have to leave: those that might stay go when they are idle.
pub fn sent_away(target: &DatabaseTarget) -> DatabaseTarget {
    let mut target = target.clone();
    if let DatabaseRouteState::Open { members } = target.state {
        let because = REPLACED.to_owned();
        target.state = DatabaseRouteState::Draining { members, drain_ms: LAST_MS, because };
    }
    target
}

/// One database route as the table in force has it. Never changed in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The table's generation.
    pub generation: u64,
    /// What the table says.
    pub target: DatabaseTarget,
    /// Since when this proxy knows the route's present state; a draining's deadline counts from here.
    pub since: Moment,
}

/// What is to become of an existing connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may stay.
    Keep,
    /// It must go at once: its member or its term is not in the table any more.
    Close,
    /// It must go as soon as it is idle outside a transaction, and at this moment at the latest.
    CloseWhenIdle {
        /// The end of the draining.
        by: Moment,
    },
}

impl View {
    /// The view that follows `former` when a table with `target` arrives. A draining that goes on keeps its begin,
    /// so that a change elsewhere in the table does not move its deadline.
    pub fn following(former: Option<&Self>, generation: u64, target: DatabaseTarget, now: Moment) -> Self {
        let since = former.filter(|view| view.target.state == target.state).map_or(now, |view| view.since);
        Self { generation, target, since }
    }

    /// The members that may take new connections.
    pub fn eligible(&self) -> &[DatabaseEndpoint] {
        match &self.target.state {
            DatabaseRouteState::Open { members } => members,
            DatabaseRouteState::Parked { .. } | DatabaseRouteState::Draining { .. } => &[],
        }
    }

    /// The members on which connections may exist: where a cancel request can find its session.
    pub fn inhabited(&self) -> &[DatabaseEndpoint] {
        match &self.target.state {
            DatabaseRouteState::Open { members } | DatabaseRouteState::Draining { members, .. } => members,
            DatabaseRouteState::Parked { .. } => &[],
        }
    }

    /// What is to become of a connection to `endpoint`.
    pub fn verdict(&self, endpoint: &DatabaseEndpoint) -> Verdict {
        match &self.target.state {
            DatabaseRouteState::Open { members } if members.contains(endpoint) => Verdict::Keep,
            DatabaseRouteState::Draining { members, drain_ms, .. } if members.contains(endpoint) => {
                Verdict::CloseWhenIdle { by: self.since + Duration::from_millis(*drain_ms) }
            }
            DatabaseRouteState::Open { .. }
            | DatabaseRouteState::Parked { .. }
            | DatabaseRouteState::Draining { .. } => Verdict::Close,
        }
    }

    /// Why no member takes connections, in one sentence.
    pub fn because(&self) -> &str {
        match &self.target.state {
            DatabaseRouteState::Open { members } if members.is_empty() => "the route has no member",
            DatabaseRouteState::Open { .. } => "no member of the route could be reached",
            DatabaseRouteState::Parked { because } | DatabaseRouteState::Draining { because, .. } => because,
        }
    }

    /// How long a session that began at `began` and is idle at `now` must stay so before a draining tells it to leave.
    ///
    /// A client that has just connected, or goes through its statements one by one, is spared an error in the gap
    /// before its next statement; but not beyond 250 ms or half of the draining's time, lest it is cut in the middle of one.
    pub fn must_be_quiet_for(&self, began: Moment, fresh: bool, last_gap: Duration, now: Moment) -> Duration {
        let courtesy = match &self.target.state {
            DatabaseRouteState::Draining { drain_ms, .. } => {
                COURTESY.min(Duration::from_millis(drain_ms / 2))
            }
            DatabaseRouteState::Open { .. } | DatabaseRouteState::Parked { .. } => Duration::ZERO,
        };
        let breath = if Self::pauses(last_gap) { PAUSE } else { BREATH };
        let wish = if fresh { breath.max((began + FRESH).since(now)) } else { breath };
        wish.min((self.since + courtesy).since(now))
    }

    /// Whether a client that was idle for `last_gap` between its last two statements will be so again after this one.
    pub fn pauses(last_gap: Duration) -> bool {
        last_gap >= BREATH
    }

    /// Until when a connection accepted at `accepted` may wait for a member.
    pub fn patience_ends(&self, accepted: Moment) -> Moment {
        accepted + Duration::from_millis(self.target.park_limit_ms)
    }

    /// What a session is told that has to leave.
    pub fn farewell(&self) -> Fatal {
        match &self.target.state {
            DatabaseRouteState::Draining { because, .. } if because == REPLACED => Fatal::replaced(),
            DatabaseRouteState::Draining { .. }
            | DatabaseRouteState::Open { .. }
            | DatabaseRouteState::Parked { .. } => Fatal::switchover(),
        }
    }

    /// Whether the route waits for its sessions to end.
    pub fn is_draining(&self) -> bool {
        matches!(self.target.state, DatabaseRouteState::Draining { .. })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use model::leadership::Term;

    pub(crate) fn endpoint(node: &str, term: u64) -> DatabaseEndpoint {
        DatabaseEndpoint { node: node.into(), address: ([127, 0, 0, 1], 5432).into(), term: Term(term) }
    }

    pub(crate) fn target(state: DatabaseRouteState) -> DatabaseTarget {
        DatabaseTarget { database: "orders".into(), state, park_limit_ms: 1000, park_limit_count: 2 }
    }

    pub(crate) fn open(members: &[DatabaseEndpoint]) -> DatabaseTarget {
        target(DatabaseRouteState::Open { members: members.to_vec() })
    }

    pub(crate) fn draining(members: &[DatabaseEndpoint], drain_ms: u64) -> DatabaseTarget {
        let members = members.to_vec();
        target(DatabaseRouteState::Draining { members, drain_ms, because: "a switchover".to_owned() })
    }

    const NOW: Moment = Moment::from_millis(500);

    #[test]
    fn a_member_under_another_term_is_another_destination() {
        let view = View::following(None, 1, open(&[endpoint("e1", 2)]), NOW);
        assert_eq!(view.verdict(&endpoint("e1", 2)), Verdict::Keep);
        assert_eq!(view.verdict(&endpoint("e1", 1)), Verdict::Close);
        assert_eq!(view.verdict(&endpoint("e2", 2)), Verdict::Close);
    }

    #[test]
    fn a_draining_that_goes_on_keeps_its_deadline() {
        let e1 = endpoint("e1", 1);
        let first = View::following(None, 1, draining(std::slice::from_ref(&e1), 300), NOW);
        let later = NOW + Duration::from_millis(200);
        let second = View::following(Some(&first), 2, draining(std::slice::from_ref(&e1), 300), later);
        assert_eq!(second.verdict(&e1), Verdict::CloseWhenIdle { by: Moment::from_millis(800) });
        let third = View::following(Some(&second), 3, open(std::slice::from_ref(&e1)), later);
        assert_eq!(third.verdict(&e1), Verdict::Keep);
    }

    #[test]
    fn a_client_at_work_is_given_a_breath_but_not_beyond_half_of_the_draining() {
        let view = View::following(None, 1, draining(&[endpoint("e1", 1)], 300), NOW);
        let after = |gap, began, fresh, now| {
            let gap = Duration::from_millis(gap);
            view.must_be_quiet_for(Moment::from_millis(began), fresh, gap, Moment::from_millis(now))
                .as_millis()
        };
        let quiet = |began, fresh, now| after(0, began, fresh, now);
        assert_eq!(quiet(0, false, 500), 3);
        assert_eq!(after(8, 0, false, 500), 12, "its next answer is waited for");
        assert_eq!(quiet(490, true, 500), 90, "just connected");
        assert_eq!(quiet(0, true, 500), 3, "connected long ago");
        assert_eq!(quiet(640, true, 640), 10, "half of the draining ends at 650");
        assert_eq!(quiet(0, false, 650), 0);
    }

    #[test]
    fn sessions_of_a_proxy_that_ends_leave_when_idle_but_those_of_a_deposed_primary_at_once() {
        let (e1, e2) = (endpoint("e1", 1), endpoint("e2", 2));
        let view = View::following(None, 1, sent_away(&open(std::slice::from_ref(&e1))), NOW);
        assert_eq!(view.verdict(&e1), Verdict::CloseWhenIdle { by: NOW + Duration::from_millis(LAST_MS) });
        assert_eq!(view.farewell(), Fatal::replaced());
        let next = View::following(Some(&view), 2, sent_away(&open(&[e2])), NOW);
        assert_eq!(next.verdict(&e1), Verdict::Close);
        let switched = View::following(None, 1, sent_away(&draining(std::slice::from_ref(&e1), 300)), NOW);
        assert_eq!(switched.farewell(), Fatal::switchover());
    }

    #[test]
    fn a_parked_route_keeps_nothing() {
        let parked = target(DatabaseRouteState::Parked { because: "no primary".to_owned() });
        let view = View::following(None, 1, parked, NOW);
        assert_eq!(view.verdict(&endpoint("e1", 1)), Verdict::Close);
        assert_eq!(view.because(), "no primary");
        assert_eq!(view.patience_ends(NOW), Moment::from_millis(1500));
    }
}
