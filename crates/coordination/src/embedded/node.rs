//! One node of the group: what its API, its peers and its background tasks share.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::NodeName;
use openraft::async_runtime::WatchReceiver;
use openraft::{RaftMetrics, ServerState};
use tokio::sync::watch;
use tokio::time::Instant;

use super::client::stopped;
use super::incoming::Arriving;
use super::leases::LeaseClock;
use super::network::RaftTransport;
use super::operation::Hindrance;
use super::pace::Pace;
use super::raft_types::{Members, RaftHandle, RaftId, TypeConfig};
use super::status::{Role, Status};
use super::store::Shared;
use super::timings::Timings;
use crate::LeaderHint;

pub(crate) struct Node {
    pub(crate) name: NodeName,
    pub(crate) id: RaftId,
    pub(crate) raft: RaftHandle,
    pub(crate) shared: Shared,
    pub(crate) transport: Arc<dyn RaftTransport>,
    pub(crate) timings: Timings,
    /// Raft's clock.
    pub(crate) pace: Arc<Pace>,
    pub(crate) leases: LeaseClock,
    pub(crate) hint: watch::Sender<LeaderHint>,
    pub(crate) arriving: Arriving,
    /// When a leader last sent something.
    pub(crate) heard: Mutex<Option<Instant>>,
}

impl Node {
    pub(crate) fn metrics(&self) -> RaftMetrics<TypeConfig> {
        self.raft.metrics().borrow_watched().clone()
    }

    pub(crate) fn members(&self) -> Members {
        Members::of(&self.metrics().membership_config)
    }

    /// Whether this node's store belongs to a group. Asks Raft itself: the metrics lag behind a start or a founding.
    pub(crate) async fn is_initialised(&self) -> Result<bool, Hindrance> {
        self.raft.is_initialized().await.map_err(|fatal| stopped(&fatal))
    }

    pub(crate) fn heard_from_leader(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// For a leader: how long ago a quorum answered it, by Raft's clock. A belief of this node, proof of nothing.
    fn quorum_age(&self, metrics: &RaftMetrics<TypeConfig>) -> Option<Duration> {
        metrics.last_quorum_acked.map(|acked| self.pace.since(*acked))
    }

    /// Whether this node leads and a quorum has answered it lately enough to be believed. Again only a belief.
    pub(crate) fn leads_with_quorum(&self, metrics: &RaftMetrics<TypeConfig>) -> bool {
        let alone = metrics.membership_config.voter_ids().eq([self.id]);
        let recent = self.quorum_age(metrics).is_some_and(|age| age < self.timings.election_max);
        metrics.state == ServerState::Leader && (alone || recent)
    }

    /// Publishes who seems to lead.
    pub(crate) fn update_hint(&self) {
        let metrics = self.metrics();
        let leader = match metrics.current_leader {
            Some(id) if id == self.id && !self.leads_with_quorum(&metrics) => None,
            Some(id) => Members::of(&metrics.membership_config).name_of(id).cloned(),
            None => None,
        };
        let hint = LeaderHint { leader, epoch: metrics.current_term };
        self.hint.send_if_modified(|current| {
            let changed = *current != hint;
            *current = hint;
            changed
        });
    }

    pub(crate) fn status(&self) -> Status {
        let metrics = self.metrics();
        let members = Members::of(&metrics.membership_config);
        let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let contact = match metrics.state {
            ServerState::Leader => self.quorum_age(&metrics).map(|age| self.pace.lasts(age)),
            ServerState::Follower | ServerState::Learner | ServerState::Candidate | ServerState::Shutdown => {
                heard.map(|heard| heard.elapsed())
            }
        };
        Status {
            node: self.name.clone(),
            incarnation: self.id,
            role: Role::from(metrics.state),
            term: metrics.current_term,
            leader: metrics.current_leader.and_then(|id| members.name_of(id).cloned()),
            last_log: metrics.last_log_index,
            applied: metrics.last_applied.map(|log_id| log_id.index),
            revision: self.shared.revision(),
            changing: metrics.membership_config.get_joint_config().len() > 1,
            voters: members.voters.into_values().collect(),
            learners: members.learners.into_values().collect(),
            last_contact: contact,
            failure: metrics.running_state.err().map(|fatal| fatal.to_string()),
        }
    }
}
