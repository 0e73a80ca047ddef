//! Answers to clients: the body of any, and those of the proxy's own, plain words for whoever looks at them.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::{Frame, SizeHint};
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};

use super::carried::Carried;
use crate::crowd::Busy;
use crate::journal::Note;

/// The body of any answer.
#[derive(Debug)]
pub(super) struct Body {
    content: Either<Full<Bytes>, Carried>,
    /// Written to the access log when the body has ended.
    note: Option<Box<Note>>,
    /// The connection is in use until the body has ended.
    busy: Option<Busy>,
}

/// Seconds after which a client may try again when there is no instance.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

impl Body {
    /// Words of the proxy's own.
    pub(super) fn whole(bytes: impl Into<Bytes>) -> Self {
        Self { content: Either::Left(Full::new(bytes.into())), note: None, busy: None }
    }

    /// An instance's words.
    pub(super) fn carried(carried: Carried) -> Self {
        Self { content: Either::Right(carried), note: None, busy: None }
    }

    /// Which instance they are from.
    pub(super) fn instance(&self) -> Option<String> {
        match &self.content {
            Either::Left(_) => None,
            Either::Right(carried) => Some(carried.instance().to_owned()),
        }
    }

    /// Keeps what lasts as long as the answer does.
    pub(super) fn keep(&mut self, note: Option<Box<Note>>, busy: Busy) {
        (self.note, self.busy) = (note, Some(busy));
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = match &mut self.content {
            Either::Left(whole) => {
                ready!(Pin::new(whole).poll_frame(cx)).map(|frame| frame.map_err(|never| match never {}))
            }
            Either::Right(carried) => ready!(Pin::new(carried).poll_frame(cx)),
        };
        if let Some(note) = &mut self.note {
            note.saw(frame.as_ref().map(Result::as_ref));
        }
        // Who sends a body does not ask again behind its last piece.
        if frame.is_none() || self.content.is_end_stream() {
            self.busy = None;
            if let Some(note) = &mut self.note {
                note.is_all();
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.content.size_hint()
    }
}

/// An answer with a sentence as its body.
pub(super) fn plain(status: StatusCode, sentence: &str) -> Response<Body> {
    typed(status, "text/plain; charset=utf-8", format!("{sentence}\n").into())
}

/// The page that is shown when no instance can answer.
pub(super) fn maintenance(page: Bytes) -> Response<Body> {
    typed(StatusCode::SERVICE_UNAVAILABLE, "text/html; charset=utf-8", page)
}

fn typed(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::whole(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, RETRY_AFTER);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

/// Sends the client to `location` for good, with the same method and body.
pub(super) fn redirect(location: &str) -> Response<Body> {
    let Ok(target) = HeaderValue::from_str(location) else {
        return plain(StatusCode::BAD_REQUEST, "Refused: the address cannot be redirected.");
    };
    let mut response = plain(StatusCode::PERMANENT_REDIRECT, &format!("This is served at {location}"));
    response.headers_mut().insert(header::LOCATION, target);
    response
}

/// A complete answer, as bytes, for a client that is turned away before it is heard.
pub(super) fn crowded(limit: usize) -> Vec<u8> {
    let body = format!("This node's proxy already carries {limit} connections, which is its limit.\n");
    let head =
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nRetry-After: 1";
    format!("{head}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}
