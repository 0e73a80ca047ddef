//! Whether anybody tells this proxy what is going on.

use std::time::Duration;

use model::time::Moment;

/// How long a client may wait here for a member while no agent tells this proxy anything: an agent that was restarted is
/// back sooner. Beyond that its table may be of a time that is over, and the proxies of other nodes know better.
const UNATTENDED_PATIENCE: Duration = Duration::from_millis(1500);

/// The agents that are connected to this proxy; usually one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attendance {
    agents: usize,
    since: Moment,
}

impl Attendance {
    /// Nobody since `now`.
    pub const fn new(now: Moment) -> Self {
        Self { agents: 0, since: now }
    }

    /// One more agent has connected.
    pub fn came(&mut self) {
        self.agents += 1;
    }

    /// One of them has left.
    pub fn left(&mut self, now: Moment) {
        self.agents = self.agents.saturating_sub(1);
        if self.agents == 0 {
            self.since = now;
        }
    }

    /// Since when there is none.
    pub fn missing_since(&self) -> Option<Moment> {
        (self.agents == 0).then_some(self.since)
    }

    /// Until when a connection accepted at `accepted` may wait for want of an agent; `None` while there is one.
    pub fn patience_ends(&self, accepted: Moment) -> Option<Moment> {
        self.missing_since().map(|since| since.max(accepted) + UNATTENDED_PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_is_short_only_while_no_agent_is_there() {
        let at = Moment::from_millis;
        let mut attendance = Attendance::new(at(100));
        assert_eq!(attendance.patience_ends(at(50)), Some(at(1600)));
        assert_eq!(attendance.patience_ends(at(200)), Some(at(1700)));
        attendance.came();
        attendance.came();
        attendance.left(at(300));
        assert_eq!(attendance.patience_ends(at(400)), None);
        attendance.left(at(500));
        assert_eq!(
            (attendance.missing_since(), attendance.patience_ends(at(0))),
            (Some(at(500)), Some(at(2000)))
        );
    }
}
