//! A client that has connected: its first message, the wait for a member, and the greeting of that member.
//!
//! Nothing of the session has happened before the member's first byte: until then every failure, and every change of
//! the table, sends the client back to waiting without its noticing.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use model::routes::DatabaseEndpoint;
use model::time::Moment;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{sleep, sleep_until, timeout};

use super::cancel;
use super::carry::Session;
use super::route::{Bench, DatabaseRoute, Seat};
use crate::core::database::answer::{Fatal, NO_ENCRYPTION, TLS_ALERT};
use crate::core::database::conversation::Conversation;
use crate::core::database::first_message::{self, HEAD, Head, Kind, Malformed};
use crate::core::database::{Attendance, Patience, Verdict, View};
use crate::{clock, farewell, socket};

/// How long a client may take to send its first message (PostgreSQL gives a minute for the whole authentication).
const FIRST_MESSAGE: Duration = Duration::from_secs(10);
/// How long a client may take for its next message after its request for encryption was declined.
const NEXT_MESSAGE: Duration = Duration::from_secs(1);

/// A client that waits for a member.
struct Visitor {
    client: TcpStream,
    first: Vec<u8>,
    kind: Kind,
    accepted: Moment,
    route: Arc<DatabaseRoute>,
    views: watch::Receiver<Arc<View>>,
    attendance: watch::Receiver<Attendance>,
    /// Members that failed in this round of attempts.
    avoid: Vec<DatabaseEndpoint>,
    unanswered: Option<Unanswered>,
    patience: Patience,
    bench: Option<Bench>,
}

/// Members that left every attempt to connect without an answer, and since when.
struct Unanswered {
    members: Vec<DatabaseEndpoint>,
    since: Moment,
}

/// Why a client gets no member.
enum NoMember {
    /// It left.
    ClientGone,
    /// It has waited as long as it may.
    TimedOut,
    /// The members that the table names do not answer this node; the route of another node may well reach them.
    OutOfReach,
    /// Too many wait already.
    Full(u32),
}

/// How a member received the first message.
enum Greeting {
    /// It answers.
    Answered,
    /// It did not; nothing is lost, ask again elsewhere.
    Again,
}

/// Serves one accepted connection to its end. `_room` keeps its place among the proxy's connections.
pub(super) async fn serve(mut client: TcpStream, route: Arc<DatabaseRoute>, _room: OwnedSemaphorePermit) {
    socket::prepare(&client);
    let accepted = clock::now();
    let (head, first) = match timeout(FIRST_MESSAGE, read_first(&mut client)).await {
        Ok(Ok(message)) => message,
        Ok(Err(error)) => return reject(client, &route, error).await,
        Err(_) => {
            return tracing::debug!(route = ?route.report().route, "a client sent no first message in time");
        }
    };
    let views = route.views();
    if head.kind == Kind::Cancel {
        let members = views.borrow().inhabited().to_vec();
        return cancel::forward(first, &members).await;
    }
    let attendance = route.attendance();
    let visitor = Visitor {
        client,
        first,
        kind: head.kind,
        accepted,
        route,
        views,
        attendance,
        avoid: Vec::new(),
        unanswered: None,
        patience: Patience::default(),
        bench: None,
    };
    // Boxed, so that a session that is long under way does not keep the room that the visit needed.
    if let Some((session, talk)) = Box::pin(visitor.visit()).await {
        session.carry(talk).await;
    }
}

/// Reads exactly the first message, so that everything after it is still in the socket.
async fn read_first(client: &mut TcpStream) -> io::Result<(Head, Vec<u8>)> {
    let mut message = vec![0; HEAD];
    client.read_exact(&mut message).await?;
    let head =
        first_message::head(message[..].try_into().map_err(io::Error::other)?).map_err(io::Error::other)?;
    message.resize(head.length, 0);
    client.read_exact(&mut message[HEAD..]).await?;
    Ok((head, message))
}

async fn reject(client: TcpStream, route: &DatabaseRoute, error: io::Error) {
    // Port scanners and health checks connect and leave; only those who spoke get an answer and count as failed.
    if let Some(malformed) = error.get_ref().and_then(|inner| inner.downcast_ref::<Malformed>()) {
        route.count_failed();
        farewell::say(client, Fatal::protocol_violation(malformed.to_string()).encode()).await;
    }
}

