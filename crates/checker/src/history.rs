//! One operation as its client saw it.

use std::fmt;

use model::time::Moment;

/// One operation of one client. All moments of a history are of one clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation<A> {
    /// Who did it.
    pub client: u32,
    /// Just before it was sent.
    pub invoked: Moment,
    /// How it ended.
    pub outcome: Outcome,
    /// What was asked, and what came back.
    pub action: A,
}

/// How an operation ended, as far as its client can know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was acknowledged; the acknowledgement arrived at this moment.
    Ok(Moment),
    /// It surely did not happen and never will.
    Failed,
    /// It may have happened, or not, or may still happen: it has a beginning and no end.
    Unknown,
}

impl<A> Operation<A> {
    /// When its acknowledgement arrived, if one did.
    pub fn acknowledged(&self) -> Option<Moment> {
        match self.outcome {
            Outcome::Ok(at) => Some(at),
            Outcome::Failed | Outcome::Unknown => None,
        }
    }

    /// Whether it was surely over before `later`. Two things at the same moment are taken as concurrent: the clock is no
    /// finer than that, and nobody shall be accused for a tie.
    pub fn is_over_before(&self, later: Moment) -> bool {
        self.acknowledged().is_some_and(|at| at < later)
    }

    /// Whether it surely did not happen.
    pub fn is_failed(&self) -> bool {
        match self.outcome {
            Outcome::Failed => true,
            Outcome::Ok(_) | Outcome::Unknown => false,
        }
    }
}

/// Who, and when: `client 3 (1.200 ms to 1.900 ms)`.
impl<A> fmt::Display for Operation<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, invoked, outcome, .. } = self;
        match outcome {
            Outcome::Ok(at) => write!(f, "client {client} ({invoked:?} to {at:?})"),
            Outcome::Failed => write!(f, "client {client} ({invoked:?}, failed)"),
            Outcome::Unknown => write!(f, "client {client} (from {invoked:?}, outcome unknown)"),
        }
    }
}
