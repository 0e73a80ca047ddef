//! When leases end. Only grants and ends are log entries; deadlines live in the leader's memory.
//!
//! A lease ends early never, late sometimes: a new leader gives every lease its full time once, and time in which
//! nobody could have renewed (no quorum, or the leader itself did not run) does not count.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::ServerState;
use tokio::time::Instant;

use super::node::Node;
use super::operation::{Answer, Done, Failure, Operation};
use super::raft_types::Command;
use crate::LeaseId;

/// How often deadlines are looked at.
pub(crate) const TICK: Duration = Duration::from_millis(100);
/// Two looks further apart than this mean that this process did not run in between.
const STALL: Duration = Duration::from_millis(500);
/// How long one attempt to log a lease's end may take.
const END: Duration = Duration::from_secs(5);

/// The deadlines of the leases while this node leads.
pub(crate) struct LeaseClock(Mutex<Clock>);

struct Clock {
    /// The leadership that the deadlines belong to.
    term: Option<u64>,
    looked: Instant,
    deadlines: HashMap<LeaseId, Deadline>,
}

struct Deadline {
    at: Instant,
    /// Its end is on the way into the log: no renewal any more.
    ending: bool,
}

impl LeaseClock {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Clock { term: None, looked: Instant::now(), deadlines: HashMap::new() }))
    }

    fn lock(&self) -> MutexGuard<'_, Clock> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock {
    /// Deadlines of an earlier leadership mean nothing: in between another leader may have renewed.
    fn enter(&mut self, term: u64) {
        if self.term != Some(term) {
            self.term = Some(term);
            self.deadlines.clear();
        }
    }

    /// Brings the deadlines up to date; the leases that have run out.
    fn look(&mut self, term: u64, renewable: bool, leases: &[(LeaseId, Duration)]) -> Vec<LeaseId> {
        let now = Instant::now();
        let since = now.duration_since(self.looked);
        self.looked = now;
        self.enter(term);
        if !renewable || since > STALL {
            self.deadlines.values_mut().for_each(|deadline| deadline.at += since);
        }
        let mut current = HashMap::with_capacity(leases.len());
        for (id, ttl) in leases {
            let known = self.deadlines.remove(id);
            current.insert(*id, known.unwrap_or(Deadline { at: now + *ttl, ending: false }));
        }
        self.deadlines = current;
        let run_out =
            self.deadlines.iter_mut().filter(|(_, deadline)| deadline.at <= now && !deadline.ending);
        run_out
            .map(|(id, deadline)| {
                deadline.ending = true;
                *id
            })
            .collect()
    }
}

impl Node {
    /// One look at the deadlines; puts the end of what has run out into the log.
    pub(crate) fn end_leases(self: &Arc<Self>) {
        for lease in self.look_at_leases() {
            let node = self.clone();
            tokio::spawn(async move {
                let end = Operation::Write(Command::EndLease(lease));
                if let Err(Failure::NotDone(_)) = node.lead(&end, Instant::now() + END).await
                    && let Some(deadline) = node.leases.lock().deadlines.get_mut(&lease)
                {
                    deadline.ending = false;
                }
            });
        }
    }

    fn look_at_leases(&self) -> Vec<LeaseId> {
        let metrics = self.metrics();
        if metrics.state != ServerState::Leader {
            let mut clock = self.leases.lock();
            clock.term = None;
            clock.looked = Instant::now();
            return Vec::new();
        }
        let leases: Vec<_> = self.shared.read(|state| {
            let leases = state.leases().iter();
            leases.map(|(id, lease)| (*id, Duration::from_millis(lease.ttl_ms))).collect()
        });
        let renewable = self.leads_with_quorum(&metrics);
        self.leases.lock().look(metrics.current_term, renewable, &leases)
    }

    /// Renews a lease. Only after this node has made sure that it leads and has applied all that was committed.
    pub(crate) fn renew_lease(&self, id: LeaseId) -> Answer {
        let Some(ttl_ms) = self.shared.read(|state| state.leases().get(&id).map(|lease| lease.ttl_ms)) else {
            return Err(Failure::LeaseEnded(id));
        };
        let at = Instant::now() + Duration::from_millis(ttl_ms);
        let term = self.metrics().current_term;
        let mut clock = self.leases.lock();
        clock.enter(term);
        match clock.deadlines.get_mut(&id) {
            Some(deadline) if deadline.ending => return Err(Failure::LeaseEnded(id)),
            Some(deadline) => deadline.at = at,
            None => {
                clock.deadlines.insert(id, Deadline { at, ending: false });
            }
        }
        Ok(Done::Renewed(ttl_ms))
    }
}
