//! What a node believes about itself.

use std::collections::BTreeSet;
use std::time::Duration;

use model::NodeName;
use openraft::ServerState;
use serde::Serialize;

use crate::Revision;

/// A node's own view, for people and logs. **Never proof**: an isolated former leader reports `Leader` for as long as
/// it is isolated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// This node.
    pub node: NodeName,
    /// This node's Raft id: a new one each time its store is made anew.
    pub incarnation: u64,
    /// What it believes to be.
    pub role: Role,
    /// The Raft term it knows.
    pub term: u64,
    /// Whom it believes to lead.
    pub leader: Option<NodeName>,
    /// The index of its last log entry.
    pub last_log: Option<u64>,
    /// The index of the last entry in its state.
    pub applied: Option<u64>,
    /// The revision of its state.
    pub revision: Revision,
    /// Who votes.
    pub voters: BTreeSet<NodeName>,
    /// Who only follows. A name here and in `voters` is a node whose store was lost and that waits for promotion.
    pub learners: BTreeSet<NodeName>,
    /// Whether a change of the voters is half-way: two sets of them are in force, and both need a majority.
    pub changing: bool,
    /// Leader: how long ago a quorum answered. Others: how long ago a leader was heard. `None`: not yet.
    pub last_contact: Option<Duration>,
    /// Why the store has stopped, if it has (a full or broken disk): it must be closed and opened again.
    pub failure: Option<String>,
}

impl Status {
    /// What is unusual about the membership, in words.
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if self.voters.is_empty() {
            remarks.push(format!(
                "{} belongs to no group: its store is new, and it has no vote until a group is founded or takes it in",
                self.node
            ));
        }
        for lost in self.voters.intersection(&self.learners) {
            remarks.push(format!(
                "{lost} has lost its store: it learns anew, and its old vote counts as missing until it is promoted"
            ));
        }
        if self.changing {
            remarks.push("the voters are being changed: the old and the new ones must both agree".to_owned());
        }
        remarks
    }
}

/// What a node believes to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Leads, or did when it last heard from anyone.
    Leader,
    /// Votes and follows.
    Follower,
    /// Stands for election.
    Candidate,
    /// Follows without a vote, or belongs to no group yet.
    Learner,
    /// The store has stopped.
    Stopped,
}

impl From<ServerState> for Role {
    fn from(state: ServerState) -> Self {
        match state {
            ServerState::Leader => Self::Leader,
            ServerState::Follower => Self::Follower,
            ServerState::Candidate => Self::Candidate,
            ServerState::Learner => Self::Learner,
            ServerState::Shutdown => Self::Stopped,
        }
    }
}
