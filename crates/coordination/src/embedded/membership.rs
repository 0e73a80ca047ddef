//! Who votes: founding the group, adding and removing nodes, handing over the lead.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::NodeName;
use openraft::ChangeMembers;
use openraft::errors::{InitializeError, RaftError};
use tokio::time::{Instant, timeout_at};

use super::client::{not_written, stopped};
use super::message::{Identity, Request, RequestBody, Response, encode};
use super::network;
use super::node::Node;
use super::operation::{Answer, Done, Failure, Hindrance};
use super::raft_types::{Members, Peer, RaftId};
use crate::{Error, Reason};

/// How often a condition of the group is looked at while waiting for it.
const LOOK: Duration = Duration::from_millis(10);
/// How long a node is given to say who it is.
const IDENTIFY: Duration = Duration::from_secs(1);
/// How long one attempt to finish a change may take.
const FINISH: Duration = Duration::from_secs(5);
/// How long a change may stand half-way before a leader finishes it.
pub(crate) const HALF_WAY: Duration = Duration::from_secs(1);
/// How many entries a learner may be behind to be promoted: it must not hold up commits as a voter.
const CAUGHT_UP: u64 = 64;

impl Node {
    // --- Founding ---------------------------------------------------------------------------------------------------

    pub(crate) async fn initialize(&self, voters: &[NodeName], within: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + within;
        let wanted: BTreeSet<NodeName> = voters.iter().cloned().collect();
        if !wanted.contains(&self.name) {
            return Err(Error::Invalid(format!(
                "{} founds the group and must be among its voters",
                self.name
            )));
        }
        if self.is_initialised().await.map_err(|hindrance| Error::Unavailable(hindrance.into()))? {
            return self.check_founded(&wanted, deadline).await;
        }
        let mut members = BTreeMap::new();
        for name in &wanted {
            let identity = self.identify(name, deadline).await?;
            if identity.initialised {
                let problem = format!(
                    "{name} already belongs to a group (its store holds one): wipe it or found there"
                );
                return Err(Error::Invalid(problem));
            }
            members.insert(identity.id, Peer::new(name));
        }
        match timeout_at(deadline, self.raft.initialize(members)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(RaftError::Fatal(fatal))) => Err(Error::Unavailable(stopped(&fatal).into())),
            // Somebody was faster, perhaps an earlier call of ours.
            Ok(Err(RaftError::APIError(InitializeError::NotAllowed(_)))) => {
                self.check_founded(&wanted, deadline).await
            }
            Ok(Err(RaftError::APIError(error @ InitializeError::NotInMembers(_)))) => {
                Err(Error::Invalid(error.to_string()))
            }
            Err(_) => Err(Error::OutcomeUnknown(Reason::Timeout)),
        }
    }

    async fn check_founded(&self, wanted: &BTreeSet<NodeName>, deadline: Instant) -> Result<(), Error> {
        // Right after a start the metrics are still empty.
        while self.members().voters.is_empty() && Instant::now() + LOOK < deadline {
            tokio::time::sleep(LOOK).await;
        }
        let voters: BTreeSet<NodeName> = self.members().voters.into_values().collect();
        if voters == *wanted {
            return Ok(());
        }
        let names: Vec<&str> = voters.iter().map(NodeName::as_str).collect();
        Err(Error::Invalid(format!("the group is already founded, its voters are: {}", names.join(", "))))
    }

    /// Asks a node who it is, until it answers.
    async fn identify(&self, name: &NodeName, deadline: Instant) -> Result<Identity, Error> {
        if *name == self.name {
            return self.identity().await.map_err(|hindrance| Error::Unavailable(hindrance.into()));
        }
        let request = encode(&Request { to: None, body: RequestBody::Identify }, &[]);
        let request = request.map_err(|error| Error::Invalid(error.to_string()))?;
        loop {
            let problem = match network::call(&*self.transport, name, request.clone(), IDENTIFY).await {
                Ok(Response::Answer(identity)) => match checked(name, identity) {
                    Ok(identity) => return Ok(identity),
                    Err(problem) => problem,
                },
                Ok(Response::Refused(problem)) => format!("{name}: {problem}"),
                Err(error) => format!("{name}: {error}"),
            };
            if Instant::now() + LOOK >= deadline {
                return Err(Error::Unavailable(Reason::Connection(problem)));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    // --- Changes, at the leader -------------------------------------------------------------------------------------

    pub(crate) async fn add_learner(&self, name: &NodeName, deadline: Instant) -> Answer {
        let identity = match self.identify(name, deadline).await {
            Ok(identity) => identity,
            Err(error) => return Err(Failure::NotDone(Hindrance::Refused(error.to_string()))),
        };
        if self.members().name_of(identity.id).is_some() {
            return Ok(Done::Plain);
        }
        if identity.initialised {
            let problem = format!(
                "the store of {name} belongs to another group, or was removed from this one: wipe it"
            );
            return Err(Failure::Invalid(problem));
        }
        match timeout_at(deadline, self.raft.add_learner(identity.id, Peer::new(name), false)).await {
            Ok(Ok(_)) => Ok(Done::Plain),
            Ok(Err(error)) => Err(not_written(error)),
            Err(_) => Err(Failure::Unknown(Hindrance::Timeout)),
        }
    }

    pub(crate) async fn promote(&self, name: &NodeName, deadline: Instant) -> Answer {
        let id = match self.identify(name, deadline).await {
            Ok(identity) => identity.id,
            Err(error) => return Err(Failure::NotDone(Hindrance::Refused(error.to_string()))),
        };
        let members = self.members();
        if members.name_of(id).is_none() {
            return Err(Failure::Invalid(format!("{name} is not a learner of this group: add it first")));
        }
        if members.voters.contains_key(&id) && !self.is_joint() {
            return Ok(Done::Plain);
        }
        self.wait_caught_up(id, name, deadline).await?;
        // The incarnations of the same name that lost their disk go in the same step: they can never vote again.
        let mut voters: BTreeSet<RaftId> = others(&members, name);
        voters.insert(id);
        self.change_members(ChangeMembers::ReplaceAllVoters(voters), deadline).await
    }

    pub(crate) async fn remove(&self, name: &NodeName, deadline: Instant) -> Answer {
        let members = self.members();
        let voters = others(&members, name);
        if voters.is_empty() {
            return Err(Failure::Invalid(format!("{name} is the last voter")));
        }
        if voters.len() < members.voters.len() || self.is_joint() {
            self.change_members(ChangeMembers::ReplaceAllVoters(voters), deadline).await?;
        }
        let learners: BTreeSet<RaftId> =
            members.learners.iter().filter(|(_, learner)| *learner == name).map(|(id, _)| *id).collect();
        if learners.is_empty() {
            return Ok(Done::Plain);
        }
        self.change_members(ChangeMembers::RemoveNodes(learners), deadline).await
    }

    async fn change_members(&self, change: ChangeMembers<RaftId, Peer>, deadline: Instant) -> Answer {
        match timeout_at(deadline, self.raft.change_membership(change, false)).await {
            Ok(Ok(_)) => Ok(Done::Plain),
            Ok(Err(error)) => Err(not_written(error)),
            Err(_) => Err(Failure::Unknown(Hindrance::Timeout)),
        }
    }

    /// Whether a change is half-way, with two sets of voters in force.
    fn is_joint(&self) -> bool {
        self.metrics().membership_config.get_joint_config().len() > 1
    }

    /// Whether this node should bring a change to its end that it finds half-way.
    pub(crate) fn leads_half_way(&self) -> bool {
        self.is_joint() && self.leads_with_quorum(&self.metrics())
    }

    /// Brings a change to its end that was left half-way, by a leader that died or a caller whose time was up: as long as
    /// two sets of voters are in force, both need a majority for everything.
    pub(crate) async fn finish_change(&self) {
        let Some(wanted) = self.metrics().membership_config.get_joint_config().last().cloned() else {
            return;
        };
        let change = ChangeMembers::ReplaceAllVoters(wanted);
        if let Err(failure) = self.change_members(change, Instant::now() + FINISH).await {
            tracing::debug!(?failure, "a change of the voters is still half-way");
        }
    }

    async fn wait_caught_up(&self, id: RaftId, name: &NodeName, deadline: Instant) -> Result<(), Failure> {
        loop {
            let metrics = self.metrics();
            let Some(replication) = metrics.replication else {
                return Err(Failure::NotDone(Hindrance::NotLeader));
            };
            let matched = replication.get(&id).copied().flatten().map_or(0, |log_id| log_id.index);
            if id == self.id || matched + CAUGHT_UP >= metrics.last_log_index.unwrap_or(0) && matched > 0 {
                return Ok(());
            }
            if Instant::now() + LOOK >= deadline {
                let problem = format!("{name} has not caught up with the log yet");
                return Err(Failure::NotDone(Hindrance::Refused(problem)));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Hands the lead to a voter and waits until it leads.
    pub(crate) async fn transfer(&self, name: &NodeName, deadline: Instant) -> Answer {
        let voters = self.members().voters;
        let Some(id) = voters.iter().find(|(_, voter)| *voter == name).map(|(id, _)| *id) else {
            return Err(Failure::Invalid(format!("{name} is not a voter of this group")));
        };
        if id == self.id {
            return Ok(Done::Plain);
        }
        if let Err(fatal) = self.raft.trigger().transfer_leader(id).await {
            return Err(Failure::NotDone(stopped(&fatal)));
        }
        while Instant::now() + LOOK < deadline {
            match self.metrics().current_leader {
                Some(leader) if leader == id => return Ok(Done::Plain),
                // Somebody else was elected; ask there.
                Some(leader) if leader != self.id => return Err(Failure::NotDone(Hindrance::LeaderChanged)),
                Some(_) | None => tokio::time::sleep(LOOK).await,
            }
        }
        Err(Failure::NotDone(Hindrance::Timeout))
    }
}

/// The voters that are not called `name`.
fn others(members: &Members, name: &NodeName) -> BTreeSet<RaftId> {
    members.voters.iter().filter(|(_, voter)| *voter != name).map(|(id, _)| *id).collect()
}

fn checked(name: &NodeName, identity: Identity) -> Result<Identity, String> {
    if identity.name == *name {
        Ok(identity)
    } else {
        Err(format!("{name} says that it is {}", identity.name))
    }
}
