//! What etcd's errors say about whether something happened.

use std::error::Error as StdError;
use std::io;

use crate::coordinator::MAX_LISTING;
use crate::{Error, LeaseId, Reason};

/// gRPC's status codes by number (grpc/grpc `doc/statuscodes.md`); the client does not export their names.
mod code {
    pub(super) const INVALID_ARGUMENT: i32 = 3;
    pub(super) const NOT_FOUND: i32 = 5;
    pub(super) const PERMISSION_DENIED: i32 = 7;
    pub(super) const RESOURCE_EXHAUSTED: i32 = 8;
    pub(super) const OUT_OF_RANGE: i32 = 11;
    pub(super) const UNAUTHENTICATED: i32 = 16;
}

/// Whether a refused question had an effect.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Certainly not, and asking again may help.
    NotDone(Reason),
    /// Perhaps.
    Unknown(Reason),
    /// Certainly not, and asking again will not help.
    Refused(Error),
}

/// etcd's lease errors do not say which one; see [`name_lease`].
const SOME_LEASE: LeaseId = LeaseId(0);

impl Outcome {
    /// Of a question without effect, or with one that may be repeated, no outcome is in doubt.
    pub(super) fn of_a_harmless_question(self) -> Self {
        match self {
            Self::Unknown(reason) => Self::NotDone(reason),
            Self::NotDone(_) | Self::Refused(_) => self,
        }
    }
}

impl From<Outcome> for Error {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::NotDone(reason) => Self::Unavailable(reason),
            Outcome::Unknown(reason) => Self::OutcomeUnknown(reason),
            Outcome::Refused(error) => error,
        }
    }
}

/// Judges an error of etcd's client. In doubt the outcome is unknown.
pub(super) fn judge(error: &etcd_client::Error) -> Outcome {
    if let etcd_client::Error::GRpcStatus(status) = error {
        return judge_status(i32::from(status.code()), status.message(), status);
    }
    if let etcd_client::Error::LeaseKeepAliveError(problem) = error
        && problem.contains("lease not found")
    {
        return Outcome::Refused(Error::LeaseEnded(SOME_LEASE));
    }
    let reason = Reason::Connection(error.to_string());
    if never_sent(error) { Outcome::NotDone(reason) } else { Outcome::Unknown(reason) }
}

fn judge_status(status: i32, message: &str, error: &(dyn StdError + 'static)) -> Outcome {
    let text = message.to_owned();
    let refused = |reason| Outcome::Refused(Error::Unavailable(reason));
    match status {
        code::NOT_FOUND if message.contains("lease not found") => {
            Outcome::Refused(Error::LeaseEnded(SOME_LEASE))
        }
        code::OUT_OF_RANGE if message.contains("message length too large") => {
            Outcome::Refused(Error::TooLarge { what: "answer", size: MAX_LISTING + 1, limit: MAX_LISTING })
        }
        code::INVALID_ARGUMENT => Outcome::Refused(Error::Invalid(text)),
        code::RESOURCE_EXHAUSTED | code::PERMISSION_DENIED | code::UNAUTHENTICATED => {
            refused(Reason::Refused(text))
        }
        _ if message.contains("etcdserver: no leader") => Outcome::NotDone(Reason::NoLeader),
        _ if message.contains("etcdserver: leader changed") => Outcome::Unknown(Reason::LeaderChanged),
        _ if message.contains("etcdserver: request timed out") => Outcome::Unknown(Reason::NoQuorum),
        _ if never_sent(error) => Outcome::NotDone(Reason::Connection(describe(error))),
        _ => Outcome::Unknown(Reason::Connection(describe(error))),
    }
}

/// Whether the chain of causes ends in a connection that was never made.
fn never_sent(error: &(dyn StdError + 'static)) -> bool {
    let unmade = [
        io::ErrorKind::ConnectionRefused,
        io::ErrorKind::HostUnreachable,
        io::ErrorKind::NetworkUnreachable,
        io::ErrorKind::AddrNotAvailable,
    ];
    causes(error)
        .any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|error| unmade.contains(&error.kind())))
}

type Cause<'a> = &'a (dyn StdError + 'static);

fn causes(error: Cause<'_>) -> impl Iterator<Item = Cause<'_>> {
    std::iter::successors(Some(error), |error| (**error).source())
}

fn describe(error: &(dyn StdError + 'static)) -> String {
    let last = causes(error).last().unwrap_or(error);
    last.to_string()
}

/// Puts the lease meant into an error that could not name it.
pub(super) fn name_lease(error: Error, meant: &[LeaseId]) -> Error {
    match (error, meant.first()) {
        (Error::LeaseEnded(SOME_LEASE), Some(lease)) => Error::LeaseEnded(*lease),
        (error, _) => error,
    }
}