impl Visitor {
    /// Finds a member that answers; `None` when the client has left or was told that there is none.
    async fn visit(mut self) -> Option<(Session, Conversation)> {
        loop {
            let (seat, mut member) = match self.find_member().await {
                Ok(found) => found,
                Err(reason) => return self.apologise(reason).await,
            };
            match self.greet(&seat, &mut member).await {
                Ok(Greeting::Answered) => return Some(self.settle_in(seat, member)),
                Ok(Greeting::Again) => self.failed(&seat),
                Err(reason) => return self.apologise(reason).await,
            }
        }
    }

    fn settle_in(self, seat: Seat, member: TcpStream) -> (Session, Conversation) {
        let talk = match self.kind {
            Kind::Startup => Conversation::plain(),
            Kind::Encryption => Conversation::asked_for_encryption(),
            Kind::DirectTls | Kind::Cancel => Conversation::opaque(),
        };
        let Self { client, views, route, .. } = self;
        (Session { client, member, seat, views, route, began: clock::now() }, talk)
    }

    /// Waits until a member accepts a connection.
    async fn find_member(&mut self) -> Result<(Seat, TcpStream), NoMember> {
        loop {
            // Seen before the seat is asked for, so that any later table ends the waits below.
            if self.all_have_failed() {
                if self.are_out_of_reach() {
                    return Err(NoMember::OutOfReach);
                }
                self.avoid.clear();
                let pause = self.patience.next_pause();
                self.wait(Some(pause)).await?;
                continue;
            }
            match self.route.take_seat(&self.avoid) {
                None => self.wait(None).await?,
                Some(seat) => match self.connect(&seat).await? {
                    Some(member) => {
                        self.bench = None;
                        return Ok((seat, member));
                    }
                    None => self.failed(&seat),
                },
            }
        }
    }

    fn all_have_failed(&mut self) -> bool {
        let view = self.views.borrow_and_update();
        let eligible = view.eligible();
        !eligible.is_empty() && eligible.iter().all(|member| self.avoid.contains(member))
    }

    /// Whether those who take connections now have left them without an answer for too long. Who refuses is reached.
    fn are_out_of_reach(&mut self) -> bool {
        let view = self.views.borrow();
        let unanswered = self.unanswered.as_ref().filter(|unanswered| unanswered.members == view.eligible());
        unanswered.is_some_and(|unanswered| Patience::is_over(unanswered.since, clock::now()))
    }

    /// An attempt to connect was left without an answer, or was not.
    fn note_answer(&mut self, answered: bool) {
        let view = self.views.borrow();
        let known = self.unanswered.take().filter(|known| known.members == view.eligible());
        self.unanswered = (!answered).then(|| {
            known.unwrap_or_else(|| Unanswered { members: view.eligible().to_vec(), since: clock::now() })
        });
    }

    fn failed(&mut self, seat: &Seat) {
        self.route.count_retried();
        self.avoid.push(seat.endpoint().clone());
    }

