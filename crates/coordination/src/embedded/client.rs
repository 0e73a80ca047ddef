//! Doing what a client asks: here if this node leads, else at the leader; again while it certainly did not happen.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use model::NodeName;
use openraft::ReadPolicy;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{
    ChangeMembershipError, ClientWriteError, Fatal, ForwardReason, ForwardToLeader, LinearizableReadError,
    RaftError,
};
use openraft::type_config::alias::ChangeMembershipErrorOf;
use tokio::time::{Instant, timeout_at};

use super::message::{Request, RequestBody, Response, encode};
use super::network;
use super::node::Node;
use super::operation::{Answer, Done, Failure, Hindrance, Operation, listing_answer};
use super::raft_types::{Applied, Command, RaftId, TypeConfig};
use crate::coordinator::MAX_LISTING;
use crate::{Error, Listing};

/// The first pause before asking again: a new leader refuses its first write for about 2 ms.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
/// The longest pause before asking again.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

impl Node {
    /// Does an operation, wherever the leader is, within the time given.
    pub(crate) async fn execute(&self, operation: &Operation, within: Duration) -> Result<Done, Error> {
        let deadline = Instant::now() + within;
        let mut pause = FIRST_PAUSE;
        loop {
            let answer = self.attempt(operation, deadline).await;
            let again = match &answer {
                Err(Failure::NotDone(hindrance)) => hindrance.may_pass(),
                Err(Failure::Unknown(hindrance)) => operation.is_repeatable() && hindrance.may_pass(),
                Ok(_) | Err(Failure::LeaseEnded(_) | Failure::TooLarge { .. } | Failure::Invalid(_)) => false,
            };
            if !again || Instant::now() + pause >= deadline {
                return answer.map_err(|failure| failure.settle(operation).into());
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt(&self, operation: &Operation, deadline: Instant) -> Answer {
        let metrics = self.metrics();
        if let Err(fatal) = metrics.running_state {
            return Err(Failure::NotDone(stopped(&fatal)));
        }
        match metrics.current_leader {
            Some(leader) if leader == self.id => self.lead(operation, deadline).await,
            Some(leader) => self.forward(operation, leader, deadline).await,
            None => Err(Failure::NotDone(self.why_no_leader(deadline).await)),
        }
    }

    async fn why_no_leader(&self, deadline: Instant) -> Hindrance {
        match timeout_at(deadline, self.is_initialised()).await {
            Ok(Ok(true)) => Hindrance::NotLeader,
            Ok(Ok(false)) => Hindrance::NotInitialised,
            Ok(Err(stopped)) => stopped,
            Err(_) => Hindrance::Timeout,
        }
    }

    // --- At the leader ----------------------------------------------------------------------------------------------

    /// Does an operation here, on the belief of leading; Raft checks the belief.
    pub(crate) async fn lead(&self, operation: &Operation, deadline: Instant) -> Answer {
        match operation {
            Operation::Get(key) => {
                self.barrier(deadline).await?;
                Ok(Done::Entry(self.shared.read(|state| state.get(key)).map(Into::into)))
            }
            Operation::List(prefix) => {
                self.barrier(deadline).await?;
                self.list(prefix)
            }
            Operation::Write(command) => self.write(command, deadline).await,
            Operation::KeepAlive(lease) => {
                // The leader's own lease would save a round trip and is not enough: a voter that has just restarted
                // does not remember that lease and elects another leader at once, who may already have ended ours.
                self.barrier(deadline).await?;
                self.renew_lease(*lease)
            }
            Operation::AddLearner(name) => self.add_learner(name, deadline).await,
            Operation::Promote(name) => self.promote(name, deadline).await,
            Operation::Remove(name) => self.remove(name, deadline).await,
            Operation::Transfer(name) => self.transfer(name, deadline).await,
        }
    }

    fn list(&self, prefix: &str) -> Answer {
        let listing = self
            .shared
            .read(|state| Listing { entries: state.list(prefix).collect(), revision: state.revision() });
        listing_answer(listing, MAX_LISTING)
    }

    /// Makes sure that this node leads and has applied everything committed before this call.
    async fn barrier(&self, deadline: Instant) -> Result<(), Failure> {
        let ready = async {
            let linearizer = match self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
                Ok(linearizer) => linearizer,
                Err(RaftError::Fatal(fatal)) => return Err(stopped(&fatal)),
                Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                    return Err(Hindrance::NoQuorum);
                }
                Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                    return Err(forwarded(&forward));
                }
            };
            linearizer.await_ready(&self.raft).await.map(|_| ()).map_err(|fatal| stopped(&fatal))
        };
        match timeout_at(deadline, ready).await {
            Ok(result) => result.map_err(Failure::NotDone),
            Err(_) => Err(Failure::NotDone(Hindrance::Timeout)),
        }
    }

    async fn write(&self, command: &Command, deadline: Instant) -> Answer {
        match timeout_at(deadline, self.raft.client_write(command.clone())).await {
            Ok(Ok(written)) => match written.data {
                Applied::Txn(outcome) => Ok(Done::Txn(outcome)),
                Applied::Granted(lease) => Ok(Done::Granted(lease)),
                Applied::LeaseEnded(lease) => Err(Failure::LeaseEnded(lease)),
                Applied::Nothing | Applied::Ended => Ok(Done::Plain),
            },
            Ok(Err(error)) => Err(not_written(error)),
            Err(_) => Err(Failure::Unknown(Hindrance::Timeout)),
        }
    }

