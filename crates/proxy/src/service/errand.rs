//! One request on its way to an answer: to one instance, and if that fails or is late, to others.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body as _, Incoming};
use hyper::header;
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::answer::{self, Body};
use super::arriving::{Arriving, Pulse};
use super::attempt::{self, Outcome, Reply};
use super::carried::Carried;
use super::route::{Chosen, Destination, ServiceRoute};
use super::tunnel::{self, Upgrade};
use super::upstream::Outgoing;
use crate::core::service::{Failure, Key, Wish, head};

/// How long instances may take for the head of an answer, all together.
const LONGEST: Duration = Duration::from_secs(60);
/// The most instances that one request is sent to.
const SENT_MOST: usize = 3;
/// A repeatable request's body up to this size is read first, so that it can be sent again.
const WHOLE_MOST: u64 = 16 << 10;
/// What a client is told that does not go on.
const TOO_SLOW: &str = "The body of the request did not come in time.";

/// One request.
pub(super) struct Errand {
    route: Arc<ServiceRoute>,
    head: Parts,
    body: RequestBody,
    repeatable: bool,
    /// The instance at which its client has been.
    stay: Option<Key>,
    upgrading: bool,
    begun: Instant,
    /// Instances that have it, or had it.
    tried: Vec<Key>,
    /// How many of them may have seen it.
    sent: usize,
    race: Vec<Runner>,
    /// When another instance is to be asked too.
    late_at: Option<Instant>,
    /// How long the one asked last is waited for alone.
    deadline: Duration,
    /// Every instance is at its limit.
    is_crowded: bool,
    /// A server error that is better than nothing.
    second_best: Option<Box<Reply>>,
}

/// What follows the head.
enum RequestBody {
    /// All of it is here.
    Whole(Bytes),
    /// It comes from the client, once; `None` while an instance has it.
    Stream(Option<Arriving>, Arc<Pulse>),
}

/// An attempt under way.
struct Runner {
    key: Key,
    begun: Instant,
    attempt: Pin<Box<dyn Future<Output = Outcome> + Send>>,
}

/// An attempt that has ended.
struct Finished {
    key: Key,
    begun: Instant,
    outcome: Outcome,
}

