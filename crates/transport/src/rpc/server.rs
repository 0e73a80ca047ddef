//! The answering side.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use model::NodeName;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::wire::Message;
use crate::frame::{Connection, FrameError, FrameReceiver, FrameSender};

/// Requests of one connection that may be in work at once; further ones are answered with a failure at once.
pub const MAX_REQUESTS_IN_WORK: usize = 128;

/// Answers requests on `connection` with `handler` until the peer closes it. Requests run concurrently, started in the
/// order of their arrival; an `Err` travels to the caller as words. When the connection ends, running handlers are
/// dropped at their next await.
pub async fn serve_rpc<H, F>(connection: Connection, handler: H) -> Result<(), FrameError>
where
    H: Fn(NodeName, Bytes) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Vec<u8>, String>> + Send + 'static,
{
    let peer = connection.peer().clone();
    let (sender, receiver) = connection.split();
    let (answers, outgoing) = mpsc::channel(MAX_REQUESTS_IN_WORK);
    let ended = tokio::select! {
        ended = read(receiver, answers, peer, Arc::new(handler)) => ended,
        ended = write(sender, outgoing) => ended,
    };
    match ended {
        Err(FrameError::Closed | FrameError::Ended) => Ok(()),
        other => other,
    }
}

async fn read<H, F>(
    mut receiver: FrameReceiver,
    answers: mpsc::Sender<Message>,
    peer: NodeName,
    handler: Arc<H>,
) -> Result<(), FrameError>
where
    H: Fn(NodeName, Bytes) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Vec<u8>, String>> + Send + 'static,
{
    let mut work = JoinSet::new();
    loop {
        let frame = receiver.recv().await?;
        while work.try_join_next().is_some() {}
        let answer = match Message::decode(frame) {
            Some(Message::Ping(id)) => Message::Pong(id),
            Some(Message::Request(id, _)) if work.len() >= MAX_REQUESTS_IN_WORK => {
                Message::Failure(id, Bytes::from_static(b"too many requests at once"))
            }
            Some(Message::Request(id, body)) => {
                let answers = answers.clone();
                let result = handler(peer.clone(), body);
                work.spawn(async move {
                    let answer = match result.await {
                        Ok(body) => Message::Answer(id, body.into()),
                        Err(reason) => Message::Failure(id, reason.into()),
                    };
                    // The connection is gone: the caller knows already.
                    let _ = answers.send(answer).await;
                });
                continue;
            }
            Some(Message::Answer(..) | Message::Failure(..) | Message::Pong(_)) | None => {
                return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "not a request").into());
            }
        };
        if answers.send(answer).await.is_err() {
            return Err(FrameError::Closed);
        }
    }
}

async fn write(mut sender: FrameSender, mut outgoing: mpsc::Receiver<Message>) -> Result<(), FrameError> {
    while let Some(message) = outgoing.recv().await {
        match sender.send(&message.encode()).await {
            // An answer too long for the connection fails its request, not all others.
            Err(error @ FrameError::TooLong { .. }) => {
                if let Message::Answer(id, _) = message {
                    let failure = Message::Failure(id, error.to_string().into());
                    sender.send(&failure.encode()).await?;
                }
            }
            sent => sent?,
        }
    }
    Ok(())
}
