//! One request to one instance.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Request, Response};
use tokio::time::timeout;

use super::carried::Behind;
use super::route::Flight;
use super::upstream::{Outgoing, Sender, Upstream};
use crate::core::service::Failure;

/// No connection is given up before this: machines pause for so long.
const CONNECT_SHORTEST: Duration = Duration::from_millis(100);

/// What came of it. The flight ends when the conclusions have been drawn.
pub(super) enum Outcome {
    /// The head of an answer.
    Answered(Box<Reply>),
    /// The request never reached the instance and may go to any other.
    Unsent(Flight, Box<Request<Outgoing>>, Failure),
    /// The request may have reached the instance; there is no answer. A connection that had been unused for a while may
    /// simply have been closed, which is not held against the instance.
    Lost(Flight, Option<Failure>),
}

/// An answer whose body is still to be read.
pub(super) struct Reply {
    pub(super) response: Response<Incoming>,
    pub(super) behind: Behind,
}

/// Sends `request` and waits for the head of the answer. An instance that has not even taken a connection after
/// `deadline`, which is many times what a whole answer takes, will not: the kernel asks again after a second only.
pub(super) async fn send(
    flight: Flight,
    upstream: Arc<Upstream>,
    mut request: Request<Outgoing>,
    repeatable: bool,
    deadline: Duration,
) -> Outcome {
    if let Some(mut sender) = upstream.reuse(repeatable) {
        match sender.send(request).await {
            Ok(response) => return answered(response, flight, sender, upstream),
            Err(mut error) => match error.take_message() {
                Some(unsent) => request = unsent,
                None => return Outcome::Lost(flight, None),
            },
        }
    }
    let mut sender = match timeout(deadline.max(CONNECT_SHORTEST), upstream.connect()).await {
        Ok(Ok(sender)) => sender,
        Ok(Err(error)) => {
            tracing::debug!(%error, "an instance takes no connection");
            return Outcome::Unsent(flight, Box::new(request), Failure::Unreachable);
        }
        Err(_) => return Outcome::Unsent(flight, Box::new(request), Failure::Late),
    };
    match sender.send(request).await {
        Ok(response) => answered(response, flight, sender, upstream),
        Err(mut error) => match error.take_message() {
            Some(unsent) => Outcome::Unsent(flight, Box::new(unsent), Failure::Broken),
            // Not the instance's fault if it is the client that did not go on.
            None => Outcome::Lost(flight, (!error.error().is_user()).then_some(Failure::Broken)),
        },
    }
}

fn answered(
    response: Response<Incoming>,
    flight: Flight,
    sender: Sender,
    upstream: Arc<Upstream>,
) -> Outcome {
    Outcome::Answered(Box::new(Reply { response, behind: Behind { flight, sender, upstream } }))
}