    // --- At a follower ----------------------------------------------------------------------------------------------

    async fn forward(&self, operation: &Operation, leader: RaftId, deadline: Instant) -> Answer {
        let Some(name) = self.members().name_of(leader).cloned() else {
            return Err(Failure::NotDone(Hindrance::NotLeader));
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let within =
            if operation.is_read() { left.min(self.pace.lasts(self.timings.read_attempt())) } else { left };
        let millis = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        let request = Request { to: Some(leader), body: RequestBody::Operate(operation.clone(), millis) };
        match encode(&request, &[]) {
            Ok(message) => self.ask(&name, leader, message, within).await,
            Err(error) => Err(Failure::Invalid(error.to_string())),
        }
    }

    /// Asks the leader; stops waiting when this node learns of another one.
    async fn ask(&self, name: &NodeName, leader: RaftId, message: Bytes, within: Duration) -> Answer {
        let response = tokio::select! {
            response = network::call::<Answer>(&*self.transport, name, message, within) => response,
            () = self.leader_is_not(leader) => return Err(Failure::Unknown(Hindrance::LeaderChanged)),
        };
        match response {
            Ok(Response::Answer(answer)) => answer,
            // Another incarnation answered under that name: whoever led is gone.
            Ok(Response::Refused(_)) => Err(Failure::NotDone(Hindrance::NotLeader)),
            Err(error) => Err(unanswered(name, &error)),
        }
    }

    async fn leader_is_not(&self, leader: RaftId) {
        let mut metrics = self.raft.server_metrics();
        loop {
            if metrics.borrow_watched().current_leader.is_some_and(|current| current != leader) {
                return;
            }
            if metrics.changed().await.is_err() {
                return;
            }
        }
    }
}

impl Failure {
    /// What is left at the deadline: of something that changes nothing, the outcome is never unknown.
    fn settle(self, operation: &Operation) -> Self {
        match self {
            Self::Unknown(hindrance) if operation.is_read() => Self::NotDone(hindrance),
            Self::Unknown(_)
            | Self::NotDone(_)
            | Self::LeaseEnded(_)
            | Self::TooLarge { .. }
            | Self::Invalid(_) => self,
        }
    }
}

impl Operation {
    fn is_read(&self) -> bool {
        match self {
            Self::Get(_) | Self::List(_) => true,
            Self::KeepAlive(_)
            | Self::Write(_)
            | Self::AddLearner(_)
            | Self::Promote(_)
            | Self::Remove(_)
            | Self::Transfer(_) => false,
        }
    }
}

impl Hindrance {
    /// Whether waiting can help.
    fn may_pass(&self) -> bool {
        match self {
            Self::NotLeader
            | Self::NoQuorum
            | Self::Timeout
            | Self::LeaderChanged
            | Self::Busy(_)
            | Self::Connection(_) => true,
            Self::NotInitialised | Self::Stopped(_) | Self::Refused(_) => false,
        }
    }
}

// --- What Raft's refusals mean ------------------------------------------------------------------------------------

pub(crate) fn stopped(fatal: &Fatal<TypeConfig>) -> Hindrance {
    Hindrance::Stopped(fatal.to_string())
}

/// Refused before it entered the log.
fn forwarded(forward: &ForwardToLeader<TypeConfig>) -> Hindrance {
    match forward.reason {
        ForwardReason::NotLeader | ForwardReason::LeadershipTransfer => Hindrance::NotLeader,
        ForwardReason::LeaseExpired => Hindrance::NoQuorum,
    }
}

pub(crate) fn not_written(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> Failure {
    match error {
        RaftError::Fatal(fatal) => Failure::Unknown(stopped(&fatal)),
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
            Failure::NotDone(forwarded(&forward))
        }
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => {
            Failure::Unknown(Hindrance::LeaderChanged)
        }
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => {
            Failure::NotDone(not_changed(&error))
        }
        RaftError::APIError(ClientWriteError::PreconditionFailed(error)) => {
            Failure::NotDone(Hindrance::Refused(error.to_string()))
        }
    }
}

fn not_changed(error: &ChangeMembershipErrorOf<TypeConfig>) -> Hindrance {
    match error {
        ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_) => {
            Hindrance::Busy(error.to_string())
        }
        ChangeMembershipError::EmptyMembership(_)
        | ChangeMembershipError::LearnerNotFound(_)
        | ChangeMembershipError::UnsupportedMembershipTransition(_)
        | ChangeMembershipError::NodeMetadataChanged(_) => Hindrance::Refused(error.to_string()),
    }
}

fn unanswered(name: &NodeName, error: &io::Error) -> Failure {
    let hindrance = Hindrance::Connection(format!("{name}: {error}"));
    let undelivered = [io::ErrorKind::ConnectionRefused, io::ErrorKind::NotConnected].contains(&error.kind());
    if undelivered { Failure::NotDone(hindrance) } else { Failure::Unknown(hindrance) }
}