    /// Sits down among the waiting until the table changes or `pause` is over.
    async fn wait(&mut self, pause: Option<Duration>) -> Result<(), NoMember> {
        if self.bench.is_none() {
            self.bench = Some(self.route.park().map_err(|full| NoMember::Full(full.limit))?);
        }
        let deadline = self.deadline();
        let pause = async {
            match pause {
                Some(pause) => sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.views.changed() => Ok(()),
            () = changed(&mut self.attendance) => Ok(()),
            () = pause => Ok(()),
            () = sleep_until(clock::instant(deadline)) => Err(NoMember::TimedOut),
            () = gone(&self.client) => Err(NoMember::ClientGone),
        }
    }

    /// One attempt to connect, given up when it takes too long or the table does not allow the member any more.
    async fn connect(&mut self, seat: &Seat) -> Result<Option<TcpStream>, NoMember> {
        let attempt = timeout(self.patience.next_connect(), TcpStream::connect(seat.endpoint().address));
        let mut attempt = std::pin::pin!(attempt);
        let deadline = clock::instant(self.deadline());
        loop {
            tokio::select! {
                biased;
                _ = self.views.changed() => {
                    if self.views.borrow_and_update().verdict(seat.endpoint()) != Verdict::Keep {
                        return Ok(None);
                    }
                }
                outcome = &mut attempt => {
                    self.note_answer(outcome.is_ok());
                    return Ok(outcome.ok().and_then(Result::ok).inspect(socket::prepare));
                }
                () = gone(&self.client) => return Err(NoMember::ClientGone),
                () = sleep_until(deadline) => return Err(NoMember::TimedOut),
            }
        }
    }

    /// Passes the first message on and waits for the member's first byte.
    async fn greet(&mut self, seat: &Seat, member: &mut TcpStream) -> Result<Greeting, NoMember> {
        if member.write_all(&self.first).await.is_err() {
            return Ok(Greeting::Again);
        }
        if self.kind == Kind::DirectTls {
            // The rest of the handshake is still to be carried before the member can answer.
            return Ok(Greeting::Answered);
        }
        let others = self.views.borrow_and_update().eligible().len().saturating_sub(1);
        let impatience = async {
            match Patience::answer(others) {
                Some(wait) => sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        let mut impatience = std::pin::pin!(impatience);
        loop {
            let unattended = self.unattended_until();
            tokio::select! {
                biased;
                answer = peek(member) => {
                    return Ok(if answer { Greeting::Answered } else { Greeting::Again });
                }
                _ = self.views.changed() => {
                    if self.views.borrow_and_update().verdict(seat.endpoint()) != Verdict::Keep {
                        return Ok(Greeting::Again);
                    }
                }
                () = changed(&mut self.attendance) => {}
                () = until(unattended) => return Err(NoMember::TimedOut),
                () = gone(&self.client) => return Err(NoMember::ClientGone),
                () = &mut impatience => return Ok(Greeting::Again),
            }
        }
    }

    /// Tells the client that there is no member for it, in words that its program shows.
    async fn apologise<T>(mut self, reason: NoMember) -> Option<T> {
        if matches!(reason, NoMember::ClientGone) {
            return None;
        }
        self.bench = None;
        self.route.count_failed();
        let view = self.views.borrow().clone();
        let database = view.target.database.as_str();
        let because = match self.attendance.borrow().missing_since() {
            Some(_) => {
                &format!("{}, and this node's agent, which would know more, is not there", view.because())
            }
            None => view.because(),
        };
        let waited = u64::try_from(clock::now().since(self.accepted).as_millis()).unwrap_or(u64::MAX);
        let fatal = match reason {
            NoMember::Full(limit) => Fatal::too_many_waiting(database, because, limit),
            NoMember::OutOfReach => Fatal::out_of_reach(database, view.eligible(), waited),
            NoMember::TimedOut | NoMember::ClientGone => Fatal::cannot_connect_now(database, because, waited),
        };
        match self.kind {
            Kind::DirectTls => farewell::say(self.client, TLS_ALERT.to_vec()).await,
            Kind::Encryption => self.apologise_unencrypted(fatal).await,
            Kind::Startup | Kind::Cancel => farewell::say(self.client, fatal.encode()).await,
        }
        None
    }

    /// Clients do not show an error that comes before encryption is agreed (CVE-2024-10977). So the request is
    /// declined first; a client that does not insist on encryption goes on in plain text and shows the error then.
    async fn apologise_unencrypted(mut self, fatal: Fatal) {
        for _ in 0..2 {
            if self.client.write_all(NO_ENCRYPTION).await.is_err() {
                return;
            }
            match timeout(NEXT_MESSAGE, read_first(&mut self.client)).await {
                Ok(Ok((Head { kind: Kind::Encryption, .. }, _))) => {}
                Ok(Ok(_)) => return farewell::say(self.client, fatal.encode()).await,
                Ok(Err(_)) | Err(_) => return,
            }
        }
    }

    fn deadline(&self) -> Moment {
        let ends = self.views.borrow().patience_ends(self.accepted);
        self.unattended_until().map_or(ends, |unattended| unattended.min(ends))
    }

    fn unattended_until(&self) -> Option<Moment> {
        self.attendance.borrow().patience_ends(self.accepted)
    }
}

async fn until(moment: Option<Moment>) {
    match moment {
        Some(moment) => sleep_until(clock::instant(moment)).await,
        None => std::future::pending().await,
    }
}

async fn changed(attendance: &mut watch::Receiver<Attendance>) {
    // Without its plane a route is about to end, and nothing changes any more.
    if attendance.changed().await.is_err() {
        std::future::pending().await
    }
}

/// Whether the peer has sent a byte; false when it has closed or failed instead.
async fn peek(stream: &TcpStream) -> bool {
    matches!(stream.peek(&mut [0]).await, Ok(1..))
}

/// Returns when the client has closed its connection. One that sends ahead is alive; its bytes wait.
async fn gone(client: &TcpStream) {
    if peek(client).await {
        std::future::pending::<()>().await;
    }
}