impl Errand {
    /// Prepares a request with its checked head. Err: the client did not send the body in time.
    pub(super) async fn new(
        route: Arc<ServiceRoute>,
        head: Parts,
        body: Incoming,
        upgrading: bool,
        pause_longest: Duration,
    ) -> Result<Self, &'static str> {
        let keys = route.traffic(|traffic| traffic.idempotency_keys);
        let may_repeat = !upgrading && head::is_repeatable(&head.method, &head.headers, keys);
        let is_small = body.size_hint().upper().is_some_and(|size| size <= WHOLE_MOST);
        let body = if body.is_end_stream() {
            RequestBody::Whole(Bytes::new())
        } else if may_repeat && is_small {
            RequestBody::Whole(read_whole(body, pause_longest).await?)
        } else {
            let (body, pulse) =
                Arriving::new(body, (!head::is_conversation(&head.headers)).then_some(pause_longest));
            RequestBody::Stream(Some(body), pulse)
        };
        let repeatable = may_repeat && matches!(body, RequestBody::Whole(_));
        let stay = route.stay(&head.headers);
        Ok(Self {
            route,
            stay,
            head,
            body,
            repeatable,
            upgrading,
            begun: Instant::now(),
            tried: Vec::new(),
            sent: 0,
            race: Vec::new(),
            late_at: None,
            deadline: Duration::ZERO,
            is_crowded: false,
            second_best: None,
        })
    }

    /// Sends the request until there is an answer.
    pub(super) async fn run(mut self, upgrade: Upgrade) -> Response<Body> {
        self.begin().await;
        while !self.race.is_empty() {
            let end = self.end();
            let wake = self.late_at.map_or(end, |late| late.min(end));
            let finished = tokio::select! {
                biased;
                finished = first(&mut self.race) => Some(finished),
                () = sleep_until(wake) => None,
            };
            match finished {
                Some(finished) => {
                    if let Some(reply) = self.judge(finished) {
                        return self.deliver(*reply, upgrade);
                    }
                }
                None if Instant::now() >= self.end() => break,
                None if self.late_at.is_some_and(|late| late <= Instant::now()) => self.ask_another_too(),
                // The client sends on, and the instance's time has not begun.
                None => {}
            }
        }
        self.give_up(upgrade)
    }

    /// When the instances' time is over. It counts from the last that came of the request's body.
    fn end(&self) -> Instant {
        let whole = match &self.body {
            RequestBody::Whole(_) => self.begun,
            RequestBody::Stream(_, pulse) => pulse.last().unwrap_or_else(Instant::now),
        };
        whole.max(self.begun) + LONGEST
    }

    /// Sends the request to a first instance. While all are at their limits it waits, if the queue has room for it.
    async fn begin(&mut self) {
        match self.route.choose(&self.wish(false)) {
            Chosen::Instance(destination) => self.send_to(destination),
            Chosen::Nobody => {}
            Chosen::Full => {
                self.is_crowded = true;
                if let Some(destination) = self.wait_for_room().await {
                    self.is_crowded = false;
                    self.send_to(destination);
                }
            }
        }
    }

    async fn wait_for_room(&mut self) -> Option<Destination> {
        let waiting = self.route.enter_queue()?;
        let end = Instant::now() + waiting.longest;
        loop {
            timeout_at(end, waiting.turn()).await.ok()?;
            match self.route.choose(&self.wish(true)) {
                Chosen::Instance(destination) => return Some(destination),
                Chosen::Full => {}
                Chosen::Nobody => return None,
            }
        }
    }

    fn wish(&self, first: bool) -> Wish<'_> {
        Wish { avoid: &self.tried, repeatable: self.repeatable, stay: self.stay, first }
    }

    fn send_to(&mut self, destination: Destination) {
        let Destination { flight, upstream, deadline } = destination;
        let Some(request) = self.request() else { return };
        let (key, begun) = (flight.key, Instant::now());
        self.tried.push(key);
        self.sent += 1;
        self.deadline = deadline;
        self.late_at = (self.repeatable && self.sent < SENT_MOST).then(|| begun + deadline);
        let attempt = Box::pin(attempt::send(flight, upstream, request, self.repeatable, deadline));
        self.race.push(Runner { key, begun, attempt });
    }

    /// Sends the request, which `from` has had, to one more instance, if there is one and nothing forbids it. False: it is
    /// not sent.
    fn ask_another(&mut self, from: Key) -> bool {
        if self.sent >= SENT_MOST || !self.route.may_repeat(from, &self.tried) {
            return false;
        }
        match self.route.choose(&self.wish(true)) {
            Chosen::Instance(destination) => {
                self.send_to(destination);
                true
            }
            Chosen::Full | Chosen::Nobody => false,
        }
    }

    /// The instance asked last is late. What cannot be done about it now may be a moment later, when it has been found to
    /// be ejected, or others have come; that is looked at ever less often.
    fn ask_another_too(&mut self) {
        self.late_at = None;
        let Some(from) = self.tried.last().copied() else { return };
        if !self.ask_another(from) && self.sent < SENT_MOST {
            self.deadline *= 2;
            self.late_at = Some(Instant::now() + self.deadline);
        }
    }

    fn request(&mut self) -> Option<Request<Outgoing>> {
        let body = match &mut self.body {
            RequestBody::Whole(bytes) => Either::Left(Full::new(bytes.clone())),
            RequestBody::Stream(arriving, _) => Either::Right(arriving.take()?),
        };
        let mut request = Request::new(body);
        request.method_mut().clone_from(&self.head.method);
        request.uri_mut().clone_from(&self.head.uri);
        request.headers_mut().clone_from(&self.head.headers);
        Some(request)
    }

    /// Draws the conclusions of an attempt; returns the answer to deliver, if it is one.
    fn judge(&mut self, finished: Finished) -> Option<Box<Reply>> {
        let Finished { key, begun, outcome } = finished;
        match outcome {
            Outcome::Answered(reply) => self.judge_answer(begun, reply),
            Outcome::Unsent(_flight, request, failure) => {
                self.route.failed(key, failure);
                self.sent -= 1;
                if let (RequestBody::Stream(place, _), Either::Right(body)) =
                    (&mut self.body, request.into_body())
                {
                    *place = Some(body);
                }
                self.ask_another(key);
                None
            }
            Outcome::Lost(_flight, failure) => {
                if let Some(failure) = failure {
                    self.route.failed(key, failure);
                }
                if self.repeatable {
                    self.ask_another(key);
                }
                None
            }
        }
    }

    fn judge_answer(&mut self, begun: Instant, reply: Box<Reply>) -> Option<Box<Reply>> {
        let key = reply.behind.flight.key;
        if !head::is_server_error(reply.response.status()) {
            self.won(key, begun);
            return Some(reply);
        }
        if self.repeatable && self.second_best.is_none() {
            self.second_best = Some(reply);
            self.ask_another(key);
            return None;
        }
        // Two instances agree, or the request cannot be repeated: it may well be the request's own fault.
        self.route.failed(key, Failure::ServerError);
        Some(reply)
    }

    /// The instance that was asked at `begun` has answered as it should: the others that had more time, or answered with
    /// an error, have not.
    fn won(&mut self, key: Key, begun: Instant) {
        self.route.succeeded(key, begun.elapsed());
        for runner in self.race.iter().filter(|runner| runner.begun < begun) {
            self.route.failed(runner.key, Failure::Late);
        }
        if let Some(beaten) = self.second_best.take() {
            self.route.failed(beaten.behind.flight.key, Failure::Outdone);
        }
    }

    fn deliver(mut self, mut reply: Reply, upgrade: Upgrade) -> Response<Body> {
        self.race.clear();
        if let RequestBody::Stream(_, pulse) = &self.body {
            pulse.answered();
        }
        let is_secure = upgrade.visit.is_secure;
        if let Some(cookie) = self.route.new_cookie(self.stay, reply.behind.flight.key, is_secure) {
            reply.response.headers_mut().append(header::SET_COOKIE, cookie);
        }
        if reply.response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return if self.upgrading { tunnel::begin(upgrade, reply) } else { self.unasked_upgrade() };
        }
        let Reply { response, behind } = reply;
        let (mut head, body) = response.into_parts();
        head::release(&mut head.headers, false);
        Response::from_parts(head, Body::carried(Carried::new(body, behind)))
    }

    fn unasked_upgrade(&self) -> Response<Body> {
        self.route.count_failed();
        answer::plain(StatusCode::BAD_GATEWAY, "The instance switched protocols without being asked.")
    }

    /// Nobody is left to ask, or there is no time left.
    fn give_up(mut self, upgrade: Upgrade) -> Response<Body> {
        if let Some(reply) = self.second_best.take() {
            self.route.failed(reply.behind.flight.key, Failure::ServerError);
            return self.deliver(*reply, upgrade);
        }
        if let RequestBody::Stream(_, pulse) = &self.body
            && pulse.is_late()
        {
            return answer::plain(StatusCode::REQUEST_TIMEOUT, TOO_SLOW);
        }
        let sentence = if self.is_crowded { self.route.count_refused() } else { self.route.count_failed() };
        if !self.race.is_empty() {
            let late = format!("No instance answered within {} seconds.", LONGEST.as_secs());
            return answer::plain(StatusCode::GATEWAY_TIMEOUT, &late);
        }
        if self.sent > 0 {
            let lost = "The instance broke off before it answered, and the request may have had an effect.";
            return answer::plain(StatusCode::BAD_GATEWAY, lost);
        }
        self.route.unavailable(&sentence)
    }
}

async fn read_whole(body: Incoming, longest: Duration) -> Result<Bytes, &'static str> {
    match timeout(longest, body.collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(_)) => Err("The request's body broke off."),
        Err(_) => Err(TOO_SLOW),
    }
}

/// Waits for the first attempt that ends and takes it out of the race.
async fn first(race: &mut Vec<Runner>) -> Finished {
    poll_fn(|cx| {
        for place in 0..race.len() {
            if let Poll::Ready(outcome) = race[place].attempt.as_mut().poll(cx) {
                let Runner { key, begun, attempt: _ } = race.swap_remove(place);
                return Poll::Ready(Finished { key, begun, outcome });
            }
        }
        Poll::Pending
    })
    .await
}
